"""Claims of ways to decode."""
