"""Where exports go: a place that is free, a database that appears there once it is whole."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attnsweep.core import files
from attnsweep.core.errors import UserError


@contextlib.contextmanager
def database(path: Path) -> Iterator[str]:
    """The URL of an SQLite file that is made elsewhere, and stands at `path` once it is whole. Raises
    UserError where something stands there: others may have written into it; also where there is no room.
    """
    refuse_existing(path)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder, "made.db")
        try:
            yield f"sqlite:///{scratch}"
        except Exception as error:  # each library has its own around SQLite's
            if (cause := cause_in_sqlite(error)) is None:
                raise
            where = Path(folder).parent
            raise UserError(f"no database can be made in {where} ({cause}); set TMPDIR to another") from error
        files.replace(path, scratch.read_bytes())


def cause_in_sqlite(error: BaseException | None) -> sqlite3.OperationalError | None:
    """What SQLite could not do, such as write on a full disk, where that is behind an error."""
    while error is not None and not isinstance(error, sqlite3.OperationalError):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    """A folder that is made elsewhere, and stands at `path` once it is whole. Raises UserError where
    something stands there: of two curves of a trial TensorBoard would draw one.
    """
    refuse_existing(path)
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)
        try:
            for file in filter(Path.is_file, Path(scratch).rglob("*")):
                copy = path / file.relative_to(scratch)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        except OSError:
            shutil.rmtree(path, ignore_errors=True)
            raise


def refuse_existing(path: Path) -> None:
    """Raises UserError where there is something at `path`."""
    if os.path.lexists(path):
        raise UserError(f"{path} is there already; delete it, or name another place")


def plain(value: Any) -> Any:
    """A value as Python's own type: a whole number that pandas holds as a float is one again."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
