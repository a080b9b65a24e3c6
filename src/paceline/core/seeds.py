"""Seeds that cannot collide by accident."""

import hashlib

SEED_BITS = 63


def derive(seed: int, *path: str | int) -> int:
    """A seed for one use, e.g. `derive(3, "batch", 17)`: independent of every other path, in [0, 2^63)."""
    text = "/".join([str(seed), *(f"{type(step).__name__}:{step}" for step in path)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> (64 - SEED_BITS)
