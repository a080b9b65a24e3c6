"""What goes over a wire: texts, sounds, pictures, numbers and vectors."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True, eq=False)
class Sound:
    """A waveform."""

    wave: Float[np.ndarray, " n"]
    """In float32, between -1 and 1."""
    rate: int
    """Samples a second."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sound) and self.rate == other.rate and np.array_equal(self.wave, other.wave)

    def __hash__(self) -> int:
        return hash((self.rate, len(self.wave)))


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in red, green and blue."""

    pixels: UInt8[np.ndarray, "h w 3"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and np.array_equal(self.pixels, other.pixels)

    def __hash__(self) -> int:
        return hash(self.pixels.shape)


class Kind(Enum):
    """The type of a port."""

    TEXT = "Text"
    TEXTS = "Texts"
    """A tuple of texts, maybe of none."""
    AUDIO = "Audio"
    """A `Sound`."""
    IMAGE = "Image"
    """A `Picture`."""
    NUMBER = "Number"
    """A float that is finite."""
    VECTOR = "Vector"
    """A float32 array of one dimension."""

    def holds(self, value: Any) -> bool:
        """Whether a value is of this type."""
        match self:
            case Kind.TEXT:
                return isinstance(value, str)
            case Kind.TEXTS:
                return isinstance(value, tuple) and all(isinstance(text, str) for text in value)
            case Kind.AUDIO:
                return isinstance(value, Sound) and _array(value.wave, np.float32, 1) and value.rate > 0
            case Kind.IMAGE:
                return isinstance(value, Picture) and _array(value.pixels, np.uint8, 3) and value.pixels.shape[2] == 3
            case Kind.NUMBER:
                return isinstance(value, float) and bool(np.isfinite(value))
            case Kind.VECTOR:
                return _array(value, np.float32, 1)


def _array(value: Any, kind: type, dimensions: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == kind and value.ndim == dimensions


def shown(value: Any) -> str:
    """A value as text: itself, its lines, or what it is."""
    match value:
        case str():
            return value
        case tuple():
            return "\n".join(value)
        case Sound():
            return f"{len(value.wave) / value.rate:.1f} s of sound"
        case Picture():
            return f"a picture of {value.pixels.shape[1]} x {value.pixels.shape[0]}"
        case np.ndarray():
            return f"a vector of {len(value)}"
    return f"{value:g}"
