"""Tier 4: contestants side by side under one budget, several seeds, paired statistics. Knows no method by name."""
