"""Who is shown around: titles, what a step is, and tensors with their shapes go to a screen or a list."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Print = Callable[[str], None]


@dataclass(frozen=True)
class Reader:
    """Prints titles, what a step is, and tensors with their shapes."""

    line: Print = print

    def title(self, text: str) -> None:
        self.line(f"\n=== {text} ===")

    def step(self, text: str, source: str = "") -> None:
        self.line(f"\n{text}{f'  [{source}]' if source else ''}")

    def tensor(self, name: str, values: Tensor, axes: str) -> None:
        """The name, the axes with their lengths, and the values of the first example."""
        lengths = ", ".join(f"{axis}={n}" for axis, n in zip(axes.split(), values.shape, strict=True))
        self.line(f"  {name} ({lengths})")
        for row in rows_of(values[0] if axes.startswith("b") else values):
            self.line(f"    {row}")


def rows_of(values: Tensor) -> list[str]:
    """A tensor as lines of text, the last axis along the line; of more than two axes the first of each."""
    while values.ndim > 2:
        values = values[0]
    return [" ".join(map(written, row)) for row in (values[None] if values.ndim == 1 else values).tolist()]


def written(value: float) -> str:
    """A number, or the sign of a mask: `x` where a query may attend, `.` where it may not."""
    if isinstance(value, bool):
        return "x" if value else "."
    return f"{value:>3}" if isinstance(value, int) else f"{round(value, 2) + 0.0:>6.2f}"
