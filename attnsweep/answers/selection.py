"""Selects the rows of an answer: done trials on one data set and device. Refuses rows that cannot be
compared.
"""

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

from attnsweep.core.columns import Column
from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.core.labels import shown
from attnsweep.core.text import counted
from attnsweep.results import latencies
from attnsweep.results.schema import CONFIGURATION, MEASURES

SETTING = tuple(column.name for column in CONFIGURATION if column.name != "seed")
MOST_NAMED = 10  # groups in a sentence
STATE = ("data_sha256", "numerics", "attnsweep")  # of data and code: part of what a setting is


def done(frame: pd.DataFrame) -> pd.DataFrame:
    """The done rows (all, without `status`), `plain`, with null for measures not finite and costs below 0."""
    frame = plain(frame)
    frame = frame[frame["status"] == "done"] if "status" in frame else frame
    measured = [MEASURES[name] for name in frame if name in MEASURES and name not in SETTING]
    of_numbers = [column for column in measured if is_numeric_dtype(frame[column.name])]
    wrong = {column.name: is_impossible(column, numbers(frame, column.name)) for column in of_numbers}
    return frame.assign(**{name: frame[name].mask(flags) for name, flags in wrong.items() if flags.any()})


def is_impossible(column: Column, values: np.ndarray) -> np.ndarray:
    """Which values, (n,), no row of ours has: of somebody else, or edited. Nulls are possible."""
    is_cost = column.better == "lower" and column.over_seeds in ("median", "first")
    return np.isinf(values) | (is_cost & (values < 0))


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with plain types instead of categories, which after filtering may be empty. A missing model or
    data set, which every row of ours has, becomes `?`. Raises UserError for what is no DataFrame.
    """
    if not isinstance(frame, pd.DataFrame):
        raise UserError(
            f"a DataFrame is wanted, as attnsweep.load returns it, and not {type(frame).__name__}"
        )
    for name in ("model", "dataset"):
        if name in frame and frame[name].isna().any():
            frame = frame.assign(**{name: frame[name].astype(object).fillna("?")})
    kinds = {
        name: kind.categories.dtype
        for name, kind in frame.dtypes.items()
        if isinstance(kind, pd.CategoricalDtype)
    }
    if not kinds:
        return frame
    whole = {name for name, kind in kinds.items() if kind.kind in "iub" and frame[name].isna().any()}
    return frame.astype({name: float if name in whole else kind for name, kind in kinds.items()})


def setting_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that tell settings apart: all axes but the seed, and the state of data and code."""
    return [name for name in (*SETTING, *STATE) if name in frame]


def numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column as floats (n,), with NaN for null. Raises UserError where it holds no numbers."""
    try:
        if is_datetime64_any_dtype(frame[column]):
            raise TypeError
        return np.asarray(frame[column].to_numpy(dtype=float, na_value=np.nan))
    except (TypeError, ValueError):  # a column that a user names
        raise UserError(f"column {column!r} holds no numbers; name another one") from None


def positive(values: np.ndarray, column: str) -> np.ndarray:
    """The finite values. Raises UserError where one is not above 0."""
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
    """Raises UserError where more of the cost, or less of the quality, is better."""
    if cost in MEASURES and MEASURES[cost].better == "higher":
        raise UserError(f"cost={cost!r} is better when higher; use a cost such as 'latency_ms_p50'")
    if quality in MEASURES and MEASURES[quality].better == "lower":
        raise UserError(f"quality={quality!r} is better when lower; use a quality such as 'test_acc'")


def refuse_mixtures(frame: pd.DataFrame, cost: str, *, of_data: bool = True) -> None:
    """Raises UserError where the rows' costs, or with `of_data` their data, cannot be compared."""
    if of_data:
        refuse_other_data(frame)
    for column in MEASURES[cost].same if cost in MEASURES else ():
        refuse_mixture(frame, column)


def refuse_other_data(frame: pd.DataFrame, hint: str | None = None) -> None:
    """Raises UserError where the rows were not judged on the same examples."""
    for column in ("dataset", "data_sha256"):
        refuse_mixture(frame, column, hint)


