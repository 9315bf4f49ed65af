"""Accuracy against cost: means over seeds, the Pareto front, its hypervolume, the best settings within a
budget.

Pure functions from rows of the trials table to rows or numbers. They refuse rows that cannot be compared: of
several data sets, or with costs that were measured on several devices.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnsweep.answers import selection
from attnsweep.answers.naming import labels, varying, words
from attnsweep.core.clean import clean
from attnsweep.core.errors import UserError
from attnsweep.core.labels import shown
from attnsweep.core.text import limit
from attnsweep.results.schema import MEASURES
from attnsweep.tasks.registry import TASKS

BUDGETS = {  # what a budget is called, and the column that it bounds
    "latency_ms": "latency_ms_p50", "params": "params", "macs": "macs", "memory_mb": "peak_mem_mb",
}  # fmt: skip
MEASURE = "measure: python -m attnsweep measure RESULTS"
TIES = ("latency_ms_p50", "params")  # what decides between equal qualities
JUDGED_BY = {f"test_{task.quality}": task.quality_name for task in TASKS.values()}
PRIVILEGED = {model for task in TASKS.values() for model in task.privileged}


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per setting: the done rows that differ in the seed alone, on the same data and code.

    - Each quality is the mean over seeds, with `_min`, `_max` and `_sd` (sample standard deviation, null for
      one seed) beside it. The range assumes nothing: a 95 % t interval of three seeds would reach 2.5
      standard deviations to each side, at times past 100 %.
    - Measured costs are medians; those of the architecture (`params`, `macs`, ...) are the same for all
      seeds. Costs of training are null where the seeds trained on different devices.
    - `seeds` counts the seeds.

    Raises UserError where a column is missing, or where a setting's latency was measured on several devices.
    """
    frame = selection.done(frame)
    selection.require(frame, "seed")
    keys = selection.setting_columns(frame)
    here = [column for name, column in MEASURES.items() if name in frame]
    floats = [column.name for column in here if column.over_seeds in ("mean", "median")]
    groups = frame.astype(dict.fromkeys(floats, float)).groupby(keys, dropna=False, sort=False)
    refuse_twice(frame, keys)
    for name in ("measured_on", "runtime"):
        if name in frame and (groups[name].nunique() > 1).any():
            selection.refuse_mixture(frame.dropna(subset=[name]), name)
    wanted, parts = aggregations(frame), []
    for way in dict.fromkeys(way for _, way in wanted.values()):  # by column it takes seconds
        names = {source: name for name, (source, its) in wanted.items() if its == way}
        parts.append(groups[list(names)].agg(way).rename(columns=names))
    of_groups = pd.concat(parts, axis=1)[list(wanted)]
    if "device" in frame:
        of_device_alone = [name for name in wanted if name in MEASURES and "device" in MEASURES[name].same]
        of_groups.loc[(groups["device"].nunique() > 1).to_numpy(), of_device_alone] = np.nan
    parts = [of_groups.index.to_frame(index=False), of_groups.reset_index(drop=True)]
    return pd.concat(parts, axis=1).copy()  # in one piece


def refuse_twice(frame: pd.DataFrame, keys: list[str]) -> None:
    """Raises UserError where a setting has several rows of one seed, which would count twice."""
    twice = frame[frame.duplicated([*keys, "seed"])]
    if twice.empty:
        return
    row = twice.iloc[0]
    seed = "no seed" if pd.isna(row["seed"]) else f"seed {shown(row['seed'])}"
    axes = varying(frame) if "model" in frame else []
    name = " ".join([str(row.get("model", "a setting")), *words(row, axes)])
    raise UserError(
        f"{clean(name)} has several rows of {seed}; a setting has one row for each seed: "
        "were results put together that hold the same trials?"
    )


