"""The cost of an architecture: two numbers that add up over its layers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Trainable parameters; multiply-accumulates of a forward pass of an example, None if not countable."""

    params: int
    macs: int | None

    def __add__(self, other: "Cost") -> "Cost":
        known = self.macs is not None and other.macs is not None
        return Cost(self.params + other.params, (self.macs or 0) + (other.macs or 0) if known else None)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.params * times, None if self.macs is None else self.macs * times)
