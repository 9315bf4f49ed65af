"""What an architecture costs, as two numbers that add up over its layers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Trainable parameters, and multiply-accumulates of one forward pass of one example: None where they
    cannot be counted, as those of a user's own model may not.
    """

    params: int
    macs: int | None

    def __add__(self, other: "Cost") -> "Cost":
        known = self.macs is not None and other.macs is not None
        return Cost(self.params + other.params, (self.macs or 0) + (other.macs or 0) if known else None)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.params * times, None if self.macs is None else self.macs * times)
