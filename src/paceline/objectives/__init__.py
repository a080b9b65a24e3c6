"""Tier 2: what a model is asked while it learns: which tokens it sees, and which it must predict."""
