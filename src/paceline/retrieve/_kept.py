"""An index kept on disk: read again while what it was made from is the same, made anew where it is not, or damaged.

`NAME.safetensors` holds the arrays, `NAME.json`, written after it, the facts, what it was made from, and both digests.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from paceline.core.files import seal, sealed, write_atomic


def keep(place: Path, made_from: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Store an index.

    Args:
        place: the files' path without their endings.
        made_from: digest of everything that decides what the index holds.
        arrays: as `Retriever.stored` gives them.
        facts: likewise.
    """
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    write_atomic(place.with_suffix(".safetensors"), content)
    record = {"made_from": made_from, "arrays": hashlib.sha256(content).hexdigest(), "facts": dict(facts)}
    write_atomic(place.with_suffix(".json"), json.dumps(seal(record)))


def kept(place: Path, made_from: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The index that was stored, or None where there is none, it was made from something else, or it is damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        record = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        if sealed(record) and record["made_from"] == made_from:
            content = place.with_suffix(".safetensors").read_bytes()
            if hashlib.sha256(content).hexdigest() == record["arrays"]:
                return load(content), record["facts"]
    return None
