"""A process that measures, for `meters.Meter`: it imports once and measures each architecture in a fork.

So each starts from the same state, its memory is its own, one that crashes takes nothing with it, and one
that hangs can be ended. The forks of one request take turns, pass by pass, so that the passes of each lie
some seconds apart. On a GPU nothing is forked: a driver's context does not survive that.

A terminal's Ctrl-C reaches this process and not its forks, so that it leaves that to the process that started
it, and ends at SIGTERM or when that process is gone, with all that its forks have started.

It reads pickled (asks, GPUs, the longest that a pass may take and the least time between two, in seconds)
from standard input, and answers each ask on standard output with its index and its row, its times in units of
its reference, pickled, as they come.
"""

import contextlib
import gc
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import IO, ClassVar

import torch

from attnsweep.core.child_process import name_of
from attnsweep.core.deployment import Ask, Weights
from attnsweep.core.errors import reason
from attnsweep.measuring import measure
from attnsweep.measuring.device import pick_device
from attnsweep.measuring.runtimes import Unavailable, preload
from attnsweep.measuring.runtimes.quantised import accuracy
from attnsweep.results.store import Row
from attnsweep.tasks.registry import build, procedure
from attnsweep.training.checkpoint import weights_path
from attnsweep.training.trained import fill

PARENT = os.getppid()
LOOK_S = 1.0  # how often it is looked whether somebody still waits
GRACE_S = 5.0  # after which a fork that takes too long ends itself: its parent is gone
MOST_MB = 700  # of a fork that waits for its turn, the interpreter included; a larger one takes all its turns
JUDGE_S = 3600.0  # that judging in int8 may take: it answers all images of two parts


class Ended(Exception):
    """A fork that ended, or was ended, before it answered; says how."""


