"""Claims about optimizers."""
