"""Tier 0: what every other folder stands on. Imports nothing of Paceline; only `state` needs torch."""
