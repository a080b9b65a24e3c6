"""The bill of a run in every currency."""

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Ledger:
    """What something cost. Sums add what accumulates and keep the largest of what does not."""

    tokens: int = 0
    """Tokens trained on or read."""
    flops: float = 0.0
    """Operations, a multiply-add counted as two; a backward pass counts as two forwards."""
    seconds: float = 0.0
    """Wall-clock time."""
    model_calls: int = 0
    """Forward passes."""
    parameters: int = 0
    """Trainable numbers (largest)."""
    state_bytes: int = 0
    """Bytes that one sequence keeps after the task's length (largest)."""
    peak_bytes: int = 0
    """Peak resident memory of the process (largest)."""

    def __add__(self, other: "Ledger") -> "Ledger":
        summed = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        for name in ("parameters", "state_bytes", "peak_bytes"):
            summed[name] = max(getattr(self, name), getattr(other, name))
        return Ledger(**summed)

    def to_dict(self) -> dict[str, float]:
        """As plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, float]) -> "Ledger":
        """The inverse of `to_dict`."""
        return cls(**values)  # type: ignore[arg-type]
