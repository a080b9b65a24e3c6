"""Claims of papers on sequences that several processes share."""
