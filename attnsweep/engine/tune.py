"""Ray Tune as an engine: it spreads trials over the cluster's workers.

A worker is an actor that is reused from trial to trial, so torch is imported and a data set read once per
worker, and a trial costs Tune some milliseconds. Tune's own loggers, checkpoints and retries are off: rows,
checkpoints and retries are ours.

`tune.run` returns when all is over and calls back meanwhile. It runs in a thread of its own, which takes
turns with the main thread (see `turns`): while an event of a trial is dealt with there Tune waits, so that a
trial that is stopped then does not begin another epoch.
"""

import logging
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from attnsweep.core.environment import with_variables
from attnsweep.core.trial import Trial
from attnsweep.engine import ray_private
from attnsweep.engine.cluster import NICENESS
from attnsweep.engine.engine import Event, Failed, Ready, Reported, Settings, Started, Tick, overdue
from attnsweep.engine.trainable import Worker
from attnsweep.engine.turns import Turns
from attnsweep.results import provenance

TICK_S = 1.0
PATIENCE_S = 2.0  # without a running trial, until it is asked what the others wait for
EXIT = "exit detail: "  # in what Ray says of a dead worker, before the cause
MOST_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
log = logging.getLogger("attnsweep")


class TuneEngine:
    """Trials on Ray Tune's workers: an `Engine`. A worker that dies is replaced.

    `waits_for` says what trials wait for that do not begin; `of_driver`, that workers have the environment of
    this process.
    """

    def __init__(
        self,
        settings: Settings,
        asked: Mapping[str, float],
        *,
        slots: int,
        waits_for: Callable[[], str] = lambda: "",
        of_driver: bool = False,
    ) -> None:
        self.settings, self.asked, self.slots, self.waits_for = settings, asked, slots, waits_for
        self.of_driver = of_driver
        self.most_ahead = min(settings.ahead, spare(slots))
        self.queue: deque[Trial] = deque()  # started by `start`, and not given to Tune yet
        self.given: dict[str, Trial] = {}  # to Tune, and not ended
        self.running: dict[str, tuple[TuneTrial, float]] = {}  # of these: Tune's record, and since when
        self.known: set[str] = set()
        self.suspects: set[str] = set()  # each of them runs alone
        self.began = 0  # how many trials have begun so far
        self.declined = False  # whether the last `Ready` was not answered, and nothing has happened since
        self.outbox: list[Event] = []  # what can wait for the next turn, which takes the threads some time
        self.quiet_since = self.ticked = time.monotonic()
        self.turns = Turns[list[Event]](self._run)

    def start(self, trial: Trial) -> None:
        """See `Engine`."""
        again = trial.trial_id in self.known
        self.known.add(trial.trial_id)
        (self.queue.appendleft if again else self.queue.append)(trial)

    def events(self) -> Iterator[Event]:
        """See `Engine`."""
        for batch in self.turns:
            yield from self.delivered(batch)

    def delivered(self, batch: list[Event]) -> Iterator[Event]:
        """Events that Tune's thread has handed over, and `Ready` where there is room after them."""
        for event in batch:
            self.declined &= isinstance(event, Started)
            yield event
        while not self.declined and not self._is_careful() and (ready := self._ready()):
            before = len(self.queue)
            yield ready
            self.declined = len(self.queue) == before

    def stop(self, trial: Trial) -> None:
        """See `Engine`. A trial whose report is being dealt with does not begin its next step, and its worker
        stays; the worker of any other is killed.
        """
        record, _ = self.running[trial.trial_id]
        reporting = self.reporting is record
        self._leave(trial)
        if not reporting and (worker := ray_private.worker_of(record)):
            import ray

            ray.kill(worker)

    # What Tune calls

    reporting: TuneTrial | None = None

    def next_trial(self) -> Trial | None:
        """The next trial for Tune, if there is room for one."""
        trial = self._next_suspect() if self._is_careful() else self._next()
        if trial:
            self.given[trial.trial_id] = trial
        return trial

    @property
    def is_finished(self) -> bool:
        return not self.given and not self.queue

    def on_start(self, record: TuneTrial) -> None:
        """A worker has taken a trial on."""
        if trial := self._ours(record):
            self.began += 1
            self.running[trial.trial_id] = (record, time.monotonic())
            self.outbox.append(Started(trial))

    def on_report(self, record: TuneTrial, result: Mapping[str, Any]) -> bool:
        """A trial has reported; returns whether it goes on."""
        trial = self._ours(record)
        if trial is None:  # it was stopped, and no worker could be killed
            return False
        report = result["event"].pop()  # Tune keeps the last result of every trial
        if "status" in report:
            self._leave(trial)
        self.reporting = record
        self._hand_over(Reported(trial, report))
        self.reporting = None
        return trial.trial_id in self.given

    def on_error(self, record: TuneTrial) -> None:
        """The worker of a trial has died."""
        if trial := self._ours(record):
            self._leave(trial)
            self._hand_over(Failed(trial, worker_death(record)))

    def on_step_end(self, records: list[TuneTrial]) -> None:
        """Tune has dealt with one event, or with none for a tenth of a second."""
        self.turns.check()
        ray_private.forget(records)
        self.slots = max(self.slots, len(self.running))  # more as nodes join
        now = time.monotonic()
        if self.running:
            self.quiet_since = now
        if now - self.ticked > TICK_S:
            self.ticked = now
            self._end_overdue(now)
            is_quiet = now - self.quiet_since > PATIENCE_S
            self._hand_over(Tick(self.waits_for() if is_quiet and self.given else None))

    # Inside

    def _hand_over(self, *events: Event) -> None:
        """Has events dealt with, after those that have waited for that."""
        batch, self.outbox = [*self.outbox, *events], []
        self.turns.hand_over(batch)

    def _ready(self) -> Ready | None:
        """Asks for a trial where a slot is free, else for one for a worker that may join, which waits. So a
        new trial is there as a worker becomes free, and Tune asks the cluster for none: asking for a worker
        and withdrawing the request costs as much as writing a row.
        """
        waiting = len(self.queue) + len(self.given) - len(self.running)
        free = self.slots - len(self.running)
        if waiting >= free + self.most_ahead:
            return None
        # at first the slots are filled; then those ahead wait, and a free slot is for the next in line
        return Ready(spare=not free if self.began else waiting >= free)

    def _next(self) -> Trial | None:
        """The next trial of the queue, which is filled first where it is empty."""
        if not self.queue and not self.declined and self._ready():
            self._hand_over()
        return self.queue.popleft() if self.queue else None

    def _is_careful(self) -> bool:
        """Whether a trial that may have ended the last call of Tune has not ended yet."""
        return any(trial.trial_id in self.suspects for trial in (*self.given.values(), *self.queue))

    def _next_suspect(self) -> Trial | None:
        """One suspect after another, each of them alone."""
        trial = next((one for one in self.queue if one.trial_id in self.suspects), None)
        if self.given or trial is None:
            return None
        self.queue.remove(trial)
        return trial

    def _ours(self, record: TuneTrial) -> Trial | None:
        """The trial of one of Tune's records, unless it has ended."""
        return self.given.get(trial_of(record).trial_id)

    def _leave(self, trial: Trial) -> None:
        del self.given[trial.trial_id]
        self.running.pop(trial.trial_id, None)

    def _end_overdue(self, now: float) -> None:
        """Ends trials that have taken too long, and with each its worker."""
        limit_s = self.settings.trial_timeout
        for trial_id, (_, since) in list(self.running.items()) if limit_s else ():
            if limit_s and now - since > limit_s:
                trial = self.given[trial_id]
                self.stop(trial)
                self._hand_over(Failed(trial, overdue(limit_s), final=True))

    def _run(self) -> None:
        """Calls Tune until no trial is left: a call ends before that where Ray kills a worker for memory."""
        while True:
            before = self.began
            try:
                self._call_tune()
            except Exception as error:
                if self.began == before:
                    raise
                self._break_down(why(error))
            else:
                if self.is_finished:
                    return
                raise RuntimeError(f"Ray Tune ended with {len(self.given)} trials not started")

    def _break_down(self, cause: str) -> None:
        """What was running goes on alone, one by one: one of them is to blame, the others are not."""
        log.warning("%s; what was running goes on one by one", cause)
        running = [trial for trial_id, trial in self.given.items() if trial_id in self.running]
        waiting = [trial for trial_id, trial in self.given.items() if trial_id not in self.running]
        self.given.clear()
        self.running.clear()
        self.queue.extendleft(reversed(waiting))
        self.suspects = {trial.trial_id for trial in running}
        for trial in reversed(running):
            self._hand_over(Failed(trial, cause))

    def _call_tune(self) -> None:
        """One call of Tune, which ends when `is_finished`."""
        most = self.slots + spare(self.slots)  # by default 200: each pending one costs every round
        workers = ray_private.workers_as_they_are(of_driver=self.of_driver)
        scratch_folder = tempfile.TemporaryDirectory(prefix="attnsweep-", ignore_cleanup_errors=True)
        pending = with_variables({MOST_PENDING: str(most)})
        with pending, scratch_folder as scratch, ray_private.remembered_classes(), workers:
            self._tune_run(scratch)

    def _tune_run(self, scratch: str) -> None:
        config = {
            "options": dict(self.settings.options),
            "asked": dict(self.asked),
            "trial_timeout": self.settings.trial_timeout,
            "niceness": NICENESS,
        }
        tune.run(  # and no Tuner, whose ResultGrid would hold every trial once more
            Worker,
            config=config,
            search_alg=Suggestions(self),
            num_samples=-1,  # until the suggestions end
            scheduler=LatestFirst(self),
            reuse_actors=True,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
            name="sweep",
            storage_path=scratch,
            verbose=0,
            callbacks=[Callbacks(self)],
            max_failures=0,
            raise_on_failed_trial=False,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        )


