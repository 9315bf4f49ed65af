"""Ray Tune: spreads trials over the cluster's workers, and hands what comes back to a recorder.

A worker is an actor that is reused from trial to trial, so torch is imported and a data set read once per
worker, and a trial costs Tune some milliseconds. Tune's own loggers, checkpoints and restoring are off: rows
and checkpoints are ours.
"""

import contextlib
import functools
import logging
import math
import os
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.registry import _global_registry as registry
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from attnsweep.core.trial import Trial
from attnsweep.engine.cluster import ray_name
from attnsweep.results.store import Row
from attnsweep.tasks.registry import AXES

BLANK = TuneTrial("", stub=True).run_metadata
NICENESS = 15  # of training, as Ray has it: the driver goes first, and whoever works on this machine
LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
MOST_STARTS = 3  # of a trial in one command, where its worker dies every time
log = logging.getLogger("attnsweep")


class Worker(tune.Trainable):
    """Runs one trial after another; a step is one event of attnsweep.training.trial.run."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """One bundle with what the sweep asks for one trial."""
        return bundle(tuple(config["asked"].items()))

    def setup(self, config: dict[str, Any]) -> None:
        limit_threads(config["options"]["cpu"])
        self.reset_config(config)
        os.nice(max(0, NICENESS - os.nice(0)))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another trial in this process; True tells Tune that no new actor is needed."""
        from attnsweep.training import trial  # here, in the worker: the driver has no need of torch

        options = trial.Options(**new_config["options"])
        self.events: Iterator[dict[str, Any]] = trial.run(new_config["trial"], options)
        return True

    def step(self) -> dict[str, Any]:
        event = next(self.events)
        seen: dict[str, Any] = {key: event[key] for key in ("epoch", "quality") if key in event}
        # a list hides the numbers from Tune, which would keep statistics of each: 20 MB per 100 trials
        return {"event": [event], "done": "status" in event, **seen}


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


class Source(Protocol):
    """Where trials come from."""

    @property
    def ahead(self) -> float:
        """How many may be taken before a worker is free."""

    def take(self, *, last: bool) -> Trial | None:
        """The next trial, or the last of those that are known; None where there is none now."""

    @property
    def exhausted(self) -> bool:
        """Whether there is none ever again."""

    def ended(self, trial: Trial, status: str, row: Row) -> None:
        """Hears how a trial ended."""


class Queue:
    """A source of trials that are known beforehand."""

    ahead = math.inf

    def __init__(self, trials: Iterable[Trial]) -> None:
        self.waiting = deque(trials)

    def take(self, *, last: bool) -> Trial | None:
        if not self.waiting:
            return None
        return self.waiting.pop() if last else self.waiting.popleft()

    @property
    def exhausted(self) -> bool:
        return not self.waiting

    def ended(self, trial: Trial, status: str, row: Row) -> None: ...


class Record(Protocol):
    """Who is told what happens to trials."""

    def started(self, trial: Trial) -> None: ...

    def told(self, trial: Trial, event: Mapping[str, Any]) -> None: ...

    def ended(self, trial: Trial, status: str, row: Row) -> None: ...


