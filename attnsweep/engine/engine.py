"""The door between what decides about trials and what runs them.

An engine runs trials, on Ray Tune's workers or in this process, and reports what happens to them as a stream
of events. Which trial runs next, whether one is stopped early or tried again, and what is written down, is
decided by whoever reads the events (see `loop`).
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
    """There is room for another trial; with `spare` for one that waits until a worker joins."""

    spare: bool = False


@dataclass(frozen=True)
class Started:
    """A trial begins, or begins again, from its checkpoint where it has one."""

    trial: Trial


@dataclass(frozen=True)
class Reported:
    """A trial has trained an epoch or a part of one, or has ended: then the report has a `status`."""

    trial: Trial
    report: Mapping[str, Any]  # an event of `training.trial.run`


@dataclass(frozen=True)
class Failed:
    """A trial no longer runs, because its worker died or was ended; `final` where it would happen again."""

    trial: Trial
    error: str
    final: bool = False


@dataclass(frozen=True)
class Tick:
    """About a second has passed; `waits_for` is what trials wait for, where none runs."""

    waits_for: str | None = None


Event = Ready | Started | Reported | Failed | Tick


class Engine(Protocol):
    """What runs trials."""

    def start(self, trial: Trial) -> None:
        """Has a trial run as soon as there is room; one that was started before comes first."""

    def events(self) -> Iterator[Event]:
        """What happens to the trials, as it happens. Ends when none is left and, at the last `Ready`, none
        was started.
        """

    def stop(self, trial: Trial) -> None:
        """Ends a trial, whatever it is doing. No event of it follows."""


class TrialSource(Protocol):
    """Where trials come from."""

    @property
    def ahead(self) -> float:
        """How many may be taken before a worker is free."""

    def take(self, *, last: bool) -> Trial | None:
        """The next trial, or the last of those that are known; None where there is none now."""

    def ended(self, trial: Trial, status: str, row: Row) -> None:
        """Learns how a trial ended."""


class Queue:
    """A source of trials that are known beforehand."""

    ahead = math.inf

    def __init__(self, trials: Iterable[Trial]) -> None:
        self.waiting = deque(trials)

    def take(self, *, last: bool) -> Trial | None:
        if not self.waiting:
            return None
        return self.waiting.pop() if last else self.waiting.popleft()

    def ended(self, trial: Trial, status: str, row: Row) -> None: ...


@dataclass(frozen=True)
class Described:
    """What a machine calls itself by the number of threads, as in the column `measured_on`; by runtime the
    versions of its packages, and why those that it lacks are missing; and its cores.
    """

    measured_on: Mapping[int, str]
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    cores: int


class Bench(Protocol):
    """A kind of device that latency is measured on: one machine, or several that are alike."""

    @property
    def described(self) -> Described:
        """What its machines say of themselves."""

    def measure(self, asks: Sequence[Ask]) -> "Iterator[Measured]":
        """An answer to each ask, as they come, in any order; none to those whose machines were lost."""


@dataclass(frozen=True)
class Measured:
    """An answer: the row, of `latency` or of `references`, or why there is none; and what else ran on the
    machine meanwhile.
    """

    ask: Ask
    row: Row | None
    error: str = ""
    disturbed_by: str = ""


class Unmeasurable(RuntimeError):
    """Something could not be measured on a device; the message is why."""


@dataclass(frozen=True)
class Settings:
    """How the trials of a sweep run: what `training.trial.Options` is made of, and their limit in seconds."""

    options: Mapping[str, Any]
    trial_timeout: float | None = None
    ahead: float = math.inf  # trials that may be taken from their source before there is room for them


class Backend(Protocol):
    """Where a command works: this process, or a Ray cluster."""

    def request(self, resources: Mapping[str, float] | None) -> dict[str, float]:
        """What one trial takes, `cpu` and `gpu` included. Raises UserError where there is not that much."""

    def slots(self, asked: Mapping[str, float]) -> int:
        """How many such trials run side by side."""

    def engine(self, settings: Settings, asked: Mapping[str, float]) -> Engine:
        """What runs the trials."""

    def workers(self) -> Executor:
        """What prepares data."""

    def waiting(self) -> str:
        """What tasks that do not begin may be waiting for, as a clause; empty where there is room."""

    def benches(self, asked: Deployments, *, gpus: bool) -> Sequence[Bench]:
        """The kinds of devices for measuring latency; those with GPUs come first."""


def overdue(limit_s: float) -> str:
    """Why a trial was ended that took too long."""
    return f"it took longer than trial_timeout={limit_s:g} s; the same command tries it again"


Report = Callable[[str], None]
WaitReport = Callable[[str | None], None]  # what is waited for, None where nothing is any more
