"""A child process for a user's own code, which may hang or crash there without harm to this process.

It is started by the first call, runs one call after another, and ends when there has been none for a while,
or with this process.
"""

import atexit
import contextlib
import logging
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

from attnsweep.core import collection
from attnsweep.core.containment import set_environment

Item = TypeVar("Item")
START_S = 300.0  # until torch has been imported, on a busy machine
IDLE_S = 60.0
GRACE_S = 5  # after which the child ends itself if its parent is gone
PACKAGE = Path(__file__).parents[1]
LOCK = threading.Lock()  # one call at a time


@dataclass(frozen=True)
class Call:
    """A generator function with arguments, to be pickled; `seconds` as in `results`; what it depends on."""

    function: Callable[..., Iterator[Any]]
    arguments: tuple[Any, ...]
    seconds: tuple[float, float]
    folder: str
    paths: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Over:
    """The end of a call, with the exception that it raised."""

    error: Exception | None = None


class Process:
    """The child process, the connection to it, and the file that it prints to."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        serving = f"from attnsweep.core import child_process; child_process.serve({theirs.fileno()})"
        with tempfile.NamedTemporaryFile() as output:
            self.printed = open(output.name, "rb")  # with a position of its own
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", serving], pass_fds=[theirs.fileno()], start_new_session=True,
                env=environment_with_package(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        theirs.close()

    def begin(self, call: Call) -> None:
        """Sends a call. Raises OSError or EOFError where the process has ended."""
        self.connection.send(call)
        self.printed.seek(self.receive(START_S))  # behind what was printed by imports

    def receive(self, seconds: float) -> Any:
        """The next message. Raises TimeoutError, and EOFError where the process has ended."""
        if not self.connection.poll(seconds):
            raise TimeoutError
        return self.connection.recv()

    def pass_on_output(self) -> None:
        """Writes to standard error what the process has printed since the last time."""
        if text := self.printed.read().decode(errors="replace"):
            sys.stderr.write(text)

    def end(self) -> int:
        """Kills the process; returns its exit status."""
        self.process.kill()
        self.connection.close()
        status = self.process.wait()
        self.printed.close()
        return status


RUNNING: list[Process] = []  # none, or the one


def environment_with_package() -> dict[str, str]:
    """The environment of a child process that is to import this very package."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def results(
    function: Callable[..., Iterator[Item]], *arguments: Any, seconds: tuple[float, float]
) -> Iterator[Item]:
    """Yields what a generator function yields in the child process. What it prints goes to standard error.

    Raises what the function raises; TimeoutError where the first result takes longer than `seconds[0]` or a
    later one longer than `seconds[1]`; ChildProcessError where the process dies. Under a debugger the
    function runs in this process, so that breakpoints are hit.
    """
    if sys.gettrace():
        yield from function(*arguments)
        return
    call = Call(function, arguments, seconds, os.getcwd(), list(sys.path), dict(os.environ))
    with LOCK:
        error = yield from received(begin(call), seconds)
    if error:
        raise error


def received(process: Process, seconds: tuple[float, float]) -> Generator[Any, None, Exception | None]:
    """Yields a call's results; returns what it raised. One that does not end ends the process (`results`)."""
    patience = seconds[0]
    try:
        while not isinstance(message := process.receive(patience), Over):
            yield message
            patience = seconds[1]
    except BaseException as error:
        process.pass_on_output()
        status = end()
        if isinstance(error, TimeoutError) or (isinstance(error, EOFError) and status == -signal.SIGALRM):
            raise TimeoutError from None
        if isinstance(error, EOFError):
            raise ChildProcessError(f"its process ended with {name_of(status)}") from None
        raise
    process.pass_on_output()
    return message.error


def begin(call: Call) -> Process:
    """Begins a call; returns the process that runs it, a new one where the last one has ended. Raises
    ChildProcessError where that ends, too, as on what it cannot unpickle.
    """
    if RUNNING:
        with contextlib.suppress(OSError, EOFError):
            RUNNING[0].begin(call)
            return RUNNING[0]
        end()
    RUNNING.append(Process())
    try:
        RUNNING[0].begin(call)
    except EOFError:
        raise ChildProcessError(f"its process ended with {name_of(end())}") from None
    return RUNNING[0]


def end() -> int:
    """Ends the process; returns its exit status."""
    return RUNNING.pop().end()


@atexit.register
def end_at_exit() -> None:
    if RUNNING:
        end()


def name_of(status: int) -> str:
    """An exit status as people know it, such as `SIGSEGV`."""
    if status >= 0:
        return f"status {status}"
    name = signal.Signals(-status).name
    return f"{name} (the system may have run out of memory)" if name == "SIGKILL" else name


# --- In the child process ---


def serve(descriptor: int) -> None:
    """Answers calls until there has been none for a while."""
    os.environ["OMP_NUM_THREADS"] = "1"  # beside its parent, more threads would only wait for each other
    logging.basicConfig(format="attnsweep: %(message)s", level=logging.WARNING)  # as in its parent
    connection = Connection(descriptor)
    while connection.poll(IDLE_S):
        try:
            with collection.paused():  # to read a call is to import what it calls
                call = connection.recv()
        except EOFError:
            return
        answer(connection, call)


def answer(connection: Connection, call: Call) -> None:
    """Sends a call's results, and how it ended; ends itself if they take too long: its parent may be gone."""
    sys.stdout.flush()
    connection.send(os.lseek(1, 0, os.SEEK_CUR))  # where what it prints will begin
    os.chdir(call.folder)
    sys.path[:] = call.paths
    set_environment(call.environment)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(call.seconds[0]) + GRACE_S)
    error = None
    try:
        for result in call.function(*call.arguments):
            connection.send(result)
            signal.alarm(int(call.seconds[1]) + GRACE_S)
    except Exception as raised:
        error = raised
    finally:
        signal.alarm(0)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(Over(error))
