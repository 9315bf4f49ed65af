"""All that results say, as plain values for a page: settings with their doubt and costs, curves, trials,
failures, provenance. Needs neither torch nor Ray.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from attnsweep.answers import chances, doubt, effects, naming, pareto, phrases, selection
from attnsweep.answers.chances import Ends
from attnsweep.answers.doubt import Doubt
from attnsweep.core.clean import clean, cleaned
from attnsweep.core.errors import UserError
from attnsweep.core.labels import shown
from attnsweep.core.text import counted
from attnsweep.results.schema import MEASURES

DIGITS = 9  # of a number on the page: fronts of rounded numbers are those of the numbers themselves
MOST_PAIRS = 400  # settings, up to which the page knows which are within noise of which
MOST_FOR_EFFECTS = 2000  # trials; of more a sample is looked at
PERCENTILES = ("p50", "p90", "p99")
UNITS = {"params": "parameters", "macs": "multiply-accumulates", "peak_mem_mb": "MB", "train_s": "s"}
OWN_COSTS = {  # of a trial's row; the rest comes from the table of latencies
    "latency_ms_p50": "latency (ms)", "params": "parameters", "macs": "multiply-accumulates",
    "peak_mem_mb": "memory of training (MB)", "train_s": "training time (s)",
}  # fmt: skip
PROVENANCE = (
    "attnsweep", "numerics", "schema_version", "data_sha256", "torch", "cuda", "ray", "python", "device",
    "cpu", "host", "git_sha", "git_dirty", "code_hash", "measured_on",
)  # fmt: skip
VALIDATED = {name.replace("test_", "val_", 1) for name in pareto.JUDGED_BY}
REASONS = {"stopped": "a scheduler gave its time to others"}
Page = dict[str, Any]


def overview(trials: pd.DataFrame, epochs: pd.DataFrame, latency: pd.DataFrame) -> Page:
    """What a page shows of the tables `trials` (of any status), `epochs` and `latency`: `datasets`, one entry
    for each, `trials`, `failures`, `provenance`, `counts` by status, and `remarks` on what was left out.
    """
    trials = selection.plain(trials)
    remarks: list[str] = []
    parts = [
        of_dataset(str(name), rows, epochs, latency, remarks)
        for name, rows in trials.groupby("dataset", sort=False, dropna=False)
    ]
    shown = cleaned(trials.drop(columns=[name for name in ("test_right",) if name in trials]))
    return {
        "datasets": [part for part in parts if part is not None],
        "trials": of_trials(shown),
        "failures": failures(shown),
        "provenance": provenance(shown),
        "counts": {str(name): int(count) for name, count in trials["status"].value_counts().items()},
        "remarks": remarks,
    }


def of_dataset(
    dataset: str, rows: pd.DataFrame, epochs: pd.DataFrame, latency: pd.DataFrame, remarks: list[str]
) -> Page | None:
    """One data set's settings; None, with a remark, where there is nothing to compare."""
    rows, left_out = selection.comparable(rows)
    remarks += left_out
    try:
        sure = doubt.doubt(rows)
    except UserError as error:
        remarks.append(f"{clean(dataset)} is left out: {clean(error)}")
        return None
    settings, done = sure.settings, selection.done(rows).dropna(subset=[sure.quality])
    position, count = doubt.setting_of(done), len(settings)
    noise = [chances.within_noise_of(sure, i) for i in range(count)] if count <= MOST_PAIRS else None
    selecting = pareto.selecting(settings)
    axes = naming.varying(settings.assign(dataset=dataset)) if len(settings) > 1 else []
    return {
        "dataset": clean(dataset),
        "quality": {"name": sure.quality, "fraction": doubt.is_fraction(sure.quality), "selects": selecting},
        "settings": {
            "label": [clean(one) for one in naming.labels(settings, short=False)],
            "model": [clean(one) for one in settings["model"]],
            "val": numbers(settings[selecting]),
            "test": numbers(settings[sure.quality]),
            "low": numbers(settings["low"]),
            "high": numbers(settings["high"]),
            "seeds": settings["seeds"].tolist(),
            "begun": settings["seeds_begun"].tolist(),
            "doubt_of": settings["doubt_of"].tolist(),
            "trials": trials_of(done, position, count),
            "noise": noise,
        },
        "of_trials": sure.of_trials,
        "axes": {name: values_of(settings[name]) for name in ("model", *axes)},
        "common": common(settings, axes),
        "costs": costs_of(sure, latency, remarks),
        "curves": curves(done, position, epochs, selecting, count),
        "importance": importance(rows),
        "remarks": phrases.remarks(sure),
    }


