"""Aligning a language model with a reward or with preferences, near the model that it was."""
