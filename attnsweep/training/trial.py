"""One trial from start to finish: an ordinary generator without Ray, to be stepped through in a debugger.

    for event in run(trial, Options(data_dir="data")): ...

It yields a dict per epoch, with the epoch's row and the trial's row so far, and sometimes one with its
progress. The last one has a `status`: whatever goes wrong inside the trial becomes a status, not an
exception.
"""

import logging
import statistics
import time
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path

import torch

from attnsweep.core.containment import as_torch_begins, contained
from attnsweep.core.errors import reason
from attnsweep.core.trial import Trial
from attnsweep.results import provenance, storage
from attnsweep.results.schema import JUDGED
from attnsweep.results.store import Row
from attnsweep.tasks.registry import TASKS
from attnsweep.training import checkpoint
from attnsweep.training.checkpoint import checkpoint_path, weights_path
from attnsweep.training.epoch import Diverged, Event, judge, train
from attnsweep.training.history import History, now
from attnsweep.training.setup import Options, Setup, prepare

SAVES = 20.0  # times as long between two checkpoints as writing one takes: at most 5 % of the training
log = logging.getLogger("attnsweep")


def run(trial: Trial, options: Options) -> Iterator[Event]:
    """Trains and judges one trial; see the module. Resumes from its checkpoint if there is one.

    It begins with torch as in a new process. What a user's own model changes, such as the default dtype, is
    restored.
    """
    return contained(events(trial, options))


def events(trial: Trial, options: Options) -> Generator[Event]:
    """See `run`."""
    setup, history = None, History(trial.config["task"])
    as_torch_begins()
    try:
        setup, history = begin(trial, options, history)
        yield from epochs(setup, history)
        examine(setup, history)
        leave_weights(setup, history)
        yield {"status": "done", "row": row_of(setup, history), "curve": history.unreported()}
    except Diverged as error:
        assert setup is not None
        row = {**row_of(setup, history), "error": str(error)}
        yield {"status": "diverged", "row": row, "curve": history.unreported()}
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a user's own model may end the program, too
        row = row_of(setup, history) if setup else trial.row()
        log.debug("trial %s failed\n%s", trial.trial_id, traceback.format_exc())
        yield {"status": "failed", "row": {**row, "error": f"{reason(error)} ({location_of(error)})"}}


def begin(trial: Trial, options: Options, new: History) -> tuple[Setup, History]:
    """The trial's setup and history: from its checkpoint if that can be read, else `new`."""
    path, setup = checkpoint_path(trial, options), prepare(trial, options)
    if path is None:
        return setup, new
    try:
        history = checkpoint.restore(setup, checkpoint.read(storage.read(path), setup.device))
        if setup.task.examine and history.curve and not history.best_weights:
            raise ValueError("it holds no weights of the selected epoch")  # of a version that needed none
        row_of(setup, history)  # raises where it cannot be summed up
        return setup, history
    except FileNotFoundError:
        return setup, new
    except Exception as error:  # torn, foreign or hostile: weights_only runs no code of it
        log.warning("skipped the checkpoint %s, which cannot be read (%s)", path, reason(error))
        return prepare(trial, options), new


def epochs(setup: Setup, history: History) -> Iterator[Event]:
    """Trains and judges the remaining epochs. Raises Diverged."""
    saved_at, wait = time.perf_counter(), setup.options.checkpoint_s
    warning: dict[str, str] = {}
    keeps_weights = setup.options.keep_weights or setup.task.examine is not None
    for epoch in range(len(history.curve), setup.config["epochs"]):
        effort: Row = {}  # rules that do not learn are only judged
        if setup.optimizer:
            effort = yield from train(setup, setup.optimizer, epoch=epoch)
        with setup.averaged():
            history.add(judge(setup, epoch=epoch, effort=effort))
            if keeps_weights:
                history.keep_if_best(setup.model)
        if epoch + 1 == setup.config["epochs"]:
            return  # the last epoch travels with the final event
        if time.perf_counter() - saved_at > wait:
            took_s, warning = save(setup, history)
            wait = setup.options.checkpoint_s * max(1, SAVES * took_s)
            saved_at = time.perf_counter()
        yield {**epoch_event(setup, history), **warning}


def epoch_event(setup: Setup, history: History) -> Event:
    """The event of the last epoch."""
    return {
        "epoch": len(history.curve),
        "quality": TASKS[history.task].selecting(history.curve[-1]),
        "row": row_of(setup, history),
        "curve": history.unreported(),
    }


def save(setup: Setup, history: History) -> tuple[float, dict[str, str]]:
    """Writes a checkpoint; returns the seconds that it took, and a `warning` if it cannot be written. That
    fails no trial, as checkpoints only save time.
    """
    path, began = checkpoint_path(setup.trial, setup.options), time.perf_counter()
    if path is None or setup.optimizer is None:
        return 0.0, {}
    warning = {}
    try:
        checkpoint.write(checkpoint.state(setup, setup.optimizer, history), path)
    except OSError as error:
        warning = {"warning": f"checkpoints cannot be written ({storage.short(error)})"}
    return time.perf_counter() - began, warning


def examine(setup: Setup, history: History) -> None:
    """Runs the task's `examine` on the model of the selected epoch."""
    if setup.task.examine is None:
        return
    setup.model.load_state_dict(history.best_weights or {})
    with setup.judging():
        history.examined = setup.task.examine(setup.model, setup.data, setup.config)


def leave_weights(setup: Setup, history: History) -> None:
    """Writes the weights of the selected epoch, if they are to be kept."""
    if setup.options.keep_weights and history.best_weights and setup.options.runs_dir:
        checkpoint.write(history.best_weights, weights_path(setup.options.runs_dir, setup.trial.trial_id))


def row_of(setup: Setup, history: History) -> Row:
    """The trial's row so far."""
    row = setup.trial.row() | {"params": setup.params}
    row |= provenance.worker(setup.device, threads=torch.get_num_threads())
    row |= {"started_at": history.started_at, "finished_at": now(), "peak_mem_mb": setup.memory.mb()}
    row["train_s"] = history.train_s
    if not history.curve:
        return row
    best = history.selected
    row |= {column.name: best[column.name] for column in JUDGED if column.name in best}
    row |= history.kept | history.examined
    if "test_acc" in best:
        row["test_acc_best"] = max(epoch["test_acc"] for epoch in history.curve)
    row["best_epoch"] = best["epoch"]
    if setup.optimizer:
        row["train_loss"] = history.curve[-1]["train_loss"]
        for name in ("epoch_s", "samples_per_s"):
            row[name] = statistics.median(epoch[name] for epoch in history.curve)
    return row


def location_of(error: BaseException) -> str:
    """File and line where the error arose."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