def importance(rows: pd.DataFrame) -> Page | None:
    """What each axis does, the largest effect first, with its interval; None where that cannot be said. A
    forest is not held against chance here: that takes 40 times as long, and the page may be live.
    """
    done = selection.done(rows)
    some = done.sample(MOST_FOR_EFFECTS, random_state=0) if len(done) > MOST_FOR_EFFECTS else done
    try:
        result = effects.effects(some, nulls=0)
    except UserError:
        return None
    scale = 100 if result.how == effects.GRID and doubt.is_fraction(result.quality) else 1
    of = f"{counted(result.trials, 'trial')}{f' drawn from {len(done):,}' if len(some) < len(done) else ''}"
    head = f"{result.quality} of {of}: {result.meaning}."
    held = "Grey: not told from chance." if result.how == effects.GRID else "Not held against chance here."
    axes = result.axes
    return {
        "names": [one.name for one in axes],
        "real": [one.is_real or math.isnan(one.p) for one in axes],
        **{end: numbers([scale * getattr(one, end) for one in axes]) for end in ("size", "low", "high")},
        "unit": effects.SIZES[result.how] + (" (points)" if scale == 100 else ""),
        "note": f"{head} Lines: 95 % intervals. {held} python -m attnsweep effects says more.",
    }


def numbers(values: "pd.Series[Any] | np.ndarray | list[float]") -> list[float | None]:
    """Values as JSON has them: null for what is no finite number."""
    return [
        float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None
        for value in np.asarray(values, dtype=float).tolist()
    ]


def values_of(values: "pd.Series[Any]") -> list[Any]:
    """The values of an axis as they are shown: numbers, or text; null where a model has no such axis."""
    return [None if pd.isna(one) else one if is_finite(one) else clean(one) for one in values.tolist()]


def is_finite(value: Any) -> bool:
    """Whether JSON has a number for it."""
    return isinstance(value, int | float) and math.isfinite(value)


def common(settings: pd.DataFrame, axes: Sequence[str]) -> dict[str, str]:
    """The axes that are the same for all settings that have them."""
    rest = [name for name in selection.SETTING if name in settings and name not in (*axes, "model")]
    return {
        name: shown(settings[name].dropna().iloc[0])
        for name in rest
        if settings[name].notna().any() and settings[name].dropna().nunique() == 1
    }


def trials_of(done: pd.DataFrame, position: np.ndarray, count: int) -> list[list[str]]:
    """The ids of each setting's trials."""
    found: list[list[str]] = [[] for _ in range(count)]
    for i, trial_id in zip(position, done["trial_id"], strict=True):
        found[i].append(clean(trial_id))
    return found


def costs_of(sure: Doubt, latency: pd.DataFrame, remarks: list[str]) -> list[Page]:
    """Every cost that is known of the settings: its values, and for each setting the probability that it is
    on the front. What cannot be compared is left out, with a remark.
    """
    settings, found = sure.settings, []
    for name, label in OWN_COSTS.items():
        if name in settings and settings[name].notna().any():
            try:
                found.append(cost(sure, name, label, where=where_of(settings, name)))
            except UserError as error:
                remarks.append(f"{name} is left out: {clean(error)}")
    for name, label, values, ends in of_runtimes(settings, latency):
        beside = doubt.Doubt(settings.assign(**{name: values}), sure.quality, sure.draws)
        found.append(cost(beside, name, label, where="", ends=ends))
    return found


def cost(sure: Doubt, name: str, label: str, *, where: str, ends: Ends | None = None) -> Page:
    """One cost, with its intervals where it has some. Raises UserError where its values do not compare."""
    values, ends = sure.settings[name], ends or chances.ends_of(sure.settings, name)
    if name in MEASURES:
        selection.refuse_mixtures(sure.settings[values.notna()], name)
    return {
        "name": name,
        "label": label,
        "unit": UNITS.get(name, "ms"),
        "where": clean(where),
        "values": numbers(values),
        "low": None if ends is None else numbers(ends[0]),
        "high": None if ends is None else numbers(ends[1]),
        "p_front": numbers(chances.on_front(sure, name, ends)),
    }


