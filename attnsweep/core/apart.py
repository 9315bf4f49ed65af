"""Another process for code of a user's own, which may hang there, or die, and take nothing with it.

The process is started when it is first asked for, answers one call after another, and ends when nobody has
asked for a while, or with this process.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, TypeVar

from attnsweep.core.containment import set_environment

Item = TypeVar("Item")
START_S = 300.0  # until torch has been imported, on a busy machine
IDLE_S = 60.0
GRACE_S = 5  # after which a process ends itself whose caller is gone
PACKAGE = Path(__file__).parents[1]
ROOM = threading.Lock()  # one call at a time


@dataclass(frozen=True)
class Call:
    """A generator function and its arguments, all that can be pickled; `seconds` as in `results`; and what
    decides what it imports and reads.
    """

    function: Callable[..., Iterator[Any]]
    arguments: tuple[Any, ...]
    seconds: tuple[float, float]
    folder: str
    paths: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Over:
    """The end of a call: `error` is what it raised, an exception of this package."""

    error: Exception | None = None


class Process:
    """The other process and the way to it."""

    def __init__(self) -> None:
        self.door, theirs = Pipe()
        paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        serving = f"from attnsweep.core import apart; apart.serve({theirs.fileno()})"
        with tempfile.NamedTemporaryFile() as output:
            self.printed = open(output.name, "rb")  # at a place of its own
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", serving], pass_fds=[theirs.fileno()], start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        theirs.close()

    def begin(self, call: Call) -> None:
        """Asks for a call. Raises OSError or EOFError where the process has ended."""
        self.door.send(call)
        self.hear(START_S)
        self.printed.seek(0, os.SEEK_END)  # what importing had to say

    def hear(self, seconds: float) -> Any:
        """The next message. Raises TimeoutError, and EOFError where the process has ended."""
        if not self.door.poll(seconds):
            raise TimeoutError
        return self.door.recv()

    def show(self) -> None:
        """Passes on what was printed since the last time."""
        if text := self.printed.read().decode(errors="replace"):
            sys.stderr.write(text)

    def end(self) -> int:
        """Ends the process; returns its exit status."""
        self.process.kill()
        self.door.close()
        status = self.process.wait()
        self.printed.close()
        return status


RUNNING: list[Process] = []  # none, or the one


def results(
    function: Callable[..., Iterator[Item]], *arguments: Any, seconds: tuple[float, float]
) -> Iterator[Item]:
    """What a generator function yields in the other process. What it prints goes to standard error.

    Raises what the function raises; TimeoutError where the first result, or a later one, takes longer than so
    many seconds; ChildProcessError where the process dies. In a debugger it is this process, so that
    breakpoints are met.
    """
    if sys.gettrace():
        yield from function(*arguments)
        return
    call = Call(function, arguments, seconds, os.getcwd(), list(sys.path), dict(os.environ))
    with ROOM:
        error = yield from heard(begun(call), seconds)
    if error:
        raise error


def heard(process: Process, seconds: tuple[float, float]) -> Generator[Any, None, Exception | None]:
    """The results of the call that has begun; returns what it raised. Where it does not come to its end, nor
    does the process: see `results`.
    """
    patience = seconds[0]
    try:
        while not isinstance(message := process.hear(patience), Over):
            yield message
            patience = seconds[1]
    except BaseException as error:
        process.show()
        status = ended()
        if isinstance(error, TimeoutError) or (isinstance(error, EOFError) and status == -signal.SIGALRM):
            raise TimeoutError from None
        if isinstance(error, EOFError):
            raise ChildProcessError(f"its process ended with {name_of(status)}") from None
        raise
    process.show()
    return message.error


def begun(call: Call) -> Process:
    """The process that has begun the call; a new one where there is none any more."""
    if RUNNING:
        with contextlib.suppress(OSError, EOFError):
            RUNNING[0].begin(call)
            return RUNNING[0]
        ended()
    RUNNING.append(Process())
    RUNNING[0].begin(call)
    return RUNNING[0]


def ended() -> int:
    """Ends the process; returns its exit status."""
    return RUNNING.pop().end()


@atexit.register
def leave() -> None:
    """No process stays."""
    if RUNNING:
        ended()


def name_of(status: int) -> str:
    """An exit status as people know it, such as `SIGSEGV`."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"


# --- In the other process ---


def serve(descriptor: int) -> None:
    """Answers calls, until nobody has asked for a while."""
    os.environ["OMP_NUM_THREADS"] = "1"  # beside the process that asks, more would only wait for each other
    door = Connection(descriptor)
    while door.poll(IDLE_S):
        try:
            call = door.recv()
        except EOFError:
            return
        answer(door, call)


def answer(door: Connection, call: Call) -> None:
    """Sends the results of a call, and how it ended. Where they take too long, the process ends, too: nobody
    may be left who would end it.
    """
    door.send(None)
    os.chdir(call.folder)
    sys.path[:] = call.paths
    set_environment(call.environment)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(call.seconds[0]) + GRACE_S)
    error = None
    try:
        for result in call.function(*call.arguments):
            door.send(result)
            signal.alarm(int(call.seconds[1]) + GRACE_S)
    except Exception as raised:
        error = raised
    finally:
        signal.alarm(0)
    sys.stdout.flush()
    sys.stderr.flush()
    door.send(Over(error))