class Messenger(tune.Callback):
    """Passes Tune's callbacks on, and keeps what was begun and has not ended."""

    def __init__(self, source: Source, record: Record, *, slots: int) -> None:
        self.source, self.record, self.slots = source, record, slots
        self.ahead, self.running = min(source.ahead, spare(slots)), 0
        self.left: dict[str, Trial] = {}
        self.starts: Counter[str] = Counter()
        self.rows: dict[str, Row] = {}  # of running trials, as far as they have come
        self.error: Exception | None = None  # raised by the record, say by a full disk

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks beside its own state; neither is needed again

    def take(self) -> Trial | None:
        """The next trial of the source where a slot is free. Else one of its last, which asks the cluster for
        a worker that may join, and waits. So there is a new trial as a worker becomes free, and it asks for
        none: a request, taken back, costs as much as a row. None where enough wait.
        """
        waiting, free = len(self.left) - self.running, self.slots - self.running
        if waiting >= free + self.ahead:
            return None
        # at first the slots are filled; then those ahead wait, and a free slot is for the next in line
        last = not free if self.starts else waiting >= free
        if trial := self._call(self.source.take, last=last):
            self.left[trial.trial_id] = trial
        return trial

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

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Tune has given a trial up."""
        if ours := self._ours(trial):
            error = worker_death(trial, self.starts[ours.trial_id])
            self._end(ours, "failed", {"error": error})

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        forget(trials)
        self.running = sum(one.status == TuneTrial.RUNNING for one in trials)
        self.slots = max(self.slots, self.running)  # more as nodes join

    def give_up(self) -> None:
        """Ends trials that were started too often."""
        for trial_id, trial in list(self.left.items()):
            if self.starts[trial_id] >= MOST_STARTS:
                self._end(
                    trial, "failed", {"error": f"its worker died {MOST_STARTS} times; was the memory enough?"}
                )

    def _ours(self, trial: TuneTrial) -> Trial | None:
        """The trial, unless it has ended."""
        return self.left.get(trial_of(trial).trial_id)

    def _end(self, trial: Trial, status: str, extra: Row) -> None:
        row = {**self.rows.pop(trial.trial_id, trial.row()), **extra}
        self._call(self.record.ended, trial, status, row)
        self._call(self.source.ended, trial, status, row)
        del self.left[trial.trial_id]

    def _call(self, told: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return told(*args, **options)
        except Exception as error:  # Tune wraps what its callbacks raise; this is the original
            self.error = error
            raise


class Feed(Searcher):
    """Gives Tune one trial after another, those that an earlier call of Tune has left first. After a call
    that broke down these are what was under way, each of them `alone`: one is to blame, the others are not.
    """

    def __init__(self, messenger: Messenger, *, alone: bool = False) -> None:
        super().__init__()
        left = [one for one in messenger.left.values() if not alone or messenger.starts[one.trial_id]]
        self.messenger, self.again, self.alone, self.given = messenger, deque(left), alone, ""
        messenger.running = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The configuration of the next trial; None where Tune is to ask again later."""
        if self.alone and self.given in self.messenger.left:
            return None
        trial = self.again.popleft() if self.again else None if self.alone else self.messenger.take()
        if trial:
            self.given = trial.trial_id
            return {"trial": trial}
        return Searcher.FINISHED if self.alone or self.messenger.source.exhausted else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing to do: the messenger knows."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing to keep: what is done stands in the tables."""


def forget(trials: list[TuneTrial]) -> None:
    """Empties Tune's records of trials that have ended: it keeps them all, and turns them into JSON at its
    end, some 20 kB each.

    Tune goes on with the very list that it passes to its callbacks, and cannot do without a last trial in it.
    """
    for trial in [one for one in trials[:-1] if one.is_finished()]:
        trials.remove(trial)
        trial.config, trial.evaluated_params, trial.run_metadata = {}, {}, BLANK
        trial.storage, trial.experiment_tag = None, ""
        for private in {"_Trial__unresolved_config", "_state_json"} & vars(trial).keys():
            setattr(trial, private, "")


def worker_death(trial: TuneTrial, starts: int) -> str:
    """Why Tune gave a trial up, in one line."""
    lines = str(trial.get_error() or "").splitlines()
    causes = (line.strip() for line in reversed(lines) if "Error" in line or "exit detail" in line)
    return f"its worker failed, at {starts} starts: {next(causes, 'the process ended')[:300]}"