def aggregations(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """For each column of `over_seeds`, its source column and how that is aggregated."""
    wanted: dict[str, tuple[str, str]] = {"seeds": ("seed", "nunique")}
    for name, column in MEASURES.items():
        if name not in frame or column.over_seeds is None:
            continue
        if column.over_seeds == "mean" and frame[name].notna().any():
            ways = (("", "mean"), ("_min", "min"), ("_max", "max"), ("_sd", "std"))
            wanted |= {f"{name}{suffix}": (name, way) for suffix, way in ways}
        elif column.over_seeds != "mean":
            wanted[name] = (name, column.over_seeds)
    return wanted


def judged_by(frame: pd.DataFrame, part: str = "test") -> str:
    """The column of quality of a task's rows on `val` or `test`, such as `test_acc`."""
    known = [f"{part}_{task.quality}" for task in TASKS.values()]
    return next((name for name in known if name in frame and frame[name].notna().any()), known[0])


def selecting(frame: pd.DataFrame) -> str:
    """The column of quality that selects: on validation, or on test where the rows have no validation."""
    name = judged_by(frame, "val")
    return name if name in frame and frame[name].notna().any() else judged_by(frame)


def front(frame: pd.DataFrame, cost: str = "latency_ms_p50", quality: str | None = None) -> pd.DataFrame:
    """The Pareto front, cheapest first: the rows that no other dominates, by less cost and more quality.

    A row dominates another if it is at least as good on both and better on one; rows with equal cost and
    quality all stay. Rows that are not done, or lack cost or quality, are left out. Every seed is a row of
    its own: pass `over_seeds(frame)` to compare means.

    `quality` defaults to the quality on validation, so that the quality on test is unbiased: who selects on
    test reports the luckiest. Rows without validation, such as published ones, are selected on test.

    Raises UserError where a column is missing, where more of the cost or less of the quality is better, or
    where rows of several data sets or devices are mixed.
    """
    frame = selection.done(frame)
    quality = quality or selecting(frame)
    selection.check_direction(cost, quality)
    selection.require(frame, cost, quality)
    points = np.column_stack([selection.numbers(frame, cost), -selection.numbers(frame, quality)])
    known = np.isfinite(points).all(axis=1)
    rows = frame[known]
    selection.refuse_mixtures(rows, cost)
    distinct, rank = np.unique(points[known], axis=0, return_inverse=True)  # by cost, then best quality first
    best_before = np.minimum.accumulate(np.r_[np.inf, distinct[:, 1]])[:-1]
    order = np.argsort(rank, kind="stable")
    return rows.iloc[order[(distinct[:, 1] < best_before)[rank[order]]]]


@dataclass(frozen=True)
class Reference:
    """The reference point of a hypervolume; hypervolumes can be compared if they share it."""

    cost: float
    quality: float = 0.0


def reference(frame: pd.DataFrame, cost: str = "latency_ms_p50") -> Reference:
    """Quality 0, and the first power of ten above the cost of every row, dominated rows included: so results
    of the same magnitude share it, and each row can contribute.

    Raises UserError where no row has the cost, or where one is not positive.
    """
    selection.require(frame, cost)
    worst = selection.positive(selection.numbers(frame, cost), cost).max(initial=0.0)
    if not worst:
        raise UserError(f"no row has {cost}, so there is no reference point; choose another cost")
    return Reference(cost=10.0 ** (math.floor(math.log10(worst)) + 1))


def hypervolume(
    frame: pd.DataFrame, corner: Reference, *, cost: str = "latency_ms_p50", quality: str = "test_acc"
) -> float:
    """The hypervolume of the rows' front: its area up to `corner`, in quality times decades of cost.

    The cost is on a log10 scale: its unit does not matter, and halving it is worth the same everywhere. Rows
    beyond the corner add nothing. Source: the size of the space covered, Zitzler and Thiele, PPSN 1998.
    Raises UserError as `front` does, and where a cost is not positive.
    """
    best = front(frame, cost, quality)
    decades = math.log10(corner.cost) - np.log10(selection.positive(selection.numbers(best, cost), cost))
    qualities = np.maximum(selection.numbers(best, quality), corner.quality)
    return float(np.sum(np.maximum(decades, 0.0) * np.diff(qualities, prepend=corner.quality)))


def pick(
    frame: pd.DataFrame,
    *,
    latency_ms: float | str | None = None,
    params: float | str | None = None,
    macs: float | str | None = None,
    memory_mb: float | str | None = None,
    dataset: str | None = None,
) -> pd.DataFrame:
    """The settings within the budget as rows of `over_seeds`, best first by mean quality on validation; of
    equal ones the cheapest is first. The quality on test is reported and selects nothing.

    - `latency_ms`: at most this latency (`latency_ms_p50`), in ms.
    - `params`, `macs`: at most that many, also as `"1M"`.
    - `memory_mb`: at most this peak memory of training, in MB.
    - `dataset`: needed where the rows are of several.

    Raises UserError where nothing fits, naming the nearest setting and the budget that it needs, or where
    data sets or devices are mixed.
    """
    every = frame if dataset is None else selection.choose(frame, "dataset", dataset)
    if "model" in every:
        every = every[~every["model"].isin(PRIVILEGED)]
    frame = selection.done(every)
    asked = dict(zip(BUDGETS, (latency_ms, params, macs, memory_mb), strict=True))
    budget = {BUDGETS[name]: limit(name, value) for name, value in asked.items() if value is not None}
    quality = judged_by(frame, "val")
    selection.require(frame, quality, *budget)
    for name in budget or [name for name in ("params",) if name in frame]:
        known = frame.dropna(subset=[name])
        hint = "choose one with --dataset (of the function: dataset=)"
        selection.refuse_mixture(known, "dataset", hint=hint)
        selection.refuse_mixtures(known, name)
    if frame[quality].isna().all():
        raise UserError(nothing_to_pick(every, [quality]))
    rows = over_seeds(frame).dropna(subset=[quality, *budget])
    if rows.empty:
        raise UserError(nothing_to_pick(every, [quality, *budget]))
    fits = rows[(rows[list(budget)] <= list(budget.values())).all(axis=1)]
    if fits.empty:
        raise UserError(nothing_fits(rows, budget))
    ties = [name for name in TIES if name in fits]
    ascending = [False, *(True for _ in ties)]
    return fits.sort_values([quality, *ties], ascending=ascending).reset_index(drop=True)


def nothing_to_pick(frame: pd.DataFrame, needed: Sequence[str]) -> str:
    """The error where no done row of these, of any status, has all columns that are needed."""
    done = selection.done(frame)
    lacking = [name for name in needed if done[name].isna().all()] or needed
    if lacking[0] == "latency_ms_p50" and has_latency(done):
        return f"no done trial has a latency; {MEASURE}"
    without = ", or leave it out" if len(done) and set(lacking) <= set(BUDGETS.values()) else ""
    return f"no done trial has {' and '.join(lacking)}; {selection.instead(frame)}{without}"


def has_latency(frame: pd.DataFrame) -> bool:
    """Whether some of the rows are of models whose latency can be measured: rules have no parameters."""
    return "params" not in frame or bool((selection.numbers(frame, "params") > 0).any())


def nothing_fits(rows: pd.DataFrame, budget: Mapping[str, float]) -> str:
    """The error where nothing fits: it names the nearest setting, and the budget that it needs."""
    nearest = (rows[list(budget)] / list(budget.values())).max(axis=1).idxmin()
    asked = " and ".join(f"{name} <= {value:,.12g}" for name, value in budget.items())
    options = {column: option for option, column in BUDGETS.items()}
    beyond = [name for name in budget if rows.loc[nearest, name] > budget[name]]
    needs = " and ".join(f"{options[name]}={rounded_up(rows.loc[nearest, name])}" for name in beyond)
    return f"nothing fits {asked}; the nearest is {labels(rows, short=False)[nearest]}, which needs {needs}"


def rounded_up(value: float) -> str:
    """`value` rounded up to three decimals, or to a whole number from 1,000 on; all of it from 1e15 on."""
    if value >= 1e15:
        return f"{float(value)!r}"
    return f"{math.ceil(value)}" if value >= 1000 else f"{math.ceil(value * 1000) / 1000:g}"
