"""Claims about objectives."""
