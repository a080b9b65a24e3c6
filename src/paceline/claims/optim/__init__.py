"""Claims of the optimizers."""
