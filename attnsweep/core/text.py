"""Numbers as people write them, and back."""

import math
import re
from collections.abc import Sequence
from numbers import Real
from typing import Any

from attnsweep.core.errors import UserError

COUNTS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
UNITS = {  # of limits that are not counts
    "latency_ms": {"": 1, "ms": 1, "us": 1e-3, "\u00b5s": 1e-3, "s": 1e3},
    "memory_mb": {"": 1, "mb": 1, "gb": 1e3},
}
EXAMPLES = {"latency_ms": "2 or '500us'", "memory_mb": "800 or '2GB'"}
GROUPED = re.compile(r"\d{1,3}(,\d{3})+")  # 1,000,000; of counts: elsewhere a comma may be a decimal one


def amount(value: float | None) -> str:
    """A count, such as `1.8 M` for 1,800,000; `?` for None."""
    if value is None:
        return "?"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def limit(key: str, value: Any) -> float:
    """A cost's limit: a number above 0, or text such as `2M`, `1,000,000` or `2 ms`. Raises UserError."""
    found = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    units = UNITS.get(key, COUNTS)
    if isinstance(value, str) and (parts := re.fullmatch(r"(.*?\d\.?)\s*([^\W\d_]*)", value.strip().lower())):
        grouped = units is COUNTS and GROUPED.fullmatch(parts[1])
        try:
            found = float(parts[1].replace(",", "") if grouped else parts[1]) * units.get(parts[2], math.nan)
        except ValueError:
            found = math.nan
    if not 0 < found < math.inf:
        example = EXAMPLES.get(key, "2e6 or '2M'")
        raise UserError(f"budget: {key}={value!r} is out of range; use a number above 0, such as {example}")
    return found


def span(values: Sequence[float | None]) -> str:
    """The range of the known values: `0.6 M to 1.8 M`, or `0.6 M`."""
    known = [value for value in values if value is not None]
    low, high = (amount(end(known, default=None)) for end in (min, max))
    return low if low == high else f"{low} to {high}"


def duration(seconds: float) -> str:
    """Seconds, such as `8 s`, `4 min`, `2 h 05 min`, `3 days` or `1.5 years`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    days = minutes / (24 * 60)
    if days < 2:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{days:.0f} days" if days < 365 else f"{days / 365.25:.1f} years"


def words(text: str) -> list[str]:
    """The words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def counted(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
