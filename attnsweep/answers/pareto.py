"""Accuracy against cost: means over seeds, the front, its hypervolume, and the best settings within a budget.

Pure functions from rows of the trials table to rows or numbers. They refuse to compare what cannot be
compared: rows of several data sets, or costs that were measured on several devices.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype

from attnsweep.core.clean import clean
from attnsweep.core.columns import FLOAT
from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.core.labels import fewest, model_name
from attnsweep.core.text import limit
from attnsweep.results import latencies
from attnsweep.results.schema import ARCHITECTURE, CONFIGURATION, MEASURES
from attnsweep.tasks.registry import TASKS

SETTING = tuple(column.name for column in CONFIGURATION if column.name != "seed")
STATE = ("data_sha256", "numerics", "attnsweep")  # of data and code: with another one a setting is another
FRACTIONS = tuple(column.name for column in CONFIGURATION if column.type == FLOAT)
CHECKSUMS = ("model_sha256", "data_sha256")
ARCHITECTURE_NAMES = {column.name for column in ARCHITECTURE}
RECIPE = [name for name in SETTING if name not in ARCHITECTURE_NAMES and name != "dataset"]
BUDGETS = {  # what a budget is called, and the column that it bounds
    "latency_ms": "latency_ms_p50", "params": "params", "macs": "macs", "memory_mb": "peak_mem_mb",
}  # fmt: skip
TIES = ("latency_ms_p50", "params")  # what decides between equal qualities
JUDGED_BY = {f"test_{task.quality}": task.quality_name for task in TASKS.values()}
PRIVILEGED = {model for task in TASKS.values() for model in task.privileged}
# short enough for a plot; the axes that people know best come first
ABBREVIATIONS = {
    "depth": "d{}", "dim": "dim{}", "heads": "h{}", "mlp_dim": "mlp{}", "dim_head": "dh{}",
    "patch_size": "p{}", "image_size": "{}px", "epochs": "ep{}", "batch_size": "b{}",
    "recipe": "{}",
}  # fmt: skip


def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per setting (all but the seed, with the state of data and code), from the rows that are done.

    Each quality is the mean over seeds; beside it stand `_min`, `_max` and `_sd` (sample standard deviation,
    null for one seed). The range states what was seen and assumes nothing; a 95 % t interval of
    three seeds would reach 2.5 standard deviations to each side, at times past 100 %. `seeds` counts the
    seeds. Measured costs are medians; what belongs to the architecture (`params`, `macs`, ...) is equal. What
    depends on the device that trained is null where that was not the same for all seeds.
    Raises UserError where a column is missing, or where a setting's rows were measured on several devices.
    """
    frame = done(frame)
    require(frame, "seed")
    keys = [name for name in (*SETTING, *STATE) if name in frame]
    floats = [
        name for name, column in MEASURES.items() if column.over_seeds in ("mean", "median") and name in frame
    ]
    groups = frame.astype(dict.fromkeys(floats, float)).groupby(keys, dropna=False, sort=False)
    refuse_twice(frame, keys)
    for name in ("measured_on", "runtime"):
        if name in frame and (groups[name].nunique() > 1).any():
            refuse_mixture(frame.dropna(subset=[name]), name)
    wanted, parts = aggregations(frame), []
    for way in dict.fromkeys(way for _, way in wanted.values()):  # by column it takes seconds
        names = {source: name for name, (source, its) in wanted.items() if its == way}
        parts.append(groups[list(names)].agg(way).rename(columns=names))
    of_groups = pd.concat(parts, axis=1)[list(wanted)]
    if "device" in frame:
        of_device_alone = [name for name in wanted if name in MEASURES and "device" in MEASURES[name].same]
        of_groups.loc[(groups["device"].nunique() > 1).to_numpy(), of_device_alone] = np.nan
    return pd.concat([of_groups.index.to_frame(index=False), of_groups.reset_index(drop=True)], axis=1)


def refuse_twice(frame: pd.DataFrame, keys: list[str]) -> None:
    """Raises UserError where a setting has several rows of one seed: one of them would count twice."""
    twice = frame[frame.duplicated([*keys, "seed"])]
    if twice.empty:
        return
    row = twice.iloc[0]
    name = " ".join(
        [str(row.get("model", "a setting")), *words(row, varying(frame) if "model" in frame else [])]
    )
    raise UserError(
        f"{clean(name)} has several rows of seed {shown(row['seed'])}; a setting has one row for each seed: "
        "were results put together that hold the same trials?"
    )


