"""Pipelines around given language models: what they are asked, in what order, with which examples."""
