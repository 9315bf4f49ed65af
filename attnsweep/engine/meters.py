"""Measuring on one machine: processes that stay, share the work, and have the machine to themselves."""

import contextlib
import math
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

from attnsweep.core.child_process import environment_with_package
from attnsweep.core.deployment import Ask, Deployments
from attnsweep.core.machine import cores
from attnsweep.engine import presence
from attnsweep.engine.engine import MachineInfo, Measured
from attnsweep.results import provenance

SHARE = 2  # cores for each thread that measures: on all of them measurements disturb one another
PATIENCE_S = 10.0  # for other sweeps on the machine to end, and for the workers of this one
LIMIT_S, COMPILE_LIMIT_S = 120.0, 600.0  # of one pass of a measurement; of one that calls a compiler
END_S = 5.0  # that a process that is told to end has for it
TURNS, COMPILED_TURNS = 12, 2  # how many are measured in turns, so that the passes of each lie apart
MEASURING = """from attnsweep.core import collection
with collection.paused():
    from attnsweep.engine import measuring_process
measuring_process.main()"""
APART_S = 4.0  # at least, as long as some neighbours last


class Meter:
    """A process that measures, one architecture after another (see `measuring_process`). A context."""

    def __init__(self, gpus: float = 0, apart_s: float | None = None) -> None:
        self.gpus, self.apart_s = gpus, APART_S if apart_s is None else apart_s
        self.messages: IO[bytes] = tempfile.TemporaryFile()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.messages.close()  # first, so that a thread that measures starts no other process
        self.close()

    def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
        """The answers, as they come: rows of `latency` or of `references`. Where the process cannot be
        started, or ends, what has no answer yet has an error.
        """
        left = dict(enumerate(asks))
        try:
            process = self.process = self.process or self.started()
            assert process.stdin and process.stdout
            pickle.dump((asks, self.gpus, max(map(limit_s, asks)), self.apart_s), process.stdin)
            process.stdin.flush()
            while left:
                i, row = pickle.load(process.stdout)  # of our own process
                yield Measured(left.pop(i), row)
        except (EOFError, OSError, pickle.UnpicklingError):
            self.close()
            error = self.last_words() or "its process ended"
            yield from (Measured(ask, None, error=error) for ask in left.values())

    def started(self) -> "subprocess.Popen[bytes]":
        """The process; it ends when its input does."""
        return subprocess.Popen(
            [sys.executable, "-P", "-c", MEASURING],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.messages,
            env=environment_with_package(),
        )  # fmt: skip

    def last_words(self) -> str:
        """The last line that the process wrote."""
        self.messages.seek(0)
        lines = self.messages.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Ends the process, whatever it is doing: by itself, with what it has started, if it can."""
        process, self.process = self.process, None  # another thread may close it, too
        if process is None:
            return
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close() if pipe else None


@dataclass(frozen=True)
class BesideTraining:
    """This machine as a `Bench`, one measurement after another, while trials train on it: ratios to a
    reference hold there, too.
    """

    machine: MachineInfo
    meter: Meter

    def measure(self, asks: Sequence[Ask]) -> Iterator[Measured]:
        """See `Bench`."""
        for some in windows(asks):
            yield from self.meter.measure(some)


@contextlib.contextmanager
def beside_training(asked: Deployments, gpus: float) -> Iterator[BesideTraining]:
    """This machine, for measuring while trials train."""
    with Meter(gpus, apart_s=0.0) as meter:  # trials wait for what is measured one by one
        yield BesideTraining(describe(gpus, asked.threads, asked.runtime), meter)


def describe(gpus: float, threads: Sequence[int], runtimes: Sequence[str]) -> MachineInfo:
    """What this machine calls itself, and which versions it has."""
    from attnsweep.core.runtimes import Unavailable, versions_of

    device = "cpu"
    if gpus or sys.platform == "darwin":  # elsewhere without the seconds that torch takes to import
        from attnsweep.measuring.device import pick_device

        device = pick_device(gpus)
    versions, missing = {}, {}
    for runtime in ("eager", *runtimes):
        try:
            versions[runtime] = versions_of(runtime)
        except Unavailable as error:
            missing[runtime] = str(error)
    names = {number: provenance.device_name(device, number) for number in threads}
    return MachineInfo(names, versions, missing, cores=cores())


def measure_here(asks: Sequence[Ask], gpus: float, cpus: int) -> Iterator[Measured]:
    """Measures on this machine, side by side as far as its CPUs go, each answer as it comes; no sweep trains
    here meanwhile that lets others measure.
    """
    with presence.alone(PATIENCE_S) as is_alone:
        disturbed_by = presence.other_work() if is_alone else "another sweep trains or measures there"
        for threads in sorted({ask.deployment.threads for ask in asks}):
            these = [ask for ask in asks if ask.deployment.threads == threads]
            side_by_side = 1 if gpus else max(1, min(cpus // (SHARE * threads), len(these)))
            for measured in shared_out(these, gpus, side_by_side):
                yield replace(measured, disturbed_by=disturbed_by)


def shared_out(asks: Sequence[Ask], gpus: float, workers: int) -> Iterator[Measured]:
    """The answers of so many processes, each of which takes the next ask when it has done with one."""
    waiting: queue.SimpleQueue[Sequence[Ask]] = queue.SimpleQueue()
    answers: queue.SimpleQueue[Measured] = queue.SimpleQueue()
    for some in windows(asks, shared_by=workers):
        waiting.put(some)
    with contextlib.ExitStack() as stack:
        for _ in range(workers):
            meter = stack.enter_context(Meter(gpus))
            threading.Thread(target=work, args=(meter, waiting, answers), daemon=True).start()
        for _ in asks:
            yield answers.get()


def work(
    meter: Meter, waiting: "queue.SimpleQueue[Sequence[Ask]]", answers: "queue.SimpleQueue[Measured]"
) -> None:
    """Measures what waits until nothing does."""
    while True:
        try:
            asks = waiting.get_nowait()
        except queue.Empty:
            return
        left = list(asks)
        try:
            for measured in meter.measure(asks):
                left.remove(measured.ask)
                answers.put(measured)
        except Exception as error:
            for ask in left:
                answers.put(Measured(ask, None, error=str(error) or type(error).__name__))


def windows(asks: Sequence[Ask], shared_by: int = 1) -> list[Sequence[Ask]]:
    """The asks in parts, each of which is measured in turns by one process, of so many that share them. What
    calls a compiler comes last, and keeps nothing else waiting.
    """
    parts = list[Sequence[Ask]]()
    for compiled, most in ((False, TURNS), (True, COMPILED_TURNS)):
        some = [ask for ask in asks if is_compiled(ask) is compiled]
        size = max(1, min(most, math.ceil(len(some) / shared_by)))
        parts += [some[start : start + size] for start in range(0, len(some), size)]
    return parts


def is_compiled(ask: Ask) -> bool:
    """Whether a compiler is called to measure it."""
    return ask.deployment.runtime == "compile"


def limit_s(ask: Ask) -> float:
    """How long one pass over it may take."""
    return COMPILE_LIMIT_S if is_compiled(ask) else LIMIT_S
