"""The one place that touches transformers: its causal LMs under our protocol, and our models under its."""
