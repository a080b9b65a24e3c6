"""Claims about pipelines around given models."""
