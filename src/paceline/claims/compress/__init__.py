"""Claims about making models smaller."""
