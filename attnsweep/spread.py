"""Ray Tune: spreads trials over the cluster's workers, and hands what comes back to a recorder.

A worker is an actor that is reused from trial to trial, so torch is imported and a data set read once per
worker, and a trial costs Tune some milliseconds. Tune's own loggers, checkpoints and restoring are off: rows
and checkpoints are ours.
"""

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from attnsweep.cluster import ray_name
from attnsweep.results import Row
from attnsweep.sweep import Trial

MOST_STARTS = 3  # of a trial in one command, where its worker dies every time
log = logging.getLogger("attnsweep")


class Worker(tune.Trainable):
    """Runs one trial after another; a step is one event of attnsweep.trial.run."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """One bundle with what the sweep asks for one trial; Ray spells CPU and GPU in capitals."""
        return tune.PlacementGroupFactory([{ray_name(key): n for key, n in config["asked"].items() if n}])

    def setup(self, config: dict[str, Any], trials: Mapping[str, Trial]) -> None:  # type: ignore[override]
        self.trials = trials
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another trial in this process; True tells Tune that no new actor is needed."""
        from attnsweep import trial  # here, in the worker: the driver has no need of torch

        options = trial.Options(**new_config["options"])
        self.events: Iterator[dict[str, Any]] = trial.run(self.trials[new_config["trial_id"]], options)
        return True

    def step(self) -> dict[str, Any]:
        event = next(self.events)
        seen: dict[str, Any] = {key: event[key] for key in ("epoch", "val_acc") if key in event}
        # a list hides the numbers from Tune, which would keep statistics of each: 20 MB per 100 trials
        return {"event": [event], "done": "status" in event, **seen}


class Record(Protocol):
    """Who is told what happens to trials."""

    def started(self, trial: Trial) -> None: ...

    def told(self, trial: Trial, event: Mapping[str, Any]) -> None: ...

    def ended(self, trial: Trial, status: str, row: Row) -> None: ...


class Messenger(tune.Callback):
    """Passes Tune's callbacks on, and keeps what is left to do."""

    def __init__(self, trials: Sequence[Trial], record: Record) -> None:
        self.left = {trial.trial_id: trial for trial in trials}
        self.record = record
        self.starts: Counter[str] = Counter()
        self.rows: dict[str, Row] = {}  # of running trials, as far as they have come
        self.error: Exception | None = None  # raised by the record, say by a full disk

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks beside its own state; neither is needed again

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        if ours := self._ours(trial):
            self.starts[ours.trial_id] += 1
            self._call(self.record.started, ours)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Passes an event on; one with a status is the last of its trial."""
        if ours := self._ours(trial):
            event = result["event"].pop()  # Tune keeps the last result of every trial
            self.rows[ours.trial_id] = event.get("row", self.rows.get(ours.trial_id, ours.row()))
            self._call(self.record.told, ours, event)
            if "status" in event:
                self._end(ours, event["status"], {})

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial that has not ended by itself was stopped by the scheduler."""
        if ours := self._ours(trial):
            self._end(ours, "stopped", {})
        trial.run_metadata.metric_analysis.clear()  # Tune's statistics, some 40 kB for each trial
        trial.run_metadata.metric_n_steps.clear()

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        if ours := self._ours(trial):
            self._end(ours, "failed", {"error": worker_death(trial, self.starts[ours.trial_id])})

    def give_up(self) -> None:
        """Ends trials that were started too often."""
        for trial_id, trial in list(self.left.items()):
            if self.starts[trial_id] >= MOST_STARTS:
                self._end(
                    trial, "failed", {"error": f"its worker died {MOST_STARTS} times; was the memory enough?"}
                )

    def _ours(self, trial: TuneTrial) -> Trial | None:
        return self.left.get(trial.config["trial_id"])

    def _end(self, trial: Trial, status: str, extra: Row) -> None:
        row = {**self.rows.pop(trial.trial_id, trial.row()), **extra}
        self._call(self.record.ended, trial, status, row)
        del self.left[trial.trial_id]

    def _call(self, told: Callable[..., None], *args: Any) -> None:
        try:
            told(*args)
        except Exception as error:  # Tune wraps what its callbacks raise; this is the original
            self.error = error
            raise


