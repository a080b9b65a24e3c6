"""Claims about long contexts."""