def main() -> None:
    """Answers until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a model prints is no answer
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    while (request := next_of(requests)) is not None:
        asks, gpus, limit_s, apart_s = request
        for ask in asks:
            with contextlib.suppress(Unavailable):  # the measurement says so
                preload(ask.deployment.runtime)
        gc.collect()
        gc.freeze()  # or each fork would look through all that was imported, a fifth of a second each time
        found = enumerate(whole(ask, gpus) for ask in asks) if gpus else in_turns(asks, limit_s, apart_s)
        for answer in found:
            pickle.dump(answer, answers)
            answers.flush()


Request = tuple[Sequence[Ask], float, float, float]


def next_of(requests: IO[bytes]) -> Request | None:
    """The next request; None at the end."""
    try:
        request: Request = pickle.load(requests)  # of the process that started this one
        return request
    except EOFError:
        return None


def in_turns(asks: Sequence[Ask], limit_s: float, apart_s: float) -> Iterator[tuple[int, Row]]:
    """The index and the row of each ask, measured in forks that take turns: a pass of each, then another. Two
    passes of one are `apart_s` seconds apart or more.
    """
    waiting: dict[int, Fork] = {}
    with contextlib.ExitStack() as stack:
        for i, ask in enumerate(asks):
            waiting[i] = stack.enter_context(Fork(ask))
            if (row := waiting[i].turn(limit_s)) or waiting[i].is_large:
                row = row or waiting[i].all_turns(limit_s)
                waiting.pop(i).end()  # before the answer, after which nobody may wait for this process
                yield i, row
        while waiting:
            for i, fork in list(waiting.items()):
                time.sleep(max(0.0, fork.ended_at + apart_s - time.monotonic()))
                if row := fork.turn(limit_s):
                    waiting.pop(i).end()
                    yield i, row


class Fork:
    """A child process that measures one ask, one pass when it is told to. A context, which ends it."""

    alive: ClassVar[set["Fork"]] = set()

    def __init__(self, ask: Ask) -> None:
        self.ask, self.is_large, self.ended_at, self.is_last_try = ask, False, 0.0, False
        self.begin()

    def begin(self) -> None:
        """Starts the child."""
        self.connection, theirs = Pipe()
        self.alive.add(self)
        self.child = os.fork()
        if self.child == 0:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for fork in self.alive:  # or they would not see their parent end
                fork.connection.close()
            serve(self.ask, theirs)
        theirs.close()

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def turn(self, limit_s: float) -> Row | None:
        """Measures one pass; the row, where it is the last one, or where the child ended: one that says how.
        Raises Ended where that was to measure a reference, SystemExit where nobody waits for it any more.
        """
        try:
            row, is_last = self.passed(limit_s)
        except Ended as error:
            if self.ask.subject is None:
                raise
            row = measure.row_of(self.ask.subject, self.ask.deployment, pick_device())
            return {**row, "error": str(error)}
        self.ended_at = time.monotonic()
        self.is_large = (row.get("peak_mem_mb") or 0) > MOST_MB
        if is_last and is_judged(self.ask, row):
            row |= self.judgement()
        return row if is_last else None

    def judgement(self) -> Row:
        """The columns that come after the last pass."""
        self.is_last_try = True
        try:
            return self.passed(JUDGE_S)[0]
        except Ended as error:
            return unjudged(str(error))

    def all_turns(self, limit_s: float) -> Row:
        """The row after the last pass."""
        while not (row := self.turn(limit_s)):
            pass
        return row

    def passed(self, limit_s: float) -> tuple[Row, bool]:
        """The row after one more pass, and whether it is the last. A child that was killed, as for memory, is
        tried once more, from its first pass. Raises Ended.
        """
        try:
            self.connection.send(limit_s)
            if not self.answers_within(limit_s):
                raise Ended(f"it took longer than {limit_s:g} s")
            answer: tuple[Row, bool] = self.connection.recv()  # of our own child
            return answer
        except (EOFError, OSError) as error:
            status = self.end() or 0
            if status == -signal.SIGKILL and not self.is_last_try:
                self.is_last_try = True
                self.begin()
                return self.passed(limit_s)
            raise Ended(f"its process ended with {name_of(status)}") from error

    def answers_within(self, limit_s: float) -> bool:
        """Waits for an answer; whether there is one. Raises SystemExit where nobody waits for it any more."""
        until = time.monotonic() + limit_s
        while os.getppid() == PARENT:
            left_s = until - time.monotonic()
            if self.connection.poll(max(0.0, min(left_s, LOOK_S))):
                return True
            if left_s <= 0:
                return False
        sys.exit()

    def end(self) -> int | None:
        """Ends the child with what it may have started; its exit code, if it was not ended before."""
        if not self.child:
            return None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        _, status = os.waitpid(self.child, 0)
        self.child = 0
        self.alive.discard(self)
        self.connection.close()
        return os.waitstatus_to_exitcode(status)


def serve(ask: Ask, connection: Connection) -> None:
    """In the child: measures a pass for each message and answers, until its parent ends. Never returns."""
    try:
        answers = passes(ask)
        while True:
            signal.setitimer(signal.ITIMER_REAL, connection.recv() + GRACE_S)
            connection.send(next(answers))
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (EOFError, BrokenPipeError):
        pass
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)


def passes(ask: Ask, gpus: float = 0) -> Iterator[tuple[Row, bool]]:
    """The row after each pass, its times in units of the reference, and whether it is the last; then, where
    that is to be judged, the columns of its accuracy. Whatever fails is in the row.
    """
    device, deployment = pick_device(gpus), ask.deployment
    if ask.subject is None:
        yield measure.measure_reference(deployment.reference, device=device, threads=deployment.threads), True
        return
    row: Row = {}
    try:
        for row, is_last in measure.architecture_passes(
            ask.subject, deployment, device=device, reference_ms=1.0
        ):
            yield row, is_last
    except (Exception, SystemExit) as error:
        row = measure.row_of(ask.subject, deployment, device)
        row["error"] = f"{type(error).__name__}: {error}"[: measure.LONGEST]
        yield row, True
    if ask.weights and is_judged(ask, row):  # the state that the model's own code has changed is put back
        yield judgement(ask.weights, deployment.threads), True


def whole(ask: Ask, gpus: float) -> Row:
    """The row of an ask, measured in this process, one pass after another."""
    row: Row = {}
    for columns, _ in passes(ask, gpus):
        row |= columns
    return row


def is_judged(ask: Ask, row: Row) -> bool:
    """Whether the accuracy of what was measured is to be judged anew."""
    return ask.weights is not None and not row["error"]


def judgement(weights: Weights, threads: int) -> Row:
    """The columns of the accuracy; where that fails, why."""
    try:
        return judged(weights, threads)
    except (Exception, SystemExit) as error:
        return unjudged(reason(error))


def unjudged(why: str) -> Row:
    """The columns of an accuracy that could not be judged; there is a latency, though."""
    return {"error": f"its accuracy was not judged anew: {why}"[: measure.LONGEST]}


def judged(weights: Weights, threads: int) -> Row:
    """The accuracy in int8 of the first trial whose weights are here, and its id; nothing where none is."""
    for trial in weights.trials:
        model = build(trial.config, trial.source).eval()
        try:
            fill(model, weights_path(weights.checkpoints, trial.trial_id))
        except FileNotFoundError:
            continue
        task = procedure(trial.config["task"])
        data = task.load_for(trial.config, weights.data_dir, "cpu", sha256=trial.data_sha256)
        with torch.inference_mode():
            return {"trial_id": trial.trial_id, **accuracy(model, data, threads=threads)}
    return {}