def worker_death(trial: TuneTrial, starts: int) -> str:
    """Why Tune gave a trial up, in one line."""
    lines = str(trial.get_error() or "").splitlines()
    causes = (line.strip() for line in reversed(lines) if "Error" in line or "exit detail" in line)
    return f"its worker failed, at {starts} starts: {next(causes, 'the process ended')[:300]}"


class GroupedASHA(FIFOScheduler):
    """Asynchronous successive halving (https://arxiv.org/abs/1810.05934) among trials of one model and data
    set only.

    Between architectures of different size it would be unfair: the larger ones learn later.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        super().__init__()
        self.longest = max(trial.config["epochs"] for trial in trials)
        self.groups_of = {one.trial_id: (one.config["model"], one.config["dataset"]) for one in trials}
        self.groups: dict[tuple[str, str], ASHAScheduler] = {}

    def _group(self, trial: TuneTrial) -> ASHAScheduler:
        key = self.groups_of[trial.config["trial_id"]]
        if key not in self.groups:
            self.groups[key] = ASHAScheduler(
                time_attr="epoch", metric="val_acc", mode="max", max_t=self.longest
            )
        return self.groups[key]

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        self._group(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        if "val_acc" not in result:  # mere progress, or the end
            return TrialScheduler.CONTINUE
        return self._group(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        if "val_acc" in result:
            self._group(trial).on_trial_complete(tune_controller, trial, result)


def spread(
    trials: Sequence[Trial],
    record: Record,
    *,
    options: Mapping[str, Any],
    asked: Mapping[str, float],
    slots: int,
    scheduler: str | None,
) -> None:
    """Runs the trials to their ends. A worker that dies is replaced; what it was at starts again,
    `MOST_STARTS` times at most.

    Raises what the record raises, and KeyboardInterrupt.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(
        max(2, slots)
    )  # by default 200: each pending one costs every round
    messenger = Messenger(trials, record)
    while messenger.left:
        before = messenger.starts.total()
        try:
            fit(list(messenger.left.values()), messenger, options=options, asked=asked, scheduler=scheduler)
        except Exception as error:  # Tune's whole fit ends where Ray kills one worker for memory
            if messenger.error:
                raise messenger.error from None
            if messenger.starts.total() == before:
                raise
            log.warning("Ray Tune stopped (%s); going on with %d trials", error, len(messenger.left))
        if messenger.starts.total() == before:
            raise RuntimeError(f"Ray Tune ended with {len(messenger.left)} trials not started")
        messenger.give_up()


def fit(
    trials: Sequence[Trial],
    messenger: Messenger,
    *,
    options: Mapping[str, Any],
    asked: Mapping[str, float],
    scheduler: str | None,
) -> None:
    """One call of Tune."""
    with tempfile.TemporaryDirectory(prefix="attnsweep-", ignore_cleanup_errors=True) as scratch:
        tune.Tuner(
            tune.with_parameters(Worker, trials={trial.trial_id: trial for trial in trials}),
            param_space={
                "trial_id": tune.grid_search([trial.trial_id for trial in trials]),
                "options": dict(options),
                "asked": dict(asked),
            },
            tune_config=tune.TuneConfig(
                scheduler=GroupedASHA(trials) if scheduler == "asha" else None,
                reuse_actors=True,
                trial_name_creator=name_of,
                trial_dirname_creator=name_of,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[messenger],
                failure_config=tune.FailureConfig(max_failures=MOST_STARTS - 1),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()


def name_of(trial: TuneTrial) -> str:
    """The name that Tune's own files give a trial."""
    return str(trial.config["trial_id"])