def aggregations(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """For each column of `over_seeds`, the column that it comes from and how several rows become one."""
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
    """The column of quality of one task's rows, on `val` or `test`, such as `test_acc`."""
    known = [f"{part}_{task.quality}" for task in TASKS.values()]
    return next((name for name in known if name in frame and frame[name].notna().any()), known[0])


def selecting(frame: pd.DataFrame) -> str:
    """The column of quality that selects: on validation; on test where the rows have none of that."""
    name = judged_by(frame, "val")
    return name if name in frame and frame[name].notna().any() else judged_by(frame)


def front(frame: pd.DataFrame, cost: str = "latency_ms_p50", quality: str | None = None) -> pd.DataFrame:
    """The rows that no other row beats on both cost (less is better) and quality (more is), cheapest first.

    The quality is that on validation, so that the rows' quality on test says how good they are: who selects
    on test reports the luckiest. Rows without a validation, such as published ones, are selected on test.

    One row beats another if it is at least as good on both and better on one; of rows with the same cost and
    quality neither beats the other, and all stay. Rows that are not done, or lack cost or quality, are left
    out. Every seed is a row of its own here: pass `over_seeds(frame)` to compare means. Raises UserError
    where a column is missing or points the other way, or where rows of several data sets or devices are
    mixed.
    """
    frame = done(frame)
    quality = quality or selecting(frame)
    check_direction(cost, quality)
    require(frame, cost, quality)
    points = np.column_stack([numbers(frame, cost), -numbers(frame, quality)])
    known = np.isfinite(points).all(axis=1)
    rows = frame[known]
    refuse_mixtures(rows, cost)
    distinct, rank = np.unique(points[known], axis=0, return_inverse=True)  # by cost, then best quality first
    best_before = np.minimum.accumulate(np.r_[np.inf, distinct[:, 1]])[:-1]
    order = np.argsort(rank, kind="stable")
    return rows.iloc[order[(distinct[:, 1] < best_before)[rank[order]]]]


@dataclass(frozen=True)
class Reference:
    """The corner that a hypervolume is measured from; two hypervolumes compare only if it is the same."""

    cost: float
    quality: float = 0.0


def reference(frame: pd.DataFrame, cost: str = "latency_ms_p50") -> Reference:
    """Quality 0, and the first power of ten above the cost of every row, dominated ones included.

    A round number, so that result sets of the same magnitude share it; above all rows, so that each can
    contribute. Raises UserError where no row has the cost, or where one is not positive.
    """
    require(frame, cost)
    worst = positive(numbers(frame, cost), cost).max(initial=0.0)
    if not worst:
        raise UserError(f"no row has {cost}, so there is no reference point; choose another cost")
    return Reference(cost=10.0 ** (math.floor(math.log10(worst)) + 1))


def hypervolume(
    frame: pd.DataFrame, corner: Reference, *, cost: str = "latency_ms_p50", quality: str = "test_acc"
) -> float:
    """The area that the rows' front covers from `corner`, in quality times decades of cost.

    The cost counts as log10: its unit does not matter, and halving a cost is worth the same anywhere. What
    lies outside of the corner adds nothing. Source: the size of the space covered, Zitzler and Thiele, PPSN
    1998. Raises UserError as `front` does, and where a cost is not positive.
    """
    best = front(frame, cost, quality)  # of the quality that is measured, whatever selected the rows
    decades = math.log10(corner.cost) - np.log10(positive(numbers(best, cost), cost))
    qualities = np.maximum(numbers(best, quality), corner.quality)
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
    """The settings within the budget, best first: rows as of `over_seeds`, by mean quality on validation.

    The test quality is reported, and selects nothing. `latency_ms` bounds `latency_ms_p50`, `memory_mb` the
    peak memory of training; `"1M"` and the like are numbers, too. Of equal accuracies the cheapest is first.
    Raises UserError where nothing fits, naming the nearest setting and the budget that it needs, or where
    data sets or devices are mixed.
    """
    frame = done(frame) if dataset is None else choose(done(frame), "dataset", dataset)
    if "model" in frame:
        frame = frame[~frame["model"].isin(PRIVILEGED)]
    asked = dict(zip(BUDGETS, (latency_ms, params, macs, memory_mb), strict=True))
    budget = {BUDGETS[name]: limit(name, value) for name, value in asked.items() if value is not None}
    quality = judged_by(frame, "val")
    require(frame, quality, *budget)
    for name in budget or [name for name in ("params",) if name in frame]:
        known = frame.dropna(subset=[name])
        if "dataset" in known:
            refuse_mixture(known, "dataset", hint="choose one with --dataset (of the function: dataset=)")
        refuse_mixtures(known, name)
    if frame[quality].isna().all():
        raise UserError(nothing_to_pick(budget))
    rows = over_seeds(frame).dropna(subset=[quality, *budget])
    if rows.empty:
        raise UserError(nothing_to_pick(budget))
    fits = rows[(rows[list(budget)] <= list(budget.values())).all(axis=1)]
    if fits.empty:
        raise UserError(nothing_fits(rows, budget))
    ties = [name for name in TIES if name in fits]
    ascending = [False, *(True for _ in ties)]
    return fits.sort_values([quality, *ties], ascending=ascending).reset_index(drop=True)


def nothing_to_pick(budget: Mapping[str, float]) -> str:
    """The sentence for rows that lack what the budget is about."""
    if "latency_ms_p50" in budget:
        return "no done row has a latency; measure first: python -m attnsweep measure"
    return (
        "there is no done row to pick from; run a sweep first: python -m attnsweep new quickstart writes one"
    )


def nothing_fits(rows: pd.DataFrame, budget: Mapping[str, float]) -> str:
    """The sentence that names the setting nearest to the budget, and the budget that it would need."""
    nearest = (rows[list(budget)] / list(budget.values())).max(axis=1).idxmin()
    asked = " and ".join(f"{name} <= {value:,.12g}" for name, value in budget.items())
    options = {column: option for option, column in BUDGETS.items()}
    beyond = [name for name in budget if rows.loc[nearest, name] > budget[name]]
    needs = " and ".join(f"{options[name]}={rounded_up(rows.loc[nearest, name])}" for name in beyond)
    return f"nothing fits {asked}; the nearest is {labels(rows, short=False)[nearest]}, which needs {needs}"


def rounded_up(value: float) -> str:
    """The least number of three decimals, or whole from 1,000 on, that is not below `value`."""
    return f"{math.ceil(value)}" if value >= 1000 else f"{math.ceil(value * 1000) / 1000:g}"


def choose(frame: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """The rows with that value. Raises UserError, naming the values there are, where no row has it."""
    frame = plain(frame)
    require(frame, column)
    known = sorted(map(str, frame[column].dropna().unique()))
    if value not in known:
        hint = did_you_mean(value, known)
        raise UserError(f"{column}={value!r} has no rows{hint}; there are {', '.join(known) or 'none'}")
    return frame[frame[column] == value]


def where(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows for which a pandas query holds. Raises UserError where it is malformed or holds for none."""
    try:
        rows = plain(frame).query(condition)
    except Exception as error:  # a user's text: pandas raises nearly anything
        example = "model == 'vit' and depth == 6"
        raise UserError(f"{condition!r} cannot be evaluated ({error}); write it like {example!r}") from error
    if rows.empty:
        raise UserError(f"no row satisfies {condition!r}; there are {len(frame)} rows without it")
    return rows


def of_device(frame: pd.DataFrame, measured_on: str | None = None) -> pd.DataFrame:
    """The rows whose latency was measured on one device under one runtime at one batch, and those without
    latency.

    Raises UserError where there are several devices and none is chosen, several runtimes or batches, or where
    the chosen device has no rows.
    """
    frame = plain(frame)
    require(frame, "measured_on")
    if measured_on is not None:
        choose(frame, "measured_on", measured_on)
        frame = frame[frame["measured_on"].isna() | (frame["measured_on"] == measured_on)]
    measured = frame.dropna(subset=["measured_on"])
    refuse_mixture(measured, "measured_on", hint="choose one with --measured-on")
    if "runtime" in frame:
        refuse_mixture(measured, "runtime", hint="choose one with --runtime")
    if "latency_batch" in frame:
        refuse_mixture(measured, "latency_batch")
    return frame


def comparable(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows, without latencies where those cannot be compared, and a remark on that: for answers that
    latency is only a part of.
    """
    if "measured_on" not in frame:
        return frame, []
    try:
        return of_device(frame), []
    except UserError as error:
        return frame.assign(**dict.fromkeys(latencies.NAMES)), [f"latency_ms_p50 is left out: {error}"]


def is_unstable(row: pd.Series) -> bool:
    """Whether the latency of a row is marked as known to no better than 3 %."""
    value = row.get("latency_unstable")
    return bool(pd.notna(value) and value)


def varying(frame: pd.DataFrame) -> list[str]:
    """The axes that take several values within one model on one data set, in the configuration's order, and
    with them the state of data and code.
    """
    require(frame, "model", "dataset")
    axes = [name for name in (*SETTING, *STATE) if name in frame and name not in ("model", "dataset")]
    values = plain(frame).groupby(["model", "dataset"], dropna=False)[axes].nunique(dropna=False)
    return [name for name in axes if (values[name] > 1).any()]


def recipe_differences(frame: pd.DataFrame) -> list[str]:
    """The axes of training whose values are not the same for all models on one data set. What has no
    parameters is not trained.
    """
    frame = plain(frame)
    if "params" in frame:
        frame = frame[frame["params"].ne(0).fillna(True)]
    return [name for name in RECIPE if name in frame and differs(frame, name)]


def differs(frame: pd.DataFrame, axis: str) -> bool:
    """Whether the values of an axis on one data set depend on the model; models without it do not count."""
    known = frame.dropna(subset=[axis])
    values = known.groupby(["dataset", "model"], dropna=False)[axis].agg(frozenset)
    return bool((values.groupby("dataset", dropna=False).nunique() > 1).any())


def labels(frame: pd.DataFrame, *, short: bool = True) -> pd.Series:
    """A name for each row: its model, and the fewest axes that tell rows apart, with those in which models
    were trained otherwise: `vit d4` or `vit depth=4`.
    """
    axes, models = distinguishing(frame), model_names(frame)
    names = [
        " ".join([models[row["model"]], *words(row, axes, short)])
        for _, row in as_typed(frame, axes).iterrows()
    ]
    return pd.Series(names, index=frame.index, dtype=object)


def model_names(frame: pd.DataFrame) -> dict[str, str]:
    """How the models of rows are called: of `FILE.py:CLASS` the class, with as much of the file's path before
    it as it takes to tell two of one name apart.
    """
    models = [str(model) for model in plain(frame)["model"].unique()]
    return {model: clean(short_name(model, models)) for model in models}


def short_name(model: str, models: Sequence[str]) -> str:
    """The shortest end of a model's name that no other one of `models` has; see `model_names`."""
    cuts = (i + 1 for i in reversed(range(len(model))) if model[i] == "/")
    for end in (model_name(model), *(model[cut:] for cut in cuts)):
        if not any(f"/{other}".endswith((f"/{end}", f":{end}")) for other in models if other != model):
            return end
    return model


def distinguishing(frame: pd.DataFrame) -> list[str]:
    """Of the axes that vary, those without which two rows would share a name: what an architecture is goes
    before how it was trained, and the best known before others. With them those in which the training of
    models differs.
    """
    frame = plain(frame)
    known = [*ABBREVIATIONS, *SETTING, *STATE]

    def rank(name: str) -> tuple[bool, int]:
        return name not in ARCHITECTURE_NAMES, known.index(name)

    kept = sorted(varying(frame), key=rank)
    needed = fewest(
        kept, reversed(kept), lambda names: len(frame[["model", "dataset", *names]].drop_duplicates())
    )
    return sorted({*needed, *recipe_differences(frame)}, key=rank)


def as_typed(frame: pd.DataFrame, axes: list[str]) -> pd.DataFrame:
    """The rows with the fractions of these axes as text, of as few digits as tell them apart, and checksums
    likewise.
    """
    return plain(frame).assign(
        **{name: shortened(frame[name]) for name in axes if name in (*FRACTIONS, *CHECKSUMS)}
    )


def shortened(values: pd.Series) -> pd.Series:
    """The values as text of the fewest digits, four or more, that tell them apart; null stays."""
    distinct = [value for value in values.unique() if not pd.isna(value)]
    texts: dict[object, str] = {}
    for digits in range(4, 65):
        texts = {value: digits_of(value, digits) for value in distinct}
        if len(set(texts.values())) == len(texts):
            break
    return values.astype(object).map(texts)


def digits_of(value: object, digits: int) -> str:
    """So many digits of a number, or the beginning of a checksum."""
    return f"{value:.{min(digits, 17)}g}" if isinstance(value, float) else clean(value)[: 2 * digits]


def words(row: pd.Series, axes: list[str], short: bool = False) -> list[str]:
    """`depth=4`, or in short `d4`, for each of the axes that the row's model has."""
    forms = ABBREVIATIONS if short else {}
    known = {name: row[name] for name in axes if not pd.isna(row[name])}
    known |= arguments(known.pop("model_args", "{}"))
    return [
        forms[name].format(shown(value)) if name in forms else f"{clean(name)}={shown(value)}"
        for name, value in known.items()
    ]


def arguments(text: str) -> dict[str, object]:
    """The arguments of one's own model; the text as it is, where it is none that we wrote."""
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):
        known = None
    return known if isinstance(known, dict) else {"model_args": text}


def shown(value: object) -> str:
    """A value of the configuration as it is typed: 6 and not 6.0."""
    return f"{value:.12g}" if isinstance(value, int | float) else clean(value)


def done(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that are done, where a column says so, as `plain` has them; null for measures that are no
    finite number, of which nothing can be said.
    """
    frame = plain(frame)
    frame = frame[frame["status"] == "done"] if "status" in frame else frame
    measured = [name for name in frame if name in MEASURES and name not in SETTING]
    floats = [name for name in measured if is_float_dtype(frame[name])]
    endless = [name for name in floats if np.isinf(numbers(frame, name)).any()]
    return frame.assign(**{name: frame[name].where(np.isfinite(numbers(frame, name))) for name in endless})


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows without categories: after filtering, a category may have no row any more."""
    kinds = {
        name: kind.categories.dtype
        for name, kind in frame.dtypes.items()
        if isinstance(kind, pd.CategoricalDtype)
    }
    whole = {name for name, kind in kinds.items() if kind.kind in "iub" and frame[name].isna().any()}
    return frame.astype({name: float if name in whole else kind for name, kind in kinds.items()})


def numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column as floats (n,), null as NaN."""
    return np.asarray(frame[column].to_numpy(dtype=float, na_value=np.nan))


def positive(values: np.ndarray, column: str) -> np.ndarray:
    """The finite values. Raises UserError where one is not above 0, and so has no logarithm."""
    finite = values[np.isfinite(values)]
    if (finite <= 0).any():
        raise UserError(f"{column}={finite.min():g} has no logarithm; a cost must be above 0")
    return finite


def require(frame: pd.DataFrame, *columns: str) -> None:
    """Raises UserError where the rows lack one of the columns."""
    for name in columns:
        if name not in frame:
            hint = did_you_mean(name, frame.columns)
            raise UserError(f"column {name!r} is not in these rows{hint}; see python -m attnsweep columns")


def check_direction(cost: str, quality: str) -> None:
    """Raises UserError where more of the cost, or less of the quality, is known to be better."""
    if cost in MEASURES and MEASURES[cost].better == "higher":
        raise UserError(f"cost={cost!r} is better when higher; use a cost such as 'latency_ms_p50'")
    if quality in MEASURES and MEASURES[quality].better == "lower":
        raise UserError(f"quality={quality!r} is better when lower; use a quality such as 'test_acc'")


def refuse_mixtures(frame: pd.DataFrame, cost: str) -> None:
    """Raises UserError where the rows' costs or qualities cannot be compared."""
    same = MEASURES[cost].same if cost in MEASURES else ()
    for column in ("dataset", "data_sha256", *same):
        if column in frame:
            refuse_mixture(frame, column)


def refuse_mixture(frame: pd.DataFrame, column: str, hint: str | None = None) -> None:
    """Raises UserError, naming the groups, where the column takes several values."""
    groups = frame[column].value_counts(dropna=False).sort_index()
    if len(groups) < 2:
        return
    listed = ", ".join(f"{shown(value)} ({count} row{'s' * (count > 1)})" for value, count in groups.items())
    first = groups.index[0]
    value = repr(first) if isinstance(first, str) else shown(first)
    choice = hint or f'select one: frame[frame[{column!r}] == {value}], or --where "{column} == {value}"'
    raise UserError(f"rows that differ in {column} cannot be compared: {listed}; {choice}")
