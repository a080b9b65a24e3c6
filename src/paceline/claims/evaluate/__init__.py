"""Claims about evaluations."""
