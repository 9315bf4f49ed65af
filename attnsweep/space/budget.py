"""Limits on what a trial may cost. None depends on weights, so trials that exceed them are never trained."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.core.text import amount, limit
from attnsweep.core.trial import Trial
from attnsweep.results.latencies import Unstable

# in ms; NaN where it cannot be measured, None where it is not known
LatencyOf = Callable[[Trial], float | None]
MANY = 10  # times a limit: from there on the excess is not stated in per cent


def unknown(trial: Trial) -> None:
    """A `LatencyOf` that knows no latency."""


@dataclass(frozen=True)
class Excess:
    """By how much a trial exceeds a limit of its budget."""

    key: str
    cost: float
    limit: float

    @property
    def share(self) -> float:
        """The excess relative to the limit; 0 or less is within it."""
        return self.cost / self.limit - 1

    @property
    def is_in_doubt(self) -> bool:
        """Whether the measurement is unstable and may be within the limit."""
        return isinstance(self.cost, Unstable) and self.cost.low <= self.limit

    def __str__(self) -> str:
        cost, limit = (written(self.key, value) for value in (self.cost, self.limit))
        if self.share >= MANY:
            return f"{self.key} {cost} is {self.share + 1:,.0f} times the limit of {limit}"
        text = f"{self.key} {cost} exceeds {limit} by {percent(self.share)}"
        if isinstance(self.cost, Unstable) and self.is_in_doubt:
            low, high = (written(self.key, value) for value in (self.cost.low, self.cost.high))
            text += f", unstable: between {low} and {high}"
        return text


@dataclass(frozen=True)
class Budget:
    """The limits of latency in ms, parameters and multiply-accumulates; None for no limit."""

    latency_ms: float | None = None
    params: float | None = None
    macs: float | None = None

    @classmethod
    def of(cls, asked: Any) -> "Budget":
        """From a sweep's argument, such as `{"latency_ms": 2, "params": "2M"}`. Raises UserError for an
        unknown key, or a value that is no number above 0.
        """
        if asked is None or isinstance(asked, Budget):
            return asked or cls()
        if not isinstance(asked, Mapping):
            raise UserError(
                f"budget={asked!r} is not a dict; write budget={{'latency_ms': 2, 'params': '2M'}}"
            )
        names = [field.name for field in fields(cls)]
        for key in asked:
            if key not in names:
                hint = did_you_mean(key, names) or f"; use some of {', '.join(names)}"
                raise UserError(f"budget: {key!r} is unknown{hint}")
        return cls(**{key: limit(key, value) for key, value in asked.items() if value is not None})

    @cached_property
    def limits(self) -> dict[str, float]:
        """The limits that are set."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: limit for key, limit in every.items() if limit is not None}

    def margins(self, trial: Trial, latency_of: LatencyOf) -> list[Excess]:
        """Each known cost of the trial against its limit. `latency_of`, which may have to measure, is not
        called if another cost exceeds its limit.
        """
        limits, costs = self.limits, {"params": trial.params, "macs": trial.macs}
        known = [(key, cost) for key, cost in costs.items() if key in limits and cost is not None]
        found = [Excess(key, cost, limits[key]) for key, cost in known]
        if "latency_ms" in limits and not worst(found):
            ms = latency_of(trial)
            if ms is not None and not math.isnan(ms):
                found.append(Excess("latency_ms", ms, limits["latency_ms"]))
        return found

    def excess(self, trial: Trial, latency_of: LatencyOf) -> Excess | None:
        """The largest excess of the trial over the budget; None if its known costs are within it."""
        return worst(self.margins(trial, latency_of))


def worst(margins: Iterable[Excess]) -> Excess | None:
    """The largest excess; None if there is none."""
    over = [one for one in margins if one.share > 0]
    return max(over, key=lambda one: one.share, default=None)


def written(key: str, value: float) -> str:
    """A cost as people write it."""
    return f"{value:.3g}" if key == "latency_ms" else amount(value)


def percent(share: float) -> str:
    """A share as `0.4 %` or `12 %`."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
