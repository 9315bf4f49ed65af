"""`attnsweep measure --TEST`: a task's external tests of finished models, in a phase of their own.

They take minutes for each model, or a package that is optional: what a trial's row promises is there without.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from attnsweep.answers import selection
from attnsweep.core import terminal, text
from attnsweep.core.errors import UserError, writing
from attnsweep.engine.writer import sole_writer
from attnsweep.results.loading import load
from attnsweep.results.store import Store
from attnsweep.space.plan import Folders, folders_of
from attnsweep.space.rerun import trial_of
from attnsweep.tasks.task import ExternalTest, Task
from attnsweep.training.trained import with_kept_weights


def measure(task: Task, test: ExternalTest, results: str | Path, *, where: str | None, again: bool) -> int:
    """Writes the test's column into all rows that lack it (`again`: or have it), satisfy `where` and whose
    weights were kept; returns the exit status.

    Raises UserError where the test cannot run here, or no weights were kept of any model.
    """
    test.require()
    screen, folders = terminal.screen(), folders_of(results)
    trials = load(results, all_columns=True)
    rows = untested(task, test, selection.where(trials, where), again=again)
    done = 0
    with sole_writer(Store(results), folders.runs):
        for trial_id, model, score in scores(test, rows, folders):
            record(Store(results), task.name, trial_id, {test.column: score})
            screen.print(f"{trial_id}  {model}  {test.column} {score:.3f}", highlight=False)
            done += 1
    left = len(rows) - done
    if left and not done:
        raise UserError(
            f"no weights were kept of {text.counted(left, 'model')} in {results}; run their sweep with "
            "keep_weights=True and another --results, for what is finished does not run again"
        )
    without = f"; {left} have no weights, which keep_weights=True keeps" if left else ""
    screen.print(f"measured {text.counted(done, 'model')}{without}", highlight=False)
    return 0


def untested(task: Task, test: ExternalTest, rows: pd.DataFrame, *, again: bool) -> list[dict[str, object]]:
    """The finished trials of today's numbers that the test is for, and that have no score yet, or `again`."""
    today = rows[(rows["task"] == task.name) & (rows["numerics"] == task.numerics)]
    untested = today if again else today[today[test.column].isna()]
    return [row for row in untested.to_dict("records") if test.takes(row)]


def scores(
    test: ExternalTest, rows: list[dict[str, object]], folders: Folders
) -> Iterator[tuple[str, str, float]]:
    """Trial, name of its model and score, of the rows whose weights were kept, as the test goes."""
    for row in rows:
        trial = trial_of(row, folders.data)
        if (model := with_kept_weights(trial, folders.checkpoints)) is not None:
            yield trial.trial_id, str(row["model"]), test.run(model, trial.config)


def record(store: Store, table: str, trial_id: str, measures: dict[str, float]) -> None:
    """Writes measures into the row of a trial, at once: the next model takes minutes."""
    rows = [row for row in store.read(table).to_pylist() if row["trial_id"] == trial_id]
    with writing(store.root):
        store.supersede(table, [{**(rows or [{"trial_id": trial_id}])[0], **measures}], ["trial_id"])
