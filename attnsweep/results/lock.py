"""A lock in an object store, where there is no flock: an object that its holder renews every few seconds.

Whoever finds one and cannot tell that its holder is dead watches it for a while. An object store has no
write-if-absent that pyarrow knows of, so two drivers that begin in the same instant look twice: the one whose
object was overwritten gives way.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from attnsweep.results import storage

BEAT_S = 10.0  # between two renewals
WATCH_S = 45.0  # without one, after which the holder is taken for dead
SETTLE_S = 0.5  # for another one that began in the same instant to have written


class Held(Exception):
    """Somebody else holds the lock; the message names the host."""


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
    """Holds the lock at a URI. Raises Held, and OSError where the store cannot be written."""
    me = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
    wait_for_abandoned(path)
    storage.write(path, said(me))
    time.sleep(SETTLE_S)
    if (now := holder(path)) and now["id"] != me["id"]:
        raise Held(now["host"])
    done = threading.Event()
    thread = threading.Thread(target=keep, args=(path, me, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(SETTLE_S)
        with contextlib.suppress(OSError):
            files, inner = storage.opened(path)
            files.delete_file(inner)


def keep(path: str, me: dict[str, object], done: threading.Event) -> None:
    """Renews the lock until `done`; a store that fails for a while hides it from others, too."""
    files, inner = storage.opened(path)
    while not done.wait(BEAT_S):
        with contextlib.suppress(OSError):
            storage.put(files, inner, said(me))


def said(me: dict[str, object]) -> bytes:
    """What the lock says now: each time something else."""
    return json.dumps({**me, "at": time.time()}).encode()


def holder(path: str) -> dict[str, str] | None:
    """What the lock says; None where there is none that can be read."""
    try:
        found = json.loads(storage.read(path))
        return {key: str(found[key]) for key in ("host", "pid", "id", "at")}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def wait_for_abandoned(path: str) -> None:
    """Returns when there is no lock, or its holder is dead. Raises Held where the holder renews it."""
    first = holder(path)
    if first is None or is_dead(first):
        return
    storage.log.warning(
        "a sweep on %s wrote there; looking for %.0f s whether it still does", first["host"], WATCH_S
    )
    until = time.monotonic() + WATCH_S
    while time.monotonic() < until:
        now = holder(path)
        if now is None:
            return
        if now != first:
            raise Held(now["host"])
        time.sleep(1)


def is_dead(one: dict[str, str]) -> bool:
    """Whether a holder was a process of this host that is gone."""
    if one["host"] != socket.gethostname() or not one["pid"].isdigit():
        return False
    try:
        os.kill(int(one["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False
