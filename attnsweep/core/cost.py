"""What an architecture costs, as two numbers that add up over its layers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Trainable parameters, and multiply-accumulates of one forward pass of one example."""

    params: int
    macs: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.macs + other.macs)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.params * times, self.macs * times)
