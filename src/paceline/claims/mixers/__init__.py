"""Claims of papers about mixers."""
