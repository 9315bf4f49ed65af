"""What runs in the workers of Ray Tune: one trial after another."""

import faulthandler
import functools
import os
from collections.abc import Iterator
from typing import Any

from ray import tune

from attnsweep.engine.cluster import ray_name
from attnsweep.engine.presence import at_work

LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
GRACE_S = 30.0  # beyond the limit of a trial, until a worker that nobody could end ends itself
STDERR = 2


class Worker(tune.Trainable):
    """Runs one trial after another; a step is one event of attnsweep.training.trial.run."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """One bundle with what the sweep asks for one trial."""
        return bundle(tuple(config["asked"].items()))

    def setup(self, config: dict[str, Any]) -> None:
        self.presence = at_work()
        limit_threads(config["options"]["cpu"])
        self.reset_config(config)
        os.nice(max(0, config["niceness"] - os.nice(0)))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another trial in this process; True tells Tune that no new actor is needed."""
        from attnsweep.training import trial  # here, in the worker: the driver has no need of torch

        if limit_s := new_config.get("trial_timeout"):
            faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True, file=STDERR)
        options = trial.Options(**new_config["options"])
        self.events: Iterator[dict[str, Any]] = trial.run(new_config["trial"], options)
        return True

    def step(self) -> dict[str, Any]:
        """See `ray.tune.Trainable.step`: the next event of the trial."""
        event = next(self.events)
        if "status" in event:
            faulthandler.cancel_dump_traceback_later()
        # a list hides the numbers from Tune, which would keep statistics of each: 20 MB per 100 trials
        return {"event": [event]}


def limit_threads(cpu: float) -> None:
    """Has the libraries of this process compute on as many threads as its trials have CPUs, whatever the
    environment says: more would take cores from other trials, and spin while they wait for each other.
    """
    threads = max(1, int(cpu))
    os.environ |= {f"{name}_NUM_THREADS": str(threads) for name in LIBRARIES}  # for what is not loaded yet
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    threadpool_limits(threads)  # and for what is, such as numpy's


@functools.cache
def bundle(asked: tuple[tuple[str, float], ...]) -> tune.PlacementGroupFactory:
    """The request for one trial, one object for all; Ray spells CPU and GPU in capitals."""
    return tune.PlacementGroupFactory([{ray_name(key): n for key, n in asked if n}])
