"""Claims about flows."""
