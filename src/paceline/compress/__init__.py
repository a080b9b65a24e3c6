"""Making a model smaller: fewer bits, fewer weights."""