class Patient(FIFOScheduler):
    """Gives a free worker the trial that came last, of those that wait.

    Tune has asked for a worker for each of the others, and would take that back: the one that it is starting,
    say, which with trials shorter than a start, as on a node that is slow to import torch, would never come
    up. A trial that a worker is taking on already is pending too; were it given, Tune would give any other
    instead.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        trials = tune_controller.get_trials()
        if all(one.status == TuneTrial.PENDING for one in trials):
            return None  # at the beginning workers are asked for in the trials' order
        return next((one for one in reversed(trials) if waits(one)), None)


def waits(trial: TuneTrial) -> bool:
    """Whether Tune has given the trial no worker yet."""
    return bool(trial.status == TuneTrial.PENDING and not trial.temporary_state.ray_actor)


class GroupedASHA(Patient):
    """Asynchronous successive halving (https://arxiv.org/abs/1810.05934) among trials of one model and data
    set only.

    Between architectures of different size it would be unfair: the larger ones learn later.
    """

    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[tuple[str, str], ASHAScheduler] = {}

    def _group(self, trial: TuneTrial) -> ASHAScheduler:
        config = trial_of(trial).config
        key = config["model"], config["dataset"]
        if key not in self.groups:
            self.groups[key] = ASHAScheduler(
                time_attr="epoch", metric="quality", mode="max", max_t=int(AXES["epochs"].high)
            )
        return self.groups[key]

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        self._group(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        if "quality" not in result:  # mere progress, or the end
            return TrialScheduler.CONTINUE
        return self._group(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        if "quality" in result:
            self._group(trial).on_trial_complete(tune_controller, trial, result)


def spread(
    source: Source,
    record: Record,
    *,
    options: Mapping[str, Any],
    asked: Mapping[str, float],
    slots: int,
    scheduler: str | None,
) -> None:
    """Runs the trials of a source to their ends. A worker that dies is replaced; what it was at starts again,
    `MOST_STARTS` times at most.

    Raises what the record raises, and KeyboardInterrupt.
    """
    most = slots + spare(slots)  # by default 200: each pending one costs every round
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(most)
    messenger, alone = Messenger(source, record, slots=slots), False
    while messenger.left or not source.exhausted:
        before = messenger.starts.total()
        try:
            feed, alone = Feed(messenger, alone=alone), False
            fit(messenger, feed, options=options, asked=asked, scheduler=scheduler)
        except Exception as error:  # Tune's whole fit ends where Ray kills one worker for memory
            if messenger.error:
                raise messenger.error from None
            if messenger.starts.total() == before:
                raise
            alone = True
            log.warning("%s; what was running goes on one by one", why(error))
        if messenger.starts.total() == before and (messenger.left or not source.exhausted):
            raise RuntimeError(f"Ray Tune ended with {len(messenger.left)} trials not started")
        messenger.give_up()


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


def fit(
    messenger: Messenger,
    feed: Feed,
    *,
    options: Mapping[str, Any],
    asked: Mapping[str, float],
    scheduler: str | None,
) -> None:
    """One call of Tune."""
    scratch_folder = tempfile.TemporaryDirectory(prefix="attnsweep-", ignore_cleanup_errors=True)
    with scratch_folder as scratch, remembered_classes():
        tune.run(  # and no Tuner, whose ResultGrid would hold every trial once more
            Worker,
            config={"options": dict(options), "asked": dict(asked)},
            search_alg=feed,
            num_samples=-1,  # until the feed ends
            scheduler=GroupedASHA() if scheduler == "asha" else Patient(),
            reuse_actors=True,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
            name="sweep",
            storage_path=scratch,
            verbose=0,
            callbacks=[messenger],
            max_failures=MOST_STARTS - 1,
            raise_on_failed_trial=False,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        )


@contextlib.contextmanager
def remembered_classes() -> Iterator[None]:
    """Has Tune remember the class that it trains by, for which it asks the cluster's head five times per
    trial: 3 ms in which the driver does nothing else.
    """
    ask, has = registry.get, registry.contains
    known: dict[tuple[str, str], Any] = {}

    def get(category: str, key: str) -> Any:
        if (category, key) not in known:
            known[category, key] = ask(category, key)
        return known[category, key]

    def contains(category: str, key: str) -> bool:
        return (category, key) in known or has(category, key)

    vars(registry).update(get=get, contains=contains)  # these go before the methods of its class
    try:
        yield
    finally:
        for name in ("get", "contains"):
            del vars(registry)[name]


def trial_of(trial: TuneTrial) -> Trial:
    """Our trial in one of Tune's."""
    ours: Trial = trial.config["trial"]
    return ours


def name_of(trial: TuneTrial) -> str:
    """The name that Tune's own files give a trial."""
    return trial_of(trial).trial_id
