"""Everything in this process, without Ray: trials one after another, so that a debugger stops in a model's
forward pass, and sweeps run where Ray does not.

Only latency is measured elsewhere, in processes of its own, as it is on a cluster: what this process has
loaded and computed before would play a part.
"""

import concurrent.futures
import contextlib
import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from attnsweep.core import collection
from attnsweep.core.deployment import Ask, Deployments
from attnsweep.core.errors import UserError
from attnsweep.core.machine import cores
from attnsweep.core.trial import Trial
from attnsweep.engine import meters
from attnsweep.engine.engine import (
    Bench,
    Engine,
    Event,
    Failed,
    MachineInfo,
    Measured,
    Ready,
    Reported,
    Settings,
    Started,
    overdue,
)  # fmt: skip
from attnsweep.engine.presence import at_work

UNHEARD = 10  # alarms, until it is said that nothing hears them
STUCK = (
    "a trial has taken longer than trial_timeout= and computes in code that nothing interrupts in this "
    "process; end the command (kill -9), or run it without --serial, where its worker is ended"
)
ASK_AGAIN_S = 1.0  # a model that catches everything is interrupted again
T = TypeVar("T")
log = logging.getLogger("attnsweep")


class ThisProcess:
    """This process as a `Backend`."""

    def request(self, resources: Mapping[str, float] | None) -> dict[str, float]:
        """What a trial takes: CPUs say on how many threads it computes; there is a GPU or there is none."""
        asked = {"cpu": 1.0, "gpu": 1.0, **(resources or {})}
        if asked["gpu"] and not has_gpu():
            asked["gpu"] = 0
        if asked["cpu"] > (most := cores()):
            raise UserError(f"resources: cpu={asked['cpu']:g} is more than this machine has ({most})")
        return asked

    def slots(self, asked: Mapping[str, float]) -> int:
        return 1

    def engine(self, settings: Settings, asked: Mapping[str, float]) -> Engine:
        return SerialEngine(settings)

    def workers(self) -> concurrent.futures.Executor:
        return InProcess()

    def waiting(self) -> str:
        return ""

    def benches(self, asked: Deployments, *, gpus: bool) -> Sequence[Bench]:
        return [ThisMachine(meters.describe(float(gpus), asked.threads, asked.runtime), float(gpus))]


def has_gpu() -> bool:
    """Whether torch computes on a GPU here."""
    from attnsweep.measuring.device import pick_device

    return pick_device(1) != "cpu"


class SerialEngine:
    """Trials one after another in this process: an `Engine`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.queue: deque[Trial] = deque()
        self.stopped: set[str] = set()

    def start(self, trial: Trial) -> None:
        """See `Engine`."""
        self.queue.appendleft(trial)

    def stop(self, trial: Trial) -> None:
        """See `Engine`: it can only be called while the trial waits for its event to be dealt with."""
        self.stopped.add(trial.trial_id)

    def events(self) -> Iterator[Event]:
        """See `Engine`."""
        presence = at_work()
        try:
            while True:
                if not self.queue:
                    yield Ready()
                if not self.queue:
                    return
                yield from self._run(self.queue.popleft())
        finally:
            if presence:
                presence.close()

    def _run(self, trial: Trial) -> Iterator[Event]:
        with collection.paused():
            from attnsweep.training.trial import Options, run

        yield Started(trial)
        limit = Limit(self.settings.trial_timeout)
        with few_threads(self.settings.options["cpu"]):
            reports = run(trial, Options(**self.settings.options))
            try:
                while report := limit.call(lambda: next(reports, None)):
                    yield Reported(trial, report)
                    if trial.trial_id in self.stopped:
                        reports.close()  # type: ignore[attr-defined]
                        return
            except Overdue:
                yield Failed(trial, overdue(limit.seconds), final=True)


class Overdue(BaseException):
    """A trial has taken too long. No Exception: the trial would take it for a failure of its own."""


class Limit:
    """The time that a trial has. It cannot be told from time in a debugger, so there it does not pass.

    A trial is interrupted as soon as Python runs: not inside a call of C code. In another thread than the
    main one nothing can be interrupted; there the time is looked at between two calls.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds or 0.0
        self.until = time.monotonic() + self.seconds

    def call(self, function: Callable[[], T]) -> T:
        """The function's result. Raises Overdue once the time is over."""
        if not self.seconds or sys.gettrace():
            return function()
        left = self.until - time.monotonic()
        if left <= 0:
            raise Overdue
        if threading.current_thread() is not threading.main_thread():
            return function()
        with alarm(left):
            return function()


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises Overdue in the block after so many seconds, and then again and again. The alarms of whoever else
    uses SIGALRM go off as ever.
    """
    me, over, ringing = threading.get_ident(), threading.Event(), threading.Event()

    def ring() -> None:
        """In another thread: sends the alarm again and again until the block is left."""
        wait_s, times = seconds, 0
        while not over.wait(wait_s):
            ringing.set()
            signal.pthread_kill(me, signal.SIGALRM)
            wait_s, times = ASK_AGAIN_S, times + 1
            if times == UNHEARD:
                log.warning(STUCK)

    def hear(number: int, frame: Any) -> None:
        if ringing.is_set() and not over.is_set():
            raise Overdue
        if callable(before):
            before(number, frame)

    before = signal.signal(signal.SIGALRM, hear)
    clock = threading.Thread(target=ring, daemon=True)
    clock.start()
    try:
        yield
    finally:
        over.set()
        clock.join()
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def few_threads(cpu: float) -> Iterator[None]:
    """The libraries of this process compute on as many threads as trials have CPUs, and afterwards on as many
    as before.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before, threads = torch.get_num_threads(), max(1, int(cpu))
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class InProcess(concurrent.futures.Executor):
    """Runs what is submitted at once, in this thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """See `concurrent.futures.Executor.submit`: runs the function here and now."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


@dataclass(frozen=True)
class ThisMachine:
    """This machine as a `Bench`."""

    machine: MachineInfo
    gpus: float

    def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
        """See `Bench`."""
        return meters.measure_here(asks, self.gpus, self.machine.cores)