def where_of(settings: pd.DataFrame, name: str) -> str:
    """Under what a latency was measured, in words; nothing for other costs."""
    if not name.startswith("latency") or "measured_on" not in settings:
        return ""
    known = settings.dropna(subset=["measured_on"]).head(1)
    if known.empty:
        return ""
    row = known.iloc[0]
    batch = "" if pd.isna(row.get("latency_batch")) else f", batch {row['latency_batch']:.0f}"
    return f"{row.get('runtime') or 'eager'}{batch}, {row['measured_on']}"


def of_runtimes(
    settings: pd.DataFrame, latency: pd.DataFrame
) -> list[tuple[str, str, np.ndarray, Ends | None]]:
    """Each latency by runtime, device, batch and percentile: name, label, values; of p50 intervals."""
    if latency.empty or "arch_id" not in settings:
        return []
    known = latency[latency["latency_ms_p50"] > 0].sort_values("measured_at")
    columns = []
    for (runtime, device, batch), rows in known.groupby(["runtime", "measured_on", "batch"], sort=False):
        last = rows.drop_duplicates(["arch_id", "precision"], keep="last").set_index(["arch_id", "precision"])
        keys = list(zip(settings["arch_id"], settings["precision"], strict=True))
        here = last.reindex(keys)
        low, high = (selection.numbers(here, name) for name in chances.LATENCY_ENDS)
        for percentile in PERCENTILES:
            values = selection.numbers(here, f"latency_ms_{percentile}")
            if np.isfinite(values).any():
                name, under = f"latency {percentile}", f"{runtime}, batch {batch:.0f}, {device}"
                ends = (low, high) if percentile == "p50" else None
                columns.append((f"{name} {under}", clean(f"{name} (ms), {under}"), values, ends))
    return columns


def curves(
    done: pd.DataFrame, position: np.ndarray, epochs: pd.DataFrame, quality: str, count: int
) -> list[Page | None]:
    """Each setting's curve: mean, lowest and highest validation quality of its seeds by epoch; or None."""
    found: list[Page | None] = [None] * count
    if epochs.empty or quality not in epochs:
        return found
    setting = dict(zip(done["trial_id"], position.tolist(), strict=True))
    there = epochs[np.isfinite(selection.numbers(epochs, quality))]
    known = there.assign(setting=there["trial_id"].map(setting)).dropna(subset=["setting"])
    by = known.groupby(["setting", "epoch"])[quality].agg(["mean", "min", "max"]).reset_index()
    for i, rows in by.groupby("setting"):
        found[int(i)] = {"epoch": rows["epoch"].astype(int).tolist()} | {
            name: [round(float(value), 5) for value in rows[name]] for name in ("mean", "min", "max")
        }
    return found


def of_trials(trials: pd.DataFrame) -> Page:
    """The trials as columns: those that a reader sorts and filters by."""
    qualities = [name for name in trials if name in pareto.JUDGED_BY or name in VALIDATED]
    rest = ("best_epoch", "latency_ms_p50", "params", "macs", "train_s", "attempts", "finished_at")
    names = [name for name in (*qualities, *rest) if name in trials and trials[name].notna().any()]
    labels = naming.labels(trials, short=False).tolist() if len(trials) else []
    page: Page = {"trial_id": trials["trial_id"].tolist(), "trial": labels}
    page |= {name: values_of(trials[name]) for name in ("dataset", "seed", "status")}
    for name in names:
        page[name] = (
            [None if pd.isna(value) else f"{value:%Y-%m-%d %H:%M}" for value in trials[name]]  # in UTC
            if name.endswith("_at")
            else numbers(trials[name])
        )
    return page


def failures(trials: pd.DataFrame) -> list[Page]:
    """The trials that did not come to an end, each with its reason, equal reasons together."""
    lost = trials[trials["status"] != "done"]
    found = []
    for (status, error), rows in lost.fillna({"error": ""}).groupby(["status", "error"], sort=False):
        ids = rows["trial_id"].tolist()
        reason = str(error) or REASONS.get(str(status), "no reason is known")
        found.append({"status": str(status), "error": reason, "trials": ids})
    return found


def provenance(trials: pd.DataFrame) -> list[list[str]]:
    """For each column of provenance its values, with how many trials have them where there are several."""
    found = []
    for name in PROVENANCE:
        counts = trials[name].value_counts() if name in trials else pd.Series(dtype=int)
        if len(counts) == 1:
            found.append([name, shown(counts.index[0])])
        elif len(counts):
            found.append([name, "; ".join(f"{shown(value)} ({n})" for value, n in counts.items())])
    return found
