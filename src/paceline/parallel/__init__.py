"""Attention over one sequence that several processes hold in parts."""
