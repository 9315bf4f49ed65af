"""Asynchronous successive halving (ASHA, https://arxiv.org/abs/1810.05934): which trials are stopped early.

Rungs stand at 1, 4, 16 ... epochs. A trial that reaches a rung goes on if its configuration is among the best
quarter of those that have reached it, and there is nobody to wait for. Two things are as a sweep needs them:

- Trials of one model and data set are compared, no others: larger architectures learn later.
- The seeds of one configuration do not compete with each other. At a rung a configuration counts once, by
  the mean over its seeds that have reached it; a trial is stopped if that mean, its own value included, lies
  below the best quarter of the *other* configurations.

With one seed per configuration the decisions are those of Ray Tune's ASHAScheduler.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from attnsweep.core.trial import Trial
from attnsweep.results.store import Row
from attnsweep.tasks.registry import AXES, TASKS

REDUCTION = 4  # of the configurations one in so many goes on from each rung
GRACE = 1  # epochs that every trial trains
RUNGS = tuple(
    GRACE * REDUCTION**k for k in range(int(math.log(AXES["epochs"].high / GRACE, REDUCTION) + 1e-9) + 1)
)


Rung = dict[Any, dict[str, float]]  # configuration to trial_id to quality


class Halving:
    """The rungs of all groups of trials that are compared with each other."""

    def __init__(self) -> None:
        self.rungs: dict[tuple[Any, ...], Rung] = defaultdict(lambda: defaultdict(dict))  # by group and epoch
        self.configurations: dict[str, Any] = {}

    def refill(self, trials: Iterable[Trial], epochs: Iterable[Row]) -> None:
        """Puts what the table `epochs` has of these trials into the rungs, the first epochs first."""
        known = {trial.trial_id: trial for trial in trials}
        for epoch in sorted(epochs, key=lambda epoch: epoch["epoch"]):
            if trial := known.get(epoch["trial_id"]):
                self.stops(trial, epoch)

    def stops(self, trial: Trial, epoch: Row) -> bool:
        """Notes an epoch of a trial at the highest rung that it has reached and does not stand at yet.

        Returns whether the trial is to be stopped there.
        """
        group = (trial.config["model"], trial.config["dataset"], trial.data_sha256)
        configuration = self._configuration(trial)
        for milestone in reversed(RUNGS):
            if epoch["epoch"] < milestone:
                continue
            rung = self.rungs[(*group, milestone)]
            if trial.trial_id not in rung[configuration]:
                rung[configuration][trial.trial_id] = TASKS[trial.config["task"]].selecting(epoch)
                return self._is_below(rung, configuration)
        return False

    def _configuration(self, trial: Trial) -> Any:
        """What all seeds of a setting have in common; small, as there may be ten thousand trials."""
        if trial.trial_id not in self.configurations:
            self.configurations[trial.trial_id] = hash(
                tuple(sorted((key, str(value)) for key, value in trial.config.items() if key != "seed"))
            )
        return self.configurations[trial.trial_id]

    def _is_below(self, rung: Rung, configuration: Any) -> bool:
        """Whether a configuration lies below the best quarter of the others at a rung."""
        others = [mean(seeds) for key, seeds in rung.items() if key != configuration and seeds]
        if not others:
            return False
        return bool(mean(rung[configuration]) < np.nanpercentile(others, 100 * (1 - 1 / REDUCTION)))


def mean(seeds: Mapping[str, float]) -> float:
    """The mean over the seeds of a configuration."""
    return math.fsum(seeds.values()) / len(seeds)
