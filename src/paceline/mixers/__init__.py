"""Tier 2: parts that move information between the tokens of a sequence."""
