"""From a row of results back to its trial, and to the command that runs it again."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.results.loading import load, the_trial
from attnsweep.space.sweep import OPTIONS
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import AXES, TASKS, find_dataset, forget

if TYPE_CHECKING:
    import pandas as pd


def find_trial(results: str, trial_id: str) -> "pd.Series[Any]":
    """The row of the trial whose id is, or begins with, `trial_id`.

    Raises UserError if there is none or several.
    """
    return the_trial(load(results, status=None, all_columns=True), trial_id, f"in {results}")


def trial_of(row: Mapping[str, Any], data_dir: Path) -> Trial:
    """The trial of a row.

    Raises UserError where its data set is missing, where data or code have changed, or where somebody else
    may have written the file of a user's own model that it names.
    """
    import pandas as pd

    config = {name: None if pd.isna(row[name]) else axis.kind(row[name]) for name, axis in AXES.items()}
    forget(data_dir)
    trial = make_trial(config, data_dir, trusted=True)
    if trial.trial_id == row["trial_id"]:
        return trial
    what = "the data set" if trial.data_sha256 != row["data_sha256"] else "this package"
    raise UserError(
        f"trial {row['trial_id']} cannot be made again: {what} has changed since; run its sweep once more"
    )


def refuse_unfinished(row: Mapping[str, Any]) -> None:
    """Raises UserError, which says how it ended, for a row of a trial that is not done."""
    if row["status"] != "done":
        why = f" ({row['error']})" if isinstance(row["error"], str) else ""
        raise UserError(f"trial {row['trial_id']} {row['status']}{why}; choose one that is done")


def rerun_line(row: Mapping[str, Any]) -> str:
    """The shell command that runs the trial of a row again, with results in `rerun`. Reads no data. Raises
    UserError where the row does not say enough.
    """
    import pandas as pd

    if row["task"] not in TASKS or pd.isna(row["model"]) or pd.isna(row["dataset"]):
        named = ", ".join(f"{name}={row[name]!r}" for name in ("task", "model", "dataset"))
        raise UserError(f"{named}: the row is not one of ours")
    task = TASKS[row["task"]]
    # a user's own folder may be on another machine, and is not read for this
    dataset = find_dataset(row["dataset"]) if row["dataset"] in task.dataset_names else None
    derived = {"task", *(axis.name for axis in AXES.values() if not axis.settable)}
    derived |= {key for key in task.of_data if getattr(dataset, key, None) == row[key]}
    if row["model"] in task.models:
        derived |= AXES.keys() - {"model", "dataset", *task.models[row["model"]], *task.recipe, *task.of_data}
    known = {key: AXES[key].kind(row[key]) for key in AXES if key not in derived and not pd.isna(row[key])}
    if not pd.isna(row["model_args"]):
        known |= arguments_of(row["model_args"])
    space = ", ".join(f"{key}={as_code(value)}" for key, value in known.items())
    if known.keys() & OPTIONS:  # arguments of one's own model, by names that a sweep has for itself
        space = f"dict({space})"
    code = f"import attnsweep; attnsweep.run(attnsweep.Sweep({space}), results='rerun')"
    return f"python -c {quoted(code)}"


def as_code(value: Any) -> str:
    """A value as code for a sweep; a list must be wrapped into a grid to be one value."""
    return repr({"grid_search": [value]} if isinstance(value, list) else value)


def arguments_of(text: str) -> dict[str, Any]:
    """The arguments of a user's model. Raises UserError for text not ours, as its names become code."""
    try:
        known = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"model_args={text!r} is not JSON; the row is not one of ours") from error
    if not isinstance(known, dict) or not all(key.isidentifier() for key in known):
        raise UserError(f"model_args={text!r} are no arguments; the row is not one of ours")
    return known


def quoted(code: str) -> str:
    """Code as one shell word: in double quotes, as it has single ones, unless the shell would expand it."""
    return shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'
