"""Looking into results from the command line: one trial in full, the best under a budget, what the columns
mean.
"""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from attnsweep.answers import pareto
from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.core.trial import Trial
from attnsweep.engine import console
from attnsweep.results.schema import EPOCHS, MEASURES, TABLES
from attnsweep.results.store import load
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import AXES, TASKS, find

CURVE = tuple(column.name for column in EPOCHS if "curve" in column.shown)


def columns() -> int:
    """Prints every column of every table with its type, unit and meaning."""
    screen = Console(width=120) if not sys.stdout.isatty() else Console()
    for name, described in TABLES.items():
        table = Table(
            title=f"{name} ({len(described)} columns)", box=None, title_justify="left", header_style="dim"
        )
        for title in ("column", "type", "unit", "meaning"):
            table.add_column(title, no_wrap=title == "column")
        for column in described:
            table.add_row(column.name, str(column.type), column.unit, column.meaning)
        screen.print(table, end="\n\n")
    return 0


def show(results: str, trial_id: str) -> int:
    """Prints everything about one trial, its learning curve, and the line that reruns it."""
    screen, row = console.screen(), find_trial(results, trial_id)
    for column in MEASURES.values():
        value = row[column.name]
        if not pd.isna(value):
            screen.print(
                f"{column.name:<20} {written(value)} {column.unit}".rstrip(), highlight=False, markup=False
            )
    epochs = load(results, "epochs")
    curve = epochs[epochs["trial_id"] == row["trial_id"]].sort_values("epoch")
    if not curve.empty:
        shown = curve[list(CURVE)].dropna(axis="columns", how="all")
        screen.print("\n" + shown.to_string(index=False, float_format="{:.4g}".format), highlight=False)
    screen.print(f"\nrun it again: {rerun_line(row)}", highlight=False, markup=False)
    return 0


def find_trial(results: str, trial_id: str) -> "pd.Series[Any]":
    """The row of the trial whose id is, or begins with, `trial_id`.

    Raises UserError if there is none or several.
    """
    rows = load(results, status=None, all_columns=True)
    found = rows[rows["trial_id"].str.startswith(trial_id)]
    if len(found) == 1:
        return found.iloc[0]
    if len(found) > 1:
        raise UserError(f"trial_id={trial_id!r} is the beginning of {len(found)} ids; give more digits")
    raise UserError(f"there is no trial {trial_id!r} in {results}{did_you_mean(trial_id, rows['trial_id'])}")


def trial_of(row: Mapping[str, Any], data_dir: Path) -> Trial:
    """The trial whose row this is.

    Raises UserError where its data set is not here, or where data or code have changed so that it is another.
    """
    config = {name: None if pd.isna(row[name]) else axis.kind(row[name]) for name, axis in AXES.items()}
    trial = make_trial(config, data_dir)
    if trial.trial_id == row["trial_id"]:
        return trial
    what = "the data set" if trial.data_sha256 != row["data_sha256"] else "this package"
    raise UserError(
        f"trial {row['trial_id']} cannot be made again: {what} has changed since; run its sweep once more"
    )


def rerun_line(row: Mapping[str, Any]) -> str:
    """The shell line that runs the trial of `row` again, into results of its own."""
    dataset, task = find(row["dataset"]), TASKS[row["task"]]
    derived = {"task", *(axis.name for axis in AXES.values() if not axis.settable)}
    derived |= {key for key in task.of_data if getattr(dataset, key, None) == row[key]}
    if row["model"] in task.models:
        derived |= AXES.keys() - {"model", "dataset", *task.models[row["model"]], *task.recipe, *task.of_data}
    known = {key: AXES[key].kind(row[key]) for key in AXES if key not in derived and not pd.isna(row[key])}
    if not pd.isna(row["model_args"]):
        known |= arguments_of(row["model_args"])
    space = ", ".join(f"{key}={value!r}" for key, value in known.items())
    code = f"import attnsweep; attnsweep.run(attnsweep.Sweep({space}), results='rerun')"
    return f"python -c {quoted(code)}"


def arguments_of(text: str) -> dict[str, Any]:
    """The arguments of one's own model. Raises UserError where a row's text is none that we wrote: its names
    become code.
    """
    try:
        known = json.loads(text)
    except ValueError as error:
        raise UserError(f"model_args={text!r} is not JSON; the row is not one of ours") from error
    if not isinstance(known, dict) or not all(key.isidentifier() for key in known):
        raise UserError(f"model_args={text!r} are no arguments; the row is not one of ours")
    return known


def quoted(code: str) -> str:
    """Code as one word of a shell: in double quotes, as it holds single ones, unless the shell would read
    more into it.
    """
    return shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'


def written(value: Any) -> str:
    """A value of a row as people write it."""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:.5g}" if isinstance(value, float) and value != int(value) else str(value)


def pick(
    results: str,
    *,
    latency_ms: float | None,
    params: float | None,
    dataset: str | None,
    measured_on: str | None,
) -> int:
    """Prints the settings with the highest mean validation accuracy under a budget, the best first."""
    rows = load(results, all_columns=True)
    if latency_ms is not None or measured_on is not None:
        rows = pareto.of_device(rows, measured_on)
    best = pareto.pick(rows, latency_ms=latency_ms, params=params, dataset=dataset)
    print(
        best[picked_columns(best)]
        .dropna(axis="columns", how="all")
        .head(10)
        .to_string(index=False, float_format="{:.4g}".format)
    )
    return 0


def picked_columns(best: pd.DataFrame) -> list[str]:
    """What tells the settings apart, and the measures that are to be seen beside them."""
    axes = list(dict.fromkeys(["model", "dataset", *pareto.distinguishing(best)]))
    measures = (column.name for column in MEASURES.values() if "pick" in column.shown)
    return [*axes, *(name for name in measures if name in best)]