def refuse_mixture(frame: pd.DataFrame, column: str, hint: str | None = None) -> None:
    """Raises UserError, naming the groups, where there is such a column and it has several values."""
    groups = frame.get(column, pd.Series(dtype=object)).value_counts(dropna=False).sort_index()
    if len(groups) < 2:
        return
    named = [f"{shown(value)} ({counted(count, 'row')})" for value, count in groups.head(MOST_NAMED).items()]
    listed = ", ".join([*named, *([f"{len(groups) - len(named)} more"] if len(groups) > len(named) else [])])
    first = groups.index[0]
    value = repr(first) if isinstance(first, str) else shown(first)
    choice = hint or f'select one: frame[frame[{column!r}] == {value}], or --where "{column} == {value}"'
    raise UserError(f"rows that differ in {column} cannot be compared: {listed}; {choice}")


def instead(frame: pd.DataFrame) -> str:
    """What to do where no done row of these, of any status, has what is needed: the end of a sentence."""
    if frame.empty:
        return "run a sweep first: python -m attnsweep new quickstart writes one"
    states = frame.get("status", pd.Series("done", frame.index)).value_counts()
    if "done" in states:
        return "choose other trials"
    ended = ", ".join(f"{count} {status}" for status, count in states.items())
    return f"there are {ended}; the column error says why"


def choose(frame: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """The rows with a value. Raises UserError, naming the values, where no row has it."""
    frame = plain(frame)
    require(frame, column)
    known = sorted(map(str, frame[column].dropna().unique()))
    if value not in known:
        hint = did_you_mean(value, known)
        raise UserError(f"{column}={value!r} has no rows{hint}; there are {', '.join(known) or 'none'}")
    return frame[frame[column] == value]


def where(frame: pd.DataFrame, condition: str | None) -> pd.DataFrame:
    """The rows that satisfy a pandas query; without one all. Raises UserError where it is malformed, or no
    row does.
    """
    if condition is None:
        return frame
    try:
        flags = plain(frame).eval(condition)
        if not isinstance(flags, pd.Series):
            raise TypeError("it is no condition")
        rows = plain(frame)[flags.astype("boolean").fillna(False)]
    except Exception as error:  # a user's text: pandas raises nearly anything
        example = "model == 'vit' and depth == 6"
        raise UserError(f"{condition!r} cannot be evaluated ({error}); write it like {example!r}") from error
    if rows.empty:
        raise UserError(f"no row satisfies {condition!r}; there are {len(frame)} rows without it")
    return rows


def of_device(frame: pd.DataFrame, measured_on: str | None = None) -> pd.DataFrame:
    """The rows whose latency was measured on one device, and those without latency.

    Raises UserError where there are several devices and none is chosen, several runtimes or batches, or no
    rows of the chosen device.
    """
    frame = plain(frame)
    require(frame, "measured_on")
    if measured_on is not None:
        if frame["measured_on"].isna().all():
            raise UserError(f"none of {counted(len(frame), 'row')} was measured on {measured_on}")
        choose(frame, "measured_on", measured_on)
        frame = frame[frame["measured_on"].isna() | (frame["measured_on"] == measured_on)]
    measured = frame.dropna(subset=["measured_on"])
    refuse_mixture(measured, "measured_on", hint="choose one with --measured-on")
    refuse_mixture(measured, "runtime", hint="choose one with --runtime")
    refuse_mixture(measured, "latency_batch")
    return frame


def comparable(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows, without latency if it cannot be compared, and a remark on that."""
    if "measured_on" not in frame:
        return frame, []
    try:
        refuse_mixtures(frame[frame["measured_on"].notna()], "latency_ms_p50", of_data=False)
        return frame, []
    except UserError as error:
        return frame.assign(**dict.fromkeys(latencies.NAMES)), [f"latency_ms_p50 is left out: {error}"]


def is_unstable(row: pd.Series) -> bool:
    """Whether a row's latency is known to no better than 3 %."""
    value = row.get("latency_unstable")
    return bool(pd.notna(value) and value)
