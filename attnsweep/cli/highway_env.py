"""How planners drive in highway-env's stock environments, which nobody trained in.

A phase of its own, since it takes minutes for each planner and depends on a package that is optional: what a
trial's row promises is there without it.
"""

from pathlib import Path

import pandas as pd
from torch import nn

from attnsweep.core import text
from attnsweep.core.errors import UserError, reason, writing
from attnsweep.core.trial import Trial
from attnsweep.engine.runner import sole_writer
from attnsweep.results import storage
from attnsweep.results.store import Store, load
from attnsweep.space.plan import folders_of
from attnsweep.space.rerun import trial_of
from attnsweep.tasks.driving import TASK
from attnsweep.tasks.driving.judging.baselines import policy_of
from attnsweep.tasks.driving.judging.stock import require_highway_env, score_stock
from attnsweep.tasks.driving.records.batches import inputs_of
from attnsweep.tasks.registry import build
from attnsweep.training import checkpoint, trial

COLUMN = "highway_env_score"


def measure(results: str | Path) -> int:
    """Writes `highway_env_score` into the rows of all planners that lack it; returns the exit status.

    Raises UserError where highway-env is not installed, or no weights were kept of any of them.
    """
    require_highway_env()
    screen, store, where = text.screen(), Store(results), folders_of(results)
    rows = unmeasured(load(results, all_columns=True)).to_dict("records")
    done = 0
    with sole_writer(store, where.runs):
        for row in rows:
            one = trial_of(row, where.data)
            if (model := with_weights(one, where.checkpoints)) is None:
                continue
            score = float(score_stock(policy_of(model, inputs_of(one.config))).score.mean())
            record(store, one.trial_id, score)
            screen.print(f"{one.trial_id}  {row['model']}  {COLUMN} {score:.3f}", highlight=False)
            done += 1
    left = len(rows) - done
    if rows and not done:
        raise UserError(
            f"no weights were kept of {text.counted(left, 'planner')} in {results}; run their sweep with "
            "keep_weights=True"
        )
    without = f"; {left} have no weights, which keep_weights=True keeps" if left else ""
    screen.print(f"measured {text.counted(done, 'planner')}{without}", highlight=False)
    return 0


def unmeasured(rows: pd.DataFrame) -> pd.DataFrame:
    """The planners by lidar among finished trials of today's numbers that have no score yet: there are no
    views out there.
    """
    plans = rows["test_score"].notna() & (rows["model"] != "expert") & (rows["sensor"] != "cameras")
    today = (rows["task"] == TASK.name) & (rows["numerics"] == TASK.numerics)
    return rows[today & plans & rows[COLUMN].isna()]


def with_weights(one: Trial, checkpoints: str) -> nn.Module | None:
    """The model of a trial with the weights that its sweep kept, in evaluation mode; None where it has
    weights, and they were not kept. Raises UserError where they cannot be read.
    """
    model = build(one.config, one.source).eval()
    if not list(model.parameters()):
        return model
    path = trial.weights_path(checkpoints, one.trial_id)
    try:
        model.load_state_dict(checkpoint.read(storage.read(path), "cpu"))
    except FileNotFoundError:
        return None
    except Exception as error:  # torn, foreign or hostile: weights_only runs no code of it
        raise UserError(f"{path} cannot be read ({reason(error)}); delete it") from error
    return model


def record(store: Store, trial_id: str, score: float) -> None:
    """Writes the score into the row of a trial, at once: the next planner takes minutes."""
    rows = [row for row in store.read("driving").to_pylist() if row["trial_id"] == trial_id]
    with writing(store.root):
        store.supersede("driving", [{**(rows or [{"trial_id": trial_id}])[0], COLUMN: score}], ["trial_id"])
