"""Which files beside it a user's own code reads, such as a table or a configuration: no id covers them."""

import contextlib
import functools
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any

CODE = (".py", ".pyc")
watched: list[tuple[str, set[str]]] = []  # folders, each with the files that have been read there


@contextlib.contextmanager
def files_read(folder: str) -> Iterator[set[str]]:
    """A context that gives the paths, below a folder, of the files that are read within it, except for code.

    Those that Python opens: compiled libraries open theirs without asking.
    """
    install()
    found: set[str] = set()
    watched.append((os.path.realpath(folder), found))
    try:
        yield found
    finally:
        watched.pop()


@functools.cache
def install() -> None:
    """Has this process ask about every file that is opened; there is no way back."""
    sys.addaudithook(note)


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes a file that is being opened. It raises nothing: whoever opens it would get that."""
    if event != "open" or not watched:
        return
    with contextlib.suppress(Exception):
        path, _, flags = arguments
        real, (folder, found) = os.path.realpath(os.fsdecode(path)), watched[-1]
        below = real.removeprefix(os.path.join(folder, ""))
        is_read = flags & os.O_ACCMODE == os.O_RDONLY and not real.endswith(CODE)
        if is_read and below != real and stat.S_ISREG(os.stat(real).st_mode):
            found.add(below)
