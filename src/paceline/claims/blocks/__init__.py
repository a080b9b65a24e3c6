"""Claims about blocks."""
