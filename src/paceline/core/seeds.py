"""Seeds that cannot collide by accident."""

import hashlib

SEED_BITS = 63


def derive(seed: int, *path: str | int) -> int:
    """A seed for one use, e.g. `derive(3, "batch", 17)`: independent of every other path, in [0, 2^63)."""
    steps = (f"{type(step).__name__}:{step}".replace("\\", "\\\\").replace("/", "\\/") for step in path)
    text = "/".join([str(seed), *steps])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> (64 - SEED_BITS)
