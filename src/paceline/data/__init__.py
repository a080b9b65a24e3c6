"""Tier 1: what models are trained on and measured by: the user's text, and generated tasks."""
