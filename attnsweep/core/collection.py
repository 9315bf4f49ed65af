"""When Python's garbage collector works: not while modules are imported, of which nothing is garbage. It
would look through them again and again, an eighth of the time that torch and Ray take to import.
"""

import contextlib
import gc
from collections.abc import Iterator

PAUSES = list[bool]()  # whether there was collection before each


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """A context, or a decorator, in which there is no collection until it says `go_on`."""
    PAUSES.append(gc.isenabled())
    gc.disable()
    try:
        yield
    finally:
        if PAUSES.pop():
            gc.enable()


def go_on() -> None:
    """There is collection from here on, where it was paused: of what comes, and not of what is there."""
    if any(PAUSES):
        gc.freeze()
        gc.enable()
