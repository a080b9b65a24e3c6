"""Claims about ways to adapt a trained model."""
