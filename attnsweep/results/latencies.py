"""Which row of `latency` belongs to a trial: that of its architecture and precision, under one runtime, on
one device, rows of several never mixed; and what a row's times are in ms.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attnsweep.core.deployment import Deployments
from attnsweep.results.schema import LATENCY, LATENCY_OF_TRIAL

Row = Mapping[str, Any]
NAMES = tuple(column.name for column in LATENCY_OF_TRIAL)
TIMES = ("reference_ms", *(column.name for column in LATENCY if column.name.startswith("latency_ms_")))
RATES = ("throughput_per_s",)
LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Unstable(float):
    """Milliseconds that did not settle: they lie somewhere from `low` to `high`."""

    low: float
    high: float

    def __new__(cls, ms: float, low: float, high: float) -> "Unstable":
        made = super().__new__(cls, ms)
        made.low, made.high = low, high
        return made


def of_trials(
    trials: Iterable[Row],
    measured: Iterable[Row],
    *,
    runtime: str | None = None,
    measured_on: str | None = None,
    versions: str | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each trial that has one: its id, and the columns of latency that its row gets, those of the
    smallest batch, with the throughput of the largest.

    Without `runtime` a trial keeps the one that its row names, if it was measured under that on the device,
    else it gets eager's. Without `measured_on` it keeps the device that its row names, if it was measured
    there under that runtime, else it gets the one that was measured last; in the same way where it was not
    measured with these `versions`.
    """
    known: defaultdict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in measured:
        if row["latency_ms_p50"] is not None:
            known[row["arch_id"], row["precision"], row["runtime"]].append(row)
    for trial in trials:
        for name in (runtime,) if runtime else (trial["runtime"], "eager"):
            rows = known[trial["arch_id"], trial["precision"], name]
            rows = on_one_device(rows, measured_on, trial["measured_on"], versions)
            if rows:
                yield trial["trial_id"], columns(rows)
                break


def of_architectures(
    measured: Iterable[Row],
    asked: Deployments,
    *,
    measured_on: str | None = None,
    versions: str | None = None,
) -> dict[tuple[str, str], float]:
    """Latency in ms by (arch_id, precision) as `asked.first` says, of one device and versions: those named,
    else those that were measured last. NaN where it could not be measured.
    """
    (runtime,), (batch,), (threads,) = asked.first.runtime, asked.first.batch, asked.first.threads
    rows = [
        row
        for row in measured
        if (row["runtime"], row["batch"], row["threads"]) == (runtime, batch, threads)
        and measured_on in (None, row["measured_on"])
        and versions in (None, row["versions"])
    ]
    if not rows:
        return {}
    last = max(rows, key=when)
    return {
        (row["arch_id"], row["precision"]): ms_of(row)
        for row in rows
        if (row["measured_on"], row["versions"]) == (last["measured_on"], last["versions"])
    }


def ms_of(row: Row) -> float:
    """The latency of a row of `latency`, NaN where it could not be measured."""
    ms: float | None = row["latency_ms_p50"]
    if ms is None:
        return math.nan
    low, high = row.get("latency_ms_low"), row.get("latency_ms_high")
    return Unstable(ms, low, high) if row.get("unstable") and low is not None and high is not None else ms


def in_ms(row: Row, own_ms: float) -> dict[str, Any]:
    """A row of `latency` whose times are in units of its reference, which takes `own_ms`."""
    known = {name: value for name, value in row.items() if value is not None}
    times = {name: known[name] * own_ms for name in TIMES if name in known}
    rates = {name: known[name] / own_ms for name in RATES if name in known}
    return {**row, **times, **rates}


def goes_by(row: Row, reference: Row) -> bool:
    """Whether the times of a row of `latency` go by that row of `references`."""
    is_there = all(row[name] == reference[name] for name in ("reference", "measured_on"))
    return is_there and row["versions"].split(", ")[0] == reference["versions"]  # torch's


def drift_of(rows: Iterable[Row]) -> float:
    """What references took beside models over what they took when they were measured by themselves, the
    median over rows of `latency`; 1 where nothing is known.
    """
    raw = [row for row in rows if row.get("raw_ms_p50") and row["latency_rel"]]
    beside = [row["raw_ms_p50"] / row["latency_rel"] / row["reference_ms"] for row in raw]
    return statistics.median(beside) if beside else 1.0


def on_one_device(
    rows: Sequence[Row], wanted: str | None, before: str | None, versions: str | None
) -> list[Row]:
    """The rows of the wanted device; without one those of the device before, or of the last that was used.
    Of several versions of its packages those that are named, else those that were measured last.
    """
    devices = {row["measured_on"] for row in rows}
    chosen = wanted or (before if before in devices else None)
    if chosen is None and rows:
        chosen = max(rows, key=when)["measured_on"]
    here = [row for row in rows if row["measured_on"] == chosen]
    if here and not any(row["versions"] == versions for row in here):
        versions = max(here, key=when)["versions"]
    return [row for row in here if row["versions"] == versions]


def when(row: Row) -> datetime:
    """When it was measured."""
    measured: datetime | None = row["measured_at"]
    return measured or LONG_AGO


def columns(rows: Sequence[Row]) -> dict[str, Any]:
    """The columns of a trial, from its architecture's rows for several batches."""
    single, many = min(rows, key=batch), max(rows, key=batch)
    values = {
        **single,
        "latency_batch": single["batch"],
        "latency_unstable": single["unstable"],
        "throughput_per_s": many["throughput_per_s"] if many is not single else None,
    }
    return {name: values[name] for name in NAMES}


def batch(row: Row) -> int:
    """The examples of a forward pass."""
    number: int = row["batch"]
    return number
