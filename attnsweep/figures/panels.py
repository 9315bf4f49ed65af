"""What the figure of fronts shows: panels of settings, each with its cost, its quality and its doubt."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from attnsweep.answers import chances, doubt, naming, pareto, phrases, selection
from attnsweep.answers.doubt import Doubt


@dataclass(frozen=True)
class Point:
    """One setting: its cost, the mean test quality of its seeds and the ends of that one's interval, the
    probability of being on the front; of a latency that is unstable, the ends of its interval.
    """

    label: str
    model: str
    cost: float
    accuracy: float
    low: float
    high: float
    seeds: int
    on_front: bool = field(kw_only=True)
    p_front: float = field(default=math.nan, kw_only=True)
    unsure: tuple[float, float] | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Panel:
    """Quality against one cost on one data set: points, cheapest first, and `hypervolume` from `corner`;
    `left_out` settings lack the cost. `runtime` where panels of several stand side by side.
    """

    dataset: str
    quality: str
    cost: str
    points: tuple[Point, ...]
    corner: pareto.Reference
    hypervolume: float
    remarks: tuple[str, ...] = ()
    left_out: int = 0
    runtime: str | None = None

    @property
    def measured(self) -> tuple[str, str | None]:
        """What the panel's x axis holds: a cost, and under which runtime."""
        return self.cost, self.runtime

    @property
    def front(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.on_front)


@dataclass(frozen=True)
class Summary:
    """What the figure's subtitle says."""

    trials: int
    settings: int
    seeds: tuple[int, int]
    epochs: tuple[int, int]
    measured_on: str | None
    batch: int | None
    runtime: str | None = None


def panels(frame: pd.DataFrame, costs: Sequence[str] = ()) -> list[Panel]:
    """A panel for each cost (by default `costs_of`) and data set, of trials measured on one device."""
    settings = pareto.over_seeds(frame)
    groups = dict(list(frame[frame["dataset"].isin(settings["dataset"])].groupby("dataset")))
    doubts: dict[str, Doubt] = {}
    for name, group in groups.items():
        sure = doubt.doubt(group)
        doubts[str(name)] = replace(sure, settings=sure.settings.assign(label=naming.labels(sure.settings)))
    return [panel(sure, name, cost) for cost in costs or costs_of(settings) for name, sure in doubts.items()]


def panels_by_runtime(frames: Mapping[str, pd.DataFrame]) -> list[Panel]:
    """For each runtime, with the rows that were measured under it, the panels of latency."""
    return [
        replace(one, runtime=runtime)
        for runtime, frame in frames.items()
        for one in panels(frame, ["latency_ms_p50"])
    ]


def costs_of(settings: pd.DataFrame) -> tuple[str, str]:
    """Latency and parameters, or, where no latency was measured, parameters and multiply-accumulates."""
    return ("latency_ms_p50", "params") if settings["latency_ms_p50"].notna().any() else ("params", "macs")


def panel(sure: Doubt, dataset: str, cost: str) -> Panel:
    """The panel of one data set's settings, which have a `label`, those without the cost left out."""
    settings, quality, remarks = sure.settings, sure.quality, tuple(phrases.remarks(sure))
    settings = settings.assign(p_front=chances.on_front(sure, cost))
    known = settings.dropna(subset=[cost]).sort_values([cost, quality])
    known = known[known[cost] > 0]  # a rule without parameters has no place on a log axis
    if known.empty:
        return Panel(dataset, quality, cost, (), pareto.Reference(math.nan), 0.0, remarks, len(settings))
    best, corner = pareto.front(known, cost), pareto.reference(known, cost)
    columns = ["label", "model", cost, quality, "low", "high", "seeds"]
    points = tuple(
        Point(*row[columns], on_front=i in best.index, p_front=row["p_front"], unsure=unsure(row, cost))
        for i, row in known.iterrows()
    )
    area = pareto.hypervolume(best, corner, cost=cost, quality=quality)
    return Panel(dataset, quality, cost, points, corner, area, remarks, len(settings) - len(known))


def unsure(row: pd.Series, cost: str) -> tuple[float, float] | None:
    """The interval of a latency that is unstable; None for one that is not, and for other costs."""
    if not cost.startswith("latency") or not selection.is_unstable(row):
        return None
    low, high = float(row["latency_ms_low"]), float(row["latency_ms_high"])
    return (low, high) if math.isfinite(high) else (row[cost], row[cost])


def summary(frame: pd.DataFrame) -> Summary:
    """What the rows have in common, and how many there are."""
    frame = selection.done(frame)
    settings = pareto.over_seeds(frame)
    epochs = frame["epochs"].fillna(0)
    devices, batches = settings["measured_on"].dropna(), settings["latency_batch"].dropna()
    return Summary(
        trials=len(frame),
        settings=len(settings),
        seeds=(int(settings["seeds"].min()), int(settings["seeds"].max())),
        epochs=(int(epochs.min()), int(epochs.max())),
        measured_on=None if devices.empty else str(devices.iloc[0]),
        batch=None if batches.empty else int(batches.iloc[0]),
        runtime=next(iter(settings["runtime"].dropna()), None) if "runtime" in settings else None,
    )
