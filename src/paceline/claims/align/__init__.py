"""Claims on alignment."""
