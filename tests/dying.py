"""A command that kills itself: `python dying.py POINT N SWEEP.py ...` is `python -m attnsweep SWEEP.py ...`
with a SIGKILL at the N-th time that it comes to a point of writing rows.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from attnsweep.__main__ import main
from attnsweep.results import storage
from attnsweep.results import store as results


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_written(content: Any, target: Any, **options: Any) -> None:
    """Writes the first half of a Parquet file, and dies."""
    write_table(content, target, **options)
    os.truncate(target, os.path.getsize(target) // 2)
    die()


def after(call: Callable[..., Any]) -> Callable[..., None]:
    def both(*args: Any, **options: Any) -> None:
        call(*args, **options)
        die()

    return both


def at(number: int, call: Callable[..., Any], last: Callable[..., Any]) -> Callable[..., Any]:
    """`call` until the `number`-th time that it is about a row of `trials`, then `last`."""
    left = [number]

    def counted(*args: Any, **options: Any) -> Any:
        left[0] -= any(mark in str(args[1]) for mark in ("/trials/", "/.trials-"))
        return (last if left[0] == 0 else call)(*args, **options)

    return counted


write_table, replace, delete = results.pq.write_table, os.replace, storage.delete
POINTS = {
    "half-written": ("write_table", results.pq, write_table, half_written),
    "before-rename": ("replace", results.os, replace, die),
    "after-rename": ("replace", results.os, replace, after(replace)),
    "compacted": ("delete", results.storage, delete, after(delete)),
}

if __name__ == "__main__":
    name, where, call, last = POINTS[sys.argv[1]]
    setattr(where, name, at(int(sys.argv[2]), call, last))
    sys.exit(main(sys.argv[3:]))
