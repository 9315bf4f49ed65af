"""One driver at a time writes to results: a lock on this machine, and one in an object store.

On this machine it is a file that its holder has locked. An object store knows no such thing: there the lock
is an object that its holder renews every few seconds, and whoever finds one and does not know that its holder
is dead watches it for a while. It is written only where it is as it was last seen, so of two drivers that
begin, or take it over, in the same instant one succeeds. In a store that heeds no such conditions they look
again after a moment, which leaves a race; a warning says so.
"""

import _thread
import contextlib
import json
import os
import platform
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from attnsweep.core import files
from attnsweep.core.clean import clean
from attnsweep.core.errors import Interrupted
from attnsweep.results import conditional, storage

BEAT_S = 10.0  # between two renewals
WATCH_S = 45.0  # without one, after which the holder is taken for dead
SETTLE_S = 0.5  # for another one that began in the same instant to have written


class Held(Exception):
    """Somebody else holds the lock; the message says who and since when."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock. `machine` says where its number means something."""

    host: str
    pid: int
    since: str = "some time"
    machine: str = ""
    id: str = ""

    def __str__(self) -> str:
        return clean(f"{self.host} (process {self.pid}, since {self.since})")

    def note(self) -> str:
        """What the lock holds: each time something else."""
        return json.dumps({**asdict(self), "beat": uuid.uuid4().hex})


def this_process() -> Holder:
    """This process as the holder of a lock."""
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return Holder(socket.gethostname(), os.getpid(), since, machine(), uuid.uuid4().hex)


def machine() -> str:
    """What has a table of processes of its own: this machine since it was started, or this container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def holder_in(note: str | bytes) -> Holder | None:
    """The holder that a lock names; None where it names none."""
    try:
        found = json.loads(note)
        known = {key: str(found[key]) for key in ("host", "since", "machine", "id") if key in found}
        return Holder(pid=int(found["pid"]), **known)
    except (ValueError, KeyError, TypeError):
        return None


# --- On this machine ---


@contextlib.contextmanager
def held_here(path: Path) -> Iterator[None]:
    """Holds the lock that is a file of this machine. Raises Held, and OSError where it cannot be written."""
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(files.locked(path, this_process().note()))
        except BlockingIOError as error:
            raise Held(str(holder_in(error.strerror or "") or "this machine")) from None
        yield


# --- In a store ---


class Object(Protocol):
    """The object that is the lock. Its state differs whenever its content was written anew."""

    def read(self) -> tuple[bytes, Any] | None:
        """What it holds, and its state; None where there is none. Raises OSError."""

    def write(self, content: bytes, state: Any) -> Any:
        """Writes it if it is in that state (None: if there is none). Returns its new state, None where it was
        in another one. Raises OSError.
        """

    def delete(self) -> None:
        """Deletes it. Raises OSError."""


@dataclass(frozen=True)
class UnconditionalObject:
    """A lock in a store that heeds no conditions: its content is its state, which is looked at again after a
    moment.
    """

    path: str

    def read(self) -> tuple[bytes, bytes] | None:
        """See `Object`."""
        try:
            content = storage.read(self.path)
        except FileNotFoundError:
            return None
        return content, content

    def write(self, content: bytes, state: bytes | None) -> bytes | None:
        """See `Object`."""
        found = self.read()
        if (found and found[1]) != state:
            return None
        storage.write(self.path, content)
        time.sleep(SETTLE_S)
        return content if self.read() == (content, content) else None

    def delete(self) -> None:
        files, inner = storage.opened(self.path)
        files.delete_file(inner)


@dataclass
class Lock:
    """A lock that this process holds, and renews until `over`."""

    object: Object
    me: Holder
    state: Any
    interrupts: bool  # the main thread, where the lock is lost
    over: threading.Event = field(default_factory=threading.Event)
    taken_by: str | None = None  # who has taken it over, as after this process has slept

    def check(self) -> None:
        """Raises Interrupted where somebody else has taken the lock over."""
        if self.taken_by is not None:
            raise Interrupted(
                f"the lock on the results was taken over by {self.taken_by}; finished rows are intact, "
                "the same command goes on"
            )

    def keep(self) -> None:
        """Renews the lock; a store that fails for a while hides it from others, too."""
        while not self.over.wait(BEAT_S):
            with contextlib.suppress(OSError):
                state = self.object.write(self.me.note().encode(), self.state)
                if self.over.is_set():
                    return
                if state is None:
                    self.taken_by = str(holder_of(self.object) or "another machine")
                    storage.log.warning("the lock on the results was taken over by %s", self.taken_by)
                    if self.interrupts:
                        _thread.interrupt_main()
                    return
                self.state = state

    def release(self) -> None:
        """Deletes the lock, unless it is somebody else's by now."""
        self.over.set()
        with contextlib.suppress(OSError):
            if (found := holder_of(self.object)) and found.id == self.me.id:
                self.object.delete()


@contextlib.contextmanager
def held(path: str) -> Iterator[Lock]:
    """Holds the lock at a URI. Raises Held, and OSError where the store cannot be written. Where somebody
    else takes it over, the main thread is interrupted as by Ctrl-C; the lock's `check` says so.
    """
    me, there = this_process(), object_at(path)
    store, _ = storage.opened(path)
    abandoned = wait_for_abandoned(there)
    state = storage.patiently(store, lambda: there.write(me.note().encode(), abandoned))
    if state is None:
        raise Held(str(holder_of(there) or "another machine"))
    lock = Lock(there, me, state, threading.current_thread() is threading.main_thread())
    thread = threading.Thread(target=lock.keep, daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        lock.over.set()
        thread.join(BEAT_S)
        lock.release()


def object_at(path: str) -> Object:
    """The lock's object; with conditions where its store heeds them, else with a warning."""
    with contextlib.suppress(FileNotFoundError):
        storage.read(path)  # patiently: from here on the store answers
    try:
        return conditional.conditional_object(path)
    except conditional.Unconditional as error:
        reason = str(error)
    except OSError as error:
        reason = storage.short(error)
    storage.log.warning(
        "the lock %s cannot be written conditionally (%s): "
        "two sweeps that begin in the same instant may both take it",
        path,
        reason,
    )
    return UnconditionalObject(path)


def holder_of(there: Object) -> Holder | None:
    """Whom the lock names; None where there is no lock, or it names nobody."""
    found = there.read()
    return found and holder_in(found[0])


def wait_for_abandoned(there: Object) -> Any:
    """The state of a lock that nobody holds, None where there is none. Raises Held where its holder renews
    it.
    """
    first = there.read()
    holder = first and holder_in(first[0])
    if first is None or holder is None or is_dead(holder):
        return first and first[1]
    storage.log.warning(
        "a sweep on %s wrote there; looking for %.0f s whether it still does", holder, WATCH_S
    )
    until = time.monotonic() + WATCH_S
    while time.monotonic() < until:
        now = there.read()
        if now is None:
            return None
        if now[1] != first[1]:
            raise Held(str(holder_in(now[0]) or holder))
        time.sleep(1)
    return first[1]


def is_dead(one: Holder) -> bool:
    """Whether a holder was a process of this machine that is gone."""
    if one.machine != machine():
        return False
    try:
        os.kill(one.pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's
        return False
    return False
