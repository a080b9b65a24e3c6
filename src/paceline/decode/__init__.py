"""Choosing the next tokens of a causal language model: `generate(lm, prompt, strategy)`."""
