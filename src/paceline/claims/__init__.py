"""Tier 5: one executable experiment per paper, `claims/<family>/<method>.py`. The only place where families meet."""
