"""Optimizers: any of them for any model, and by name in Paceline's training loop."""