class Callbacks(tune.Callback):
    """Passes Tune's callbacks on."""

    def __init__(self, engine: TuneEngine) -> None:
        self.engine = engine

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks beside its own state; neither is needed again

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.engine.on_start(trial)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.engine.on_error(trial)

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        self.engine.on_step_end(trials)


class Suggestions(Searcher):
    """Gives Tune one trial after another."""

    def __init__(self, engine: TuneEngine) -> None:
        super().__init__()
        self.engine = engine

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of the next trial; None where Tune is to ask again later."""
        if trial := self.engine.next_trial():
            return {"trial": trial}
        return Searcher.FINISHED if self.engine.is_finished else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to do: the engine knows."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing to keep: what is done stands in the tables."""


class LatestFirst(FIFOScheduler):
    """Has trials stopped as the engine says, and gives a free worker the trial that came last, of those that
    wait.

    Tune has asked for a worker for each of the others, and would take that back: the one that it is starting,
    say, which with trials shorter than a start, as on a node that is slow to import torch, would never come
    up. A trial that a worker is taking on already is pending too; were it given, Tune would give any other
    instead.
    """

    def __init__(self, engine: TuneEngine) -> None:
        super().__init__()
        self.engine = engine

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        goes_on = self.engine.on_report(trial, result)
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """See `ray.tune.schedulers.TrialScheduler`."""
        trials = tune_controller.get_trials()
        if all(one.status == TuneTrial.PENDING for one in trials):
            return None  # at the beginning workers are asked for in the trials' order
        waiting = [one for one in trials if one.status == TuneTrial.PENDING]
        if not all(map(ray_private.sees_workers, waiting)):
            return super().choose_trial_to_run(tune_controller)
        return next((one for one in reversed(waiting) if not ray_private.worker_of(one)), None)


def worker_death(record: TuneTrial) -> str:
    """Why Tune gave a trial up, in one line."""
    lines = provenance.contents(Path(record.error_file or "/")).splitlines()
    causes = (line.strip() for line in reversed(lines) if "Error" in line or EXIT in line)
    _, _, cause = next(causes, "the process ended").rpartition(EXIT)
    return cause.partition(" Some common causes")[0][:300]


def spare(slots: int) -> int:
    """How many trials may wait beside those that have a slot, so that nodes that join find work."""
    return max(2, slots)


def why(error: BaseException) -> str:
    """Why a call of Tune broke down, in one line; Ray adds a page of advice where it killed for memory."""
    while not isinstance(error, OutOfMemoryError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, OutOfMemoryError):
        return "a node ran out of memory, and Ray killed a worker"
    return f"Ray Tune stopped ({next(iter(str(error).splitlines()), type(error).__name__)})"


def trial_of(record: TuneTrial) -> Trial:
    """Our trial in one of Tune's records."""
    trial: Trial = record.config["trial"]
    return trial


def name_of(record: TuneTrial) -> str:
    """The name that Tune's own files give a trial."""
    return trial_of(record).trial_id
