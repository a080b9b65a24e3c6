"""Claims about tokens and bytes."""
