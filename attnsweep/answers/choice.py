"""Which setting to use under a budget, in a sentence: its quality and uncertainty, what is as good for less,
and what a better one would cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnsweep.answers import chances, doubt, naming, pareto, phrases, selection
from attnsweep.answers.doubt import Doubt
from attnsweep.core.text import amount, counted

CHEAPER = 1.25  # times cheaper: from there on it is worth mentioning
HALF_POINT = 0.005
JUDGED = ("low", "high", "doubt_of", "seeds_begun", "p_front", "position")
NOUNS = {"params": "parameters", "macs": "multiply-accumulates", "peak_mem_mb": "memory"}


@dataclass(frozen=True)
class Choice:
    """The answer of `pick`: the settings within the budget, best first, with the interval of their quality on
    test (`low`, `high`) and the probability of being on the front (`p_front`, of the trials that ran where no
    setting has several seeds); a sentence on the best; remarks.
    """

    settings: pd.DataFrame
    sentence: str
    remarks: tuple[str, ...]


def choose(frame: pd.DataFrame, budget: Mapping[str, float], dataset: str | None = None) -> Choice:
    """The choice among the trials in `frame`, of any status, under a budget such as `{"params": 1e6}`.

    Raises UserError as `pareto.pick` does.
    """
    fits = pareto.pick(frame, **budget, dataset=dataset)
    rows = frame if dataset is None else selection.choose(frame, "dataset", dataset)
    rows = rows[~rows["model"].isin(pareto.PRIVILEGED)]
    cost = cost_of(budget, fits)
    quality = pareto.judged_by(selection.done(rows))
    if quality not in fits or fits[quality].isna().all():
        return Choice(fits, name_of(fits, 0), unmeasured(rows, budget))
    sure = doubt.doubt(rows, quality)
    p_front = chances.on_front(sure, cost) if cost in sure.settings else np.nan
    keys = selection.setting_columns(fits)  # not the trial: seeds without a quality on test are not judged
    known = sure.settings.assign(p_front=p_front, position=sure.settings.index)[[*keys, *JUDGED]]
    judged = fits.merge(known, on=keys, how="left")
    settings, remarks = judged.drop(columns="position"), unmeasured(rows, budget)
    if pd.isna(judged["position"].iloc[0]):  # it has no quality on test
        return Choice(settings, name_of(fits, 0), remarks)
    inside = judged["position"].dropna().astype(int).tolist()
    return Choice(settings, sentence(sure, inside, cost), (*phrases.remarks(sure), *remarks))


def cost_of(budget: Mapping[str, float], fits: pd.DataFrame) -> str:
    """The cost to mention: the first one with a limit, else latency where it is known, else parameters."""
    if limited := [pareto.BUDGETS[name] for name in budget]:
        return limited[0]
    return "latency_ms_p50" if fits["latency_ms_p50"].notna().all() else "params"


def sentence(sure: Doubt, fits: Sequence[int], cost: str) -> str:
    """The best setting with its uncertainty and cost, the cheapest within noise of it, and the cost of half a
    point more; `fits` are the positions of those within the budget, best first.
    """
    settings, best = sure.settings, fits[0]
    names, row = naming.labels(settings, short=False), sure.settings.loc[best]
    parts = [f"{names[best]}: {phrases.written(row, sure.quality)}{at(row, cost)}"]
    inside = {*fits} & {*chances.within_noise_of(sure, best)}
    if row[cost] > 0 and (cheap := cheapest(settings, inside, cost, than=row[cost] / CHEAPER)):
        parts.append(f"{names[cheap[0]]} is within noise of it and {gain(settings, cheap[0], best, cost)}")
    parts += more(sure, best, names, cost)
    return "; ".join(parts)


def cheapest(settings: pd.DataFrame, among: set[int], cost: str, *, than: float) -> list[int]:
    """The cheapest setting that costs at most `than`; none if there is none."""
    costs = settings.loc[sorted(among), cost].dropna()
    costs = costs[costs <= than]
    return [] if costs.empty else [int(costs.idxmin())]


def gain(settings: pd.DataFrame, cheap: int, best: int, cost: str) -> str:
    """How much cheaper one setting is than another: `4 times as fast`."""
    if not settings.loc[cheap, cost]:
        return f"takes no {NOUNS.get(cost, 'time')}"
    times = settings.loc[best, cost] / settings.loc[cheap, cost]
    many = f"{times:.2g}" if times < 10 else f"{times:.0f}"
    if cost == "latency_ms_p50":
        return f"{many} times as fast"
    return f"takes 1/{many} of the {NOUNS[cost]}"


def more(sure: Doubt, best: int, names: pd.Series, cost: str) -> list[str]:
    """The cost of half a point more on validation, or that no setting has it; none where that is unknown."""
    selecting = pareto.selecting(sure.settings)
    if not doubt.is_fraction(selecting) or pd.isna(sure.settings.loc[best, cost]):
        return []
    better = sure.settings[sure.settings[selecting] >= sure.settings.loc[best, selecting] + HALF_POINT]
    dearer = better[better[cost] > sure.settings.loc[best, cost]]
    if dearer.empty:
        return ["nothing here is half a point better"] if better.empty else []
    cheap = dearer[cost].idxmin()
    extra = cost_in_words(dearer.loc[cheap, cost] - sure.settings.loc[best, cost], cost)
    return [f"the next half point costs {extra} more ({names[cheap]})"]


def at(row: pd.Series, cost: str) -> str:
    """` at 0.69 ms`, with `unstable` if it is; empty where the cost is unknown."""
    if pd.isna(row.get(cost)):
        return ""
    unsure = ", unstable" if cost.startswith("latency") and selection.is_unstable(row) else ""
    return f" at {cost_in_words(row[cost], cost)}{unsure}"


def cost_in_words(value: float, cost: str) -> str:
    """A cost with its unit, as people write it."""
    if cost == "latency_ms_p50":
        return f"{value:.2g} ms" if value < 1 else f"{value:.3g} ms"
    return f"{value:.0f} MB" if cost == "peak_mem_mb" else f"{amount(value)} {NOUNS[cost]}"


def name_of(fits: pd.DataFrame, row: int) -> str:
    """The name of a setting among others."""
    return str(naming.labels(fits, short=False).iloc[row])


def unmeasured(rows: pd.DataFrame, budget: Mapping[str, float]) -> tuple[str, ...]:
    """Remarks on settings that were left out because their cost is not known."""
    settings = pareto.over_seeds(rows)
    columns = [pareto.BUDGETS[name] for name in budget]
    unknown = {name: settings[settings[name].isna()] for name in columns}
    return tuple(
        f"{counted(len(lacking), 'setting')} left out, for want of {name}"
        + (f"; {pareto.MEASURE}" if name == "latency_ms_p50" and pareto.has_latency(lacking) else "")
        for name, lacking in unknown.items()
        if len(lacking)
    )
