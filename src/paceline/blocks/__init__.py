"""Tier 1: parts of a layer that do not mix tokens."""
