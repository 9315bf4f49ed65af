"""The tables as DataFrames: trials joined with their task's own measures, and with the latency of one
runtime.
"""

import logging
import shlex
from collections.abc import Mapping, Sequence
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
    measured_on: str | None = None,
) -> "pd.DataFrame":
    """One table of `results` as a DataFrame.

    - `table`: `trials`, joined with the measures that tasks keep in tables of their own; or `epochs`,
      `latency`, `references` or `driving`, as they are.
    - `status`: which trials; None for all.
    - `all_columns=True` keeps the columns of trials that are null in all rows.
    - `runtime`: the runtime whose latency the rows show, such as "onnxruntime", null where it was not
      measured. By default the one that was measured last, by the sweep or by `attnsweep measure`.
    - `measured_on`: the device and thread count of that latency, as the column has them, such as
      "AMD EPYC, 2 threads", null where it was not measured there. By default the one that a row names.

    Raises UserError where there are no results, no such table, or no latency under that runtime or on that
    device.
    """
    one_of("table", table, TABLES)
    if status not in (None, *STATUSES):
        raise UserError(f"status={status!r} is unknown; use one of {', '.join(STATUSES)}, or None for all")
    store = opened(results)
    content = store.read(table)
    if table != "trials":
        return content.to_pandas()
    if runtime or measured_on:
        content = with_latency(store, content, runtime, measured_on)
    frame = completed(content.to_pandas())
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


def with_latency(store: Store, trials: pa.Table, runtime: str | None, measured_on: str | None) -> pa.Table:
    """The trials with their latency under a runtime, on a device, or both. Raises UserError where none was
    measured there.
    """
    rows = trials.to_pylist()
    measured = [row for row in store.read("latency").to_pylist() if row["latency_ms_p50"] is not None]
    if runtime and runtime not in (names := sorted({row["runtime"] for row in measured})):
        others = f", only under {', '.join(names)}" if names else ""
        raise UserError(
            f"nothing was measured under runtime={one_of('runtime', runtime, RUNTIMES)!r}{others}; measure: "
            f"python -m attnsweep measure {shlex.quote(without_secrets(store.root))} --runtime {runtime}"
        )
    devices = sorted({row["measured_on"] for row in (*measured, *rows)} - {None})
    if measured_on and measured_on not in devices:
        others = f"{did_you_mean(measured_on, devices)}; there are {'; '.join(devices) or 'no latencies'}"
        raise UserError(f"measured_on={measured_on!r} has no rows{others}")
    found = dict(latencies.of_trials(rows, measured, runtime=runtime, measured_on=measured_on))
    if measured_on and not found and not any(is_shown(row, runtime, measured_on) for row in rows):
        raise UserError(unmeasured_there(measured, runtime, measured_on))
    nothing = dict.fromkeys(latencies.NAMES)
    changed = [
        {**row, **found.get(row["trial_id"], {} if is_shown(row, runtime, measured_on) else nothing)}
        for row in rows
    ]
    return pa.Table.from_pylist(changed, schema=trials.schema)


def unmeasured_there(measured: Sequence[Mapping[str, Any]], runtime: str | None, device: str) -> str:
    """The error where runtime and device are known, but no trial was measured under the one on the other."""
    there = sorted({row["runtime"] for row in measured if row["measured_on"] == device})
    under = f" under {runtime}" if runtime else ""
    others = f", only under {', '.join(there)}; choose it (--runtime)" if there else "; choose another"
    return f"no trial of these was measured on {device}{under}{others}"


def is_shown(row: Mapping[str, Any], runtime: str | None, measured_on: str | None) -> bool:
    """Whether a trial's row has the latency that is asked for."""
    return runtime in (None, row["runtime"]) and measured_on in (None, row["measured_on"])
