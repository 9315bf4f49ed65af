"""The tables as DataFrames: trials joined with their task's own measures, and with the latency of one
runtime.
"""

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from attnsweep.core.clean import without_secrets
from attnsweep.core.errors import UserError, did_you_mean, one_of
from attnsweep.core.runtimes import RUNTIMES
from attnsweep.results import latencies
from attnsweep.results.schema import OWN, SCHEMA_VERSION, STATUSES, TABLES
from attnsweep.results.store import Store
from attnsweep.tasks.registry import TASKS, came_later

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("attnsweep")


def load(
    results: str | Path = "results",
    table: str = "trials",
    *,
    status: str | None = "done",
    all_columns: bool = False,
    runtime: str | None = None,
) -> "pd.DataFrame":
    """One table of `results` as a DataFrame.

    - `table`: `trials`, joined with the measures that tasks keep in tables of their own; or `epochs`,
      `latency`, `references` or `driving`, as they are.
    - `status`: which trials; None for all.
    - `all_columns=True` keeps the columns of trials that are null in all rows.
    - `runtime`: the runtime whose latency the rows show, such as "onnxruntime", null where it was not
      measured. By default the one that was measured last, by the sweep or by `attnsweep measure`.

    Raises UserError where there are no results, no such table, or no latency under that runtime.
    """
    one_of("table", table, TABLES)
    if status not in (None, *STATUSES):
        raise UserError(f"status={status!r} is unknown; use one of {', '.join(STATUSES)}, or None for all")
    store = opened(results)
    content = store.read(table)
    if table != "trials":
        return content.to_pandas()
    frame = completed((under(store, content, runtime) if runtime else content).to_pandas())
    if len(frame) and (newest := frame["schema_version"].max()) > SCHEMA_VERSION:
        log.warning(
            "%s has rows of a newer version (schema %d, here %d): what only that one knows of them is not "
            "read, and rows that differ in it alone look like one setting; upgrade attnsweep",
            results, newest, SCHEMA_VERSION,
        )  # fmt: skip
    if status is not None:
        frame = frame[frame["status"] == status].reset_index(drop=True)
    for own in OWN:
        measures = store.read(own).to_pandas().drop(columns="schema_version")
        frame = frame.merge(measures, on="trial_id", how="left", validate="one_to_one")
    return frame if all_columns else frame.dropna(axis="columns", how="all")


def opened(results: str | Path) -> Store:
    """The tables of results. Raises UserError where there are none, and names the folder above if `results`
    is a single table.
    """
    store = Store(results)
    if not store.is_empty:
        return store
    above, _, table = str(results).rstrip("/").rpartition("/")
    if table in TABLES:
        raise UserError(f"{results} is one table of results; give the folder that has it: {above or '.'}")
    raise UserError(
        f"no results in {results}; run a sweep first: python -m attnsweep new quickstart writes one"
    )


def the_trial(rows: "pd.DataFrame", trial_id: str, among: str) -> "pd.Series[Any]":
    """The row of the trial whose id is, or begins with, `trial_id`.

    Raises UserError if there is none or several; `among` says there what the rows are, such as `in results`.
    """
    found = rows[rows["trial_id"].str.startswith(trial_id)]
    if len(found) == 1:
        return found.iloc[0]
    if len(found) > 1:
        raise UserError(f"trial_id={trial_id!r} is the beginning of {len(found)} ids; give more digits")
    raise UserError(f"there is no trial {trial_id!r} {among}{did_you_mean(trial_id, rows['trial_id'])}")


def completed(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of trials, with axes that are newer than a row filled in with their value from before: else seeds
    of one setting would count as two settings.
    """
    for task in TASKS.values():
        for axis, (value, models) in came_later(task).items():
            rows = frame[axis].isna() & frame["task"].eq(task.name)
            if models is not None:
                rows &= frame["model"].isin(models)
            if rows.any():
                frame.loc[rows, axis] = value
    return frame


def under(store: Store, trials: pa.Table, runtime: str) -> pa.Table:
    """The trials with their latency under one runtime. Raises UserError where none was measured."""
    measured = store.read("latency").to_pylist()
    names = sorted({row["runtime"] for row in measured if row["latency_ms_p50"] is not None})
    if runtime not in names:
        others = f", only under {', '.join(names)}" if names else ""
        raise UserError(
            f"nothing was measured under runtime={one_of('runtime', runtime, RUNTIMES)!r}{others}; measure: "
            f"python -m attnsweep measure {shlex.quote(without_secrets(store.root))} --runtime {runtime}"
        )
    rows = trials.to_pylist()
    found = dict(latencies.of_trials(rows, measured, runtime=runtime))
    nothing = dict.fromkeys(latencies.NAMES)
    changed = [{**row, **found.get(row["trial_id"], nothing)} for row in rows]
    return pa.Table.from_pylist(changed, schema=trials.schema)
