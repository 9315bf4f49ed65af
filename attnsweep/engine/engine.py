"""The interfaces between the code that decides about trials and the code that runs them.

An engine runs trials, on Ray Tune's workers or in this process, and reports on them as a stream of events.
The reader of the events (see `loop`) decides which trial runs next, which one is stopped early or tried
again, and what is recorded.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from attnsweep.core.deployment import Ask, Deployments
from attnsweep.core.trial import Trial
from attnsweep.results.store import Row


@dataclass(frozen=True)
class Ready:
    """There is room for another trial; with `spare`, for one that waits until a worker joins."""

    spare: bool = False


@dataclass(frozen=True)
class Started:
    """A trial begins, or goes on from its checkpoint."""

    trial: Trial


@dataclass(frozen=True)
class Reported:
    """A trial has trained an epoch or a part of one, or, if the report has a `status`, has ended."""

    trial: Trial
    report: Mapping[str, Any]  # an event of `training.trial.run`


@dataclass(frozen=True)
class Failed:
    """A trial's worker died or was killed; `final` where that would happen again."""

    trial: Trial
    error: str
    final: bool = False


@dataclass(frozen=True)
class Tick:
    """About a second has passed. If no trial runs, `waits_for` says why."""

    waits_for: str | None = None


Event = Ready | Started | Reported | Failed | Tick


class Engine(Protocol):
    """What runs trials."""

    def start(self, trial: Trial) -> None:
        """Runs a trial as soon as there is room; one that was started before comes first."""

    def events(self) -> Iterator[Event]:
        """Yields events as they happen. Ends when no trial is left and none was started at the last
        `Ready`.
        """

    def stop(self, trial: Trial) -> None:
        """Ends a trial, whatever it is doing. No further event of it follows."""


class TrialSource(Protocol):
    """Where trials come from."""

    @property
    def ahead(self) -> float:
        """How many may be taken before a worker is free."""

    def take(self, *, last: bool) -> Trial | None:
        """The next trial, or the `last` of the known ones; None where there is none now."""

    def ended(self, trial: Trial, status: str, row: Row) -> None:
        """To be called when a trial has ended."""


class Queue:
    """A source of trials that are all known in advance."""

    ahead = math.inf

    def __init__(self, trials: Iterable[Trial]) -> None:
        self.waiting = deque(trials)

    def take(self, *, last: bool) -> Trial | None:
        if not self.waiting:
            return None
        return self.waiting.pop() if last else self.waiting.popleft()

    def ended(self, trial: Trial, status: str, row: Row) -> None: ...


@dataclass(frozen=True)
class MachineInfo:
    """A machine: its name for each number of threads (the column `measured_on`), for each runtime the
    versions of its packages or why it is missing, and its cores.
    """

    measured_on: Mapping[int, str]
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    cores: int


class Bench(Protocol):
    """A kind of device that latency is measured on: one machine, or several that are alike."""

    @property
    def machine(self) -> MachineInfo:
        """Its machines, all alike."""

    def measure(self, asks: Sequence[Ask]) -> "Iterator[Measured]":
        """Answers the asks as they are measured, in any order; not those whose machines were lost."""


@dataclass(frozen=True)
class Measured:
    """The answer to an ask: a row of `latency` or `references`, or an error; and what disturbed the
    machine.
    """

    ask: Ask
    row: Row | None
    error: str = ""
    disturbed_by: str = ""


@dataclass(frozen=True)
class Settings:
    """How the trials of a sweep run: arguments of `training.trial.Options`, and their limit in seconds."""

    options: Mapping[str, Any]
    trial_timeout: float | None = None
    ahead: float = math.inf  # how many trials may be taken from their source before there is room


class Backend(Protocol):
    """Where a command works: this process, or a Ray cluster."""

    def request(self, resources: Mapping[str, float] | None) -> dict[str, float]:
        """The resources of one trial, `cpu` and `gpu` included. Raises UserError where there are too few."""

    def slots(self, asked: Mapping[str, float]) -> int:
        """How many trials with these resources run side by side."""

    def engine(self, settings: Settings, asked: Mapping[str, float]) -> Engine:
        """The engine that runs the trials."""

    def workers(self) -> Executor:
        """The executor that prepares data."""

    def waiting(self) -> str:
        """What pending tasks may be waiting for, as a clause; empty where there is room."""

    def benches(self, asked: Deployments, *, gpus: bool) -> Sequence[Bench]:
        """The kinds of devices for measuring latency; those with GPUs come first."""


def overdue(limit_s: float) -> str:
    """The error of a trial that took too long."""
    return f"it took longer than trial_timeout={limit_s:g} s; the same command tries it again"


Report = Callable[[str], None]
WaitReport = Callable[[str | None], None]  # what is waited for, None where nothing is any more
