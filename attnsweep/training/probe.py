"""Estimates how long trials take here from a few steps of each, in a child process: models may be a user's
own, and the driver need not import torch.
"""

import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attnsweep.core import child_process
from attnsweep.core.trial import Trial

if TYPE_CHECKING:
    from attnsweep.training.setup import Setup

WARM_UP, STEPS = 2, 5
PARTS = ("val", "test")  # judged after each epoch, if a task's data have them
PATIENCE_S = (60.0, 30.0)  # for the first trial, which includes imports, and for each other one


def seconds_of(
    trials: Sequence[Trial], data_dir: str, *, budget_s: float, gpu: float = 0
) -> dict[str, float]:
    """The estimated seconds of whole trials, by id. Trials whose steps fail or hang, or for which no time is
    left, are missing; all are, if trials use a GPU and there is none here.
    """
    known: dict[str, float] = {}
    until = time.monotonic() + budget_s
    results = child_process.results(probed, list(trials), data_dir, gpu, seconds=PATIENCE_S)
    with contextlib.suppress(Exception):  # of a user's own model; what is known by then is worth something
        for trial_id, seconds in results:
            known[trial_id] = seconds
            if time.monotonic() > until:
                break
    return known


def probed(trials: Sequence[Trial], data_dir: str, gpu: float) -> Iterator[tuple[str, float]]:
    """Yields id and estimated seconds of each trial."""
    from attnsweep.training.setup import Options, prepare

    for trial in trials:
        with tempfile.TemporaryDirectory() as folder:
            setup = prepare(trial, Options(data_dir=data_dir, runs_dir=folder, gpu=gpu))
            if gpu and setup.device == "cpu":
                return
            yield trial.trial_id, setup.config["epochs"] * (training_s(setup) + judging_s(setup))


def training_s(setup: "Setup") -> float:
    """The seconds of an epoch's steps; 0 for rules that do not learn."""
    from attnsweep.training import epoch

    if setup.optimizer is None:
        return 0.0
    setup.train_mode()
    batches = setup.task.batches(setup.data, setup.config, epoch=0, order=setup.order)
    taken = []
    for _, batch in zip(range(WARM_UP + STEPS), batches, strict=False):
        began = time.perf_counter()
        epoch.step(setup, setup.optimizer, batch)
        taken.append(time.perf_counter() - began)
    return setup.steps_per_epoch * statistics.median(taken[WARM_UP:] or taken)


def judging_s(setup: "Setup") -> float:
    """The seconds of judging an epoch, in batches of the training's size."""
    examples = sum(len(getattr(setup.data, part, ())) for part in PARTS)
    if not examples:
        return 0.0
    batch = setup.config["batch_size"] or examples
    inputs = tuple(one.to(setup.device) for one in setup.task.example(setup.config, batch))
    with setup.judging():
        answer = setup.task.answer(setup.model, inputs, setup.config)
        answer()
        began = time.perf_counter()
        answer()
        return math.ceil(examples / batch) * (time.perf_counter() - began)
