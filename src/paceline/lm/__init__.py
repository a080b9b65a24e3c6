"""Tier 2: ONE decoder skeleton, ONE training loop, checkpoints."""
