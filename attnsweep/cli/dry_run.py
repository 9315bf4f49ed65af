"""The plan of a sweep printed, and nothing run: for people, or as one JSON object per trial."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any, TextIO

from attnsweep.core import terminal
from attnsweep.core.trial import Invalid
from attnsweep.engine import console
from attnsweep.results.store import Row, Store
from attnsweep.space.plan import Folders, known_latency, known_rows, refuse_unmet, wanted_data
from attnsweep.space.search import expand_sweep, plan_and_search
from attnsweep.space.sweep import Sweep
from attnsweep.tasks.registry import AXES


def dry_run(sweep: Sweep, where: Folders, *, as_json: bool, out: TextIO, latency: bool = True) -> int:
    """Prints the plan, for people or to `out` as one JSON object per trial; returns the exit status that the
    sweep would begin with. Raises UserError where nothing is within the budget, as far as that is known.
    """
    store = Store(where.results)
    rows, latency_of = known_rows(store, sweep), known_latency(store, sweep)
    plan, _ = plan_and_search(sweep, expand_sweep(sweep, where.data), rows, where.data, latency_of)
    for dataset in wanted_data(plan):
        if dataset.is_folder:  # nothing is downloaded for a plan
            dataset.ensure(where.data)
    if as_json:
        for trial in plan.trials:
            excess = plan.over.get(trial.trial_id)
            state = {"status": plan.state[trial.trial_id], "reason": str(excess) if excess else None}
            print(json.dumps(trial.row() | state), file=out)
        for point in plan.open:
            row = row_of_point(point) | {"status": "new", "reason": "to be suggested by Optuna"}
            print(json.dumps(row), file=out)
        for one in plan.invalid:
            print(json.dumps(invalid_row(one)), file=out)
    else:
        screen = terminal.screen()
        console.show_plan(screen, plan)
        cpus = (sweep.resources or {}).get("cpu", 1)
        console.show_time(screen, plan, max(1, int((os.cpu_count() or 1) / max(cpus, 0.01))), latency=latency)
        console.show_trials(screen, plan)
    refuse_unmet(plan)
    return 2 if plan.invalid else 0


def invalid_row(one: Invalid) -> Row:
    """What the JSON of a dry run says of an invalid point."""
    return row_of_point(one.point) | {"status": "invalid", "reason": one.reason}


def row_of_point(point: Mapping[str, Any]) -> Row:
    """A point that is no trial: no ids and no cost, but its own values."""
    nothing = dict.fromkeys(("trial_id", "arch_id", "params", "macs"))
    return {**nothing, **{key: plain(point.get(key)) for key in AXES}}


def plain(value: object) -> object:
    """A value as JSON can hold it."""
    kept = (
        value is None
        or isinstance(value, str | int | bool)
        or (isinstance(value, float) and math.isfinite(value))
    )
    return value if kept else str(value)
