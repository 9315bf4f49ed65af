"""A command that kills itself: `python dying.py POINT N SWEEP.py ...` is `python -m attnsweep SWEEP.py ...`
with a SIGKILL at the N-th time that it comes to a point of writing rows.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attnsweep.__main__ import main
from attnsweep.core import files
from attnsweep.results import storage


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def unfinished(share: float) -> Callable[..., None]:
    """Writes that share of a file's bytes to a scratch file, and dies."""

    def write(path: str | Path, content: Any, *, scratch_in: str | Path) -> None:
        scratch = Path(scratch_in) / f".{Path(path).name}-dying{files.SCRATCH}"
        scratch.write_bytes(bytes(content)[: round(share * len(content))])
        die()

    return write


def after(call: Callable[..., Any]) -> Callable[..., None]:
    def both(*args: Any, **options: Any) -> None:
        call(*args, **options)
        die()

    return both


def at(number: int, call: Callable[..., Any], last: Callable[..., Any]) -> Callable[..., Any]:
    """`call` until the `number`-th time that it is about a file of `trials`, then `last`."""
    left = [number]

    def counted(*args: Any, **options: Any) -> Any:
        left[0] -= any("/trials/" in str(one) for one in args if isinstance(one, str | Path))
        return (last if left[0] == 0 else call)(*args, **options)

    return counted


replace, delete = files.replace, storage.delete
POINTS = {
    "half-written": ("replace", files, replace, unfinished(0.5)),
    "before-rename": ("replace", files, replace, unfinished(1)),
    "after-rename": ("replace", files, replace, after(replace)),
    "compacted": ("delete", storage, delete, after(delete)),
}

if __name__ == "__main__":
    name, where, call, last = POINTS[sys.argv[1]]
    setattr(where, name, at(int(sys.argv[2]), call, last))
    sys.exit(main(sys.argv[3:]))
