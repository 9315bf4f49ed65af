"""Estimates of how long trials take, from the seconds per unit of work of trials that have run, model by
model.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from attnsweep.core.trial import Trial
from attnsweep.tasks.registry import dataset_of

ASSUMED_MACS_PER_S = 11e9  # forward MACs while training on one CPU core, before anything was observed
START_S = 12.0  # for Ray to start, and for the first workers to import torch
MEASURE_S = 3.0  # for the latency of an architecture, at two sizes of batches
LAUNCH_MACS = 30e6  # what a core could have computed while Python gets one layer of one step going


def work(trial: Trial) -> float:
    """The trial's forward MACs over all steps, plus an overhead per step that dominates in tiny models."""
    batch = trial.config["batch_size"] or 1_000  # null for rules, which are only judged
    steps = math.ceil(dataset_of(trial.config).train_size / batch) * trial.config["epochs"]
    macs = trial.params if trial.macs is None else trial.macs  # each weight takes part once, at least
    return float(steps * (batch * macs + LAUNCH_MACS * (1 + (trial.config["depth"] or 1))))


class Speed:
    """Seconds per unit of work, model by model; models without observations use the mean of the others."""

    def __init__(self) -> None:
        self.work: dict[str, float] = defaultdict(float)
        self.seconds: dict[str, float] = defaultdict(float)
        self.basis = "going by the trials in the results"

    @property
    def observed(self) -> bool:
        return bool(self.work)

    def observe(self, trial: Trial, seconds: float, *, share: float = 1.0) -> None:
        """Notes that `share` of a trial took so many seconds."""
        self.work[trial.config["model"]] += work(trial) * share
        self.seconds[trial.config["model"]] += seconds

    def unseen(self, trials: Iterable[Trial]) -> list[Trial]:
        """For each model without observations the trial of median work, the least work first."""
        by_model: dict[str, list[Trial]] = defaultdict(list)
        for trial in trials:
            if trial.config["model"] not in self.work:
                by_model[trial.config["model"]].append(trial)
        middle = [sorted(some, key=work)[len(some) // 2] for some in by_model.values()]
        return sorted(middle, key=work)

    def estimate(self, trials: Iterable[Trial]) -> float:
        """Seconds of the trials, run one after another."""
        amounts: dict[str, float] = defaultdict(float)
        for trial in trials:
            amounts[trial.config["model"]] += work(trial)
        return self.estimate_work(amounts)

    def estimate_work(self, amounts: Mapping[str, float]) -> float:
        """Seconds for amounts of work (see `work`) by model."""
        seconds, done = sum(self.seconds.values()), sum(self.work.values())
        overall = seconds / done if done else 1 / ASSUMED_MACS_PER_S
        rate = {model: self.seconds[model] / self.work[model] for model in self.work}
        return sum(amount * rate.get(model, overall) for model, amount in amounts.items())
