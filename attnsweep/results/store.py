"""The tables of results: how they are written, read and compacted.

Each table is a folder of Parquet files with one explicit schema, so that pandas, polars and duckdb read the
folder as it is, even while a sweep is writing. A file appears by a rename, whole or not at all. A trial's
rows begin in files named after the trial, so that writing them again replaces them; compaction moves final
rows into one file, because a thousand files take seconds to read and one takes milliseconds.
"""

import contextlib
import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from attnsweep.core import files
from attnsweep.core.errors import Unreachable, UserError
from attnsweep.results import parquet, storage
from attnsweep.results.parquet import Layout, Part, Source
from attnsweep.results.rows import ids, keys_of, latest, matching, newest
from attnsweep.results.schema import (
    FINAL,
    KEYS,
    MOVED,
    SCHEMA_VERSION,
    SCHEMAS,
    TABLES,
    Move,
    by_table,
)  # fmt: skip

T = TypeVar("T")
MISSPELT_URI = re.compile(r"[a-z][a-z0-9]+:/(?!/)")
READS = 10  # attempts at reading a table while another process compacts it
Row = dict[str, Any]
log = logging.getLogger("attnsweep")


class Store:
    """The tables below one root: a local folder, or any URI that pyarrow opens (s3://bucket/prefix)."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.files: fs.FileSystem
        self.base: str
        if not self.root.strip() or MISSPELT_URI.match(self.root):
            raise UserError(f"results={self.root!r} names no folder; write a path, or a URI as s3://bucket/x")
        try:
            self.files, self.base = storage.opened(self.root)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"results={self.root!r} cannot be opened: {error}") from None  # it has the key

    @property
    def is_local(self) -> bool:
        return storage.is_local(self.files)

    def write(self, table: str, rows: Sequence[Row], name: str) -> None:
        """Writes `rows` as the file `name`.parquet of a table, in place of the file of that name."""
        self._write(table, as_table(table, rows), name)

    def write_trial(self, row: Row) -> dict[str, Row]:
        """Writes a trial's row, split over `trials` and its task's own table, as files named after the trial;
        returns the part of each table. Raises KeyError as `by_table` does.
        """
        parts = by_table(row)
        for table, part in parts.items():
            self.write(table, [part], row["trial_id"])
        return parts

    def _write(self, table: str, content: pa.Table, name: str) -> None:
        self._put(table, parquet.as_bytes(content), name)

    def _put(self, table: str, written: pa.Buffer, name: str) -> None:
        target = f"{self.base}/{table}/{name}.parquet"
        if not self.is_local:
            storage.patiently(self.files, lambda: storage.put(self.files, target, written))
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        files.replace(target, written, scratch_in=self.base)

    def paths(self, table: str) -> list[str]:
        """The files of a table, oldest first, so that of two rows with one key the later one is the newer."""
        listed = self._listed(f"{self.base}/{table}")
        infos = [info for info in listed if info.is_file and path_of(info).endswith(".parquet")]
        return [info.path for info in sorted(infos, key=lambda info: (info.mtime_ns or 0, info.path))]

    @property
    def is_empty(self) -> bool:
        """Whether no table has a file."""
        return not any(self.paths(table) for table in TABLES)

    def unknown_tables(self) -> list[str]:
        """The tables that this version does not know."""
        listed = self._listed(self.base)
        folders = [Path(path_of(info)).name for info in listed if info.type == fs.FileType.Directory]
        return sorted(name for name in folders if name not in TABLES and self.paths(name))

    def _listed(self, folder: str) -> list[fs.FileInfo]:
        """What is in a folder; nothing where there is none."""
        selector = fs.FileSelector(folder, allow_not_found=True)
        return list(storage.patiently(self.files, lambda: self.files.get_file_info(selector)))

    def contents(self, table: str) -> Iterator[tuple[str, pa.Buffer]]:
        """The name and the bytes of each file of a table."""
        for path in self.paths(table):
            with contextlib.suppress(FileNotFoundError), self._opened(path) as source:
                yield Path(path).stem, pa.py_buffer(source.read())

    def keep(self, table: str, name: str, content: pa.Buffer) -> None:
        """Writes a file unchanged, under another name where its name is taken by another content. Writes
        nothing where its content is there already.
        """
        known = dict(self.contents(table))
        other = f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
        if not {name, other} & {key for key, there in known.items() if there.equals(content)}:
            self._put(table, content, other if name in known else name)

    def read(self, table: str) -> pa.Table:
        """The newest row of each key, in this version's schema. Files that cannot be read are skipped with a
        warning.
        """
        for _ in range(READS):
            try:
                parts = self._rows_of(table)
            except FileNotFoundError:  # compacted between the listing and now: list again
                continue
            return newest(table, pa.concat_tables([SCHEMAS[table].empty_table(), *parts]))
        raise OSError(f"the files of {self.base}/{table} vanish as fast as they are listed")

    def _rows_of(self, table: str) -> list[pa.Table]:
        """The rows of a table by file; first those that an older version kept in another table."""
        moved = [part for move in MOVED if move.into == table for part in self._holding(move)]
        return [part.tables[table] for part in (*moved, *self._parts(table))]

    def _holding(self, move: Move) -> list[Part]:
        """The readable files of an older version that hold columns which have moved to another table."""
        found = []
        for path in self.paths(move.out_of):
            if self._names(path) & {*move.columns} and (part := self._part(move.out_of, path)) is not None:
                found.append(part)
        return found

    def _names(self, path: str) -> set[str]:
        """The columns of a file; none where it cannot be read (`_part` warns)."""
        return self._ask(path, lambda file: {*parquet.columns_of(file)}) or set()

    def _parts(self, table: str) -> list[Part]:
        """The readable files of a table, oldest first."""
        return [part for path in self.paths(table) if (part := self._part(table, path)) is not None]

    def _part(self, table: str, path: str) -> Part | None:
        try:
            with self._opened(path) as source:
                return parquet.read_part(source, table, path)
        except (FileNotFoundError, Unreachable):  # compacted between the listing and now: to be listed again
            raise
        except Exception as error:  # whatever types that other packages have registered with Arrow raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            log.warning(
                "skipped %s, which cannot be read (%s); delete it, or restore it from a copy", path, reason
            )
            return None

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[Source]:
        """A file to read from. Raises OSError where the store fails, lest an intact file count as torn and
        its rows as missing.
        """
        if self.is_local:
            with files.reading(path, follow=True) as file:
                yield file
            return

        def download() -> pa.Buffer:
            with self.files.open_input_file(path) as file:
                return file.read_buffer()

        yield pa.BufferReader(storage.patiently(self.files, download))

    def upgrade(self) -> None:
        """Rewrites the files of older versions in this version's schema, so that polars and duckdb, too, read
        each table as it is. Files of newer versions stay unchanged.
        """
        for table in TABLES:
            if stale := {path for path in self.paths(table) if self._layout(table, path) == "older"}:
                for part, kept in self._latest(table):
                    if part.path in stale:
                        self._upgrade(table, part, kept)

    def _latest(self, table: str) -> list[tuple[Part, pa.Table]]:
        """The readable files of a table, each with those of its rows that no later file replaces."""
        parts = self._parts(table)
        kept = latest(table, [part.tables[table] for part in parts])
        return list(zip(parts, kept, strict=True))

    def _layout(self, table: str, path: str) -> Layout | None:
        """Which version a file is of; None where it cannot be read."""
        return self._ask(path, lambda file: parquet.layout_of(file, table))

    def _ask(self, path: str, question: Callable[[pq.ParquetFile], T]) -> T | None:
        """The answer to a question about a file; None where it cannot be read."""
        try:
            with self._opened(path) as source:
                return question(parquet.parquet_file(source))
        except Unreachable:
            raise
        except Exception:  # as in `_part`
            return None

    def _upgrade(self, table: str, part: Part, kept: pa.Table) -> None:
        """Rewrites a file with the rows `kept`, after copying columns that have moved to their new tables,
        unless those have newer rows.
        """
        for other in part.tables.keys() - {table}:
            keys = KEYS[other]
            known = {key for rows in self._parts(other) for key in keys_of(rows.tables[other], keys)}
            moved = part.tables[other]
            new = moved.filter(pa.array([key not in known for key in keys_of(moved, keys)], pa.bool_()))
            if len(new):
                self._write(other, parquet.of_this_version(new), bundle_name([part.path]))
        self._rewrite(table, part.path, parquet.of_this_version(kept))

    def _rewrite(self, table: str, path: str, rows: pa.Table) -> None:
        """Replaces the rows of a file; deletes it where there are none."""
        if len(rows):
            self._write(table, rows, Path(path).stem)
        else:
            storage.delete(self.files, path)

    def compact(self) -> None:
        """Merges the files of each table whose rows are all final; rows that a retry would replace stay
        apart.
        """
        self.upgrade()
        parts = {table: self._parts(table) for table in TABLES}
        trials = [part.tables["trials"] for part in parts["trials"]]
        ended = [rows.filter(pc.is_in(rows["status"], pa.array(FINAL))) for rows in trials]
        final = set().union(*map(ids, ended))
        for table, keys in KEYS.items():
            ours = [(part, part.tables[table]) for part in parts[table] if part.layout != "newer"]
            of_trials = "trial_id" in keys
            self._merge(table, [part for part, rows in ours if not of_trials or ids(rows) <= final])

    def _ours(self, table: str) -> list[Part]:
        """The readable files of a table that this version may rewrite or delete: all but a newer
        version's.
        """
        return [part for part in self._parts(table) if part.layout != "newer"]

    def bundle(self, table: str, rows: Sequence[Row], names: Sequence[str]) -> None:
        """Writes final rows as one file, which replaces the files `names` that hold them."""
        if not names:
            return
        self.write(table, rows, bundle_name(names))
        for path in (f"{self.base}/{table}/{name}.parquet" for name in names):
            if self._layout(table, path) != "newer":
                storage.delete(self.files, path)

    def supersede(self, table: str, rows: Sequence[Row], keys: Sequence[str]) -> None:
        """Writes final rows as one file, then removes rows with the same `keys` from the older files."""
        self.adopt(table, as_table(table, rows), keys)

    def newer(self, table: str) -> list[pa.Table]:
        """The rows in files of newer versions, with all their columns, that no later file replaces."""
        found, names = [], KEYS[table]
        for part, kept in self._latest(table):
            if part.layout == "newer" and len(kept):
                with self._opened(part.path) as source:
                    found.append(matching(parquet.read_raw(source), names, set(keys_of(kept, names))))
        return found

    def adopt(self, table: str, content: pa.Table, keys: Sequence[str]) -> None:
        """Writes rows, of a newer version unchanged, then removes those of the same `keys` from our files."""
        if not len(content):
            return
        self.upgrade()
        older, written = self._ours(table), set(keys_of(content, keys))
        self._write(table, content, new_name())
        for part in older:
            rows = part.tables[table]
            stays = [key not in written for key in keys_of(rows, keys)]
            if not all(stays):
                self._rewrite(table, part.path, rows.filter(pa.array(stays)))

    def _merge(self, table: str, parts: Sequence[Part]) -> None:
        """Replaces several files by one. A file is deleted only once all its rows are in the new one."""
        if len(parts) < 2:
            return
        name = bundle_name([part.path for part in parts])
        self._write(table, newest(table, pa.concat_tables([part.tables[table] for part in parts])), name)
        for part in parts:
            storage.delete(self.files, part.path)

    def update_trials(self, changes: Mapping[str, Row]) -> None:
        """Changes columns of trials, by their ids; rewrites the files that hold them."""
        self.upgrade()
        for part in self._ours("trials"):
            if ids(part.tables["trials"]) & changes.keys():
                rows = part.tables["trials"].to_pylist()
                changed = [{**row, **changes.get(row["trial_id"], {})} for row in rows]
                content = pa.Table.from_pylist(changed, schema=SCHEMAS["trials"])
                self._write("trials", content, Path(part.path).stem)

    def clear_scratch(self) -> None:
        """Deletes scratch files of a driver that was killed while it wrote."""
        for path in Path(self.base).glob(f".*{files.SCRATCH}") if self.is_local else ():
            path.unlink(missing_ok=True)

    def set_aside_unreadable(self, folder: Path) -> list[str]:
        """Moves files that are not Parquet out of the tables, as pandas would fail on them; returns their
        paths.
        """
        moved = []
        for table in TABLES if self.is_local else ():
            for path in self.paths(table):
                if not parquet.is_parquet(path):
                    folder.mkdir(parents=True, exist_ok=True)
                    files.move(path, folder / f"{table}-{Path(path).name}")
                    moved.append(path)
        return moved


def path_of(info: fs.FileInfo) -> str:
    """The path of a file; empty where its name is not UTF-8, and so not ours."""
    try:
        return str(info.path)
    except UnicodeDecodeError:
        return ""


def as_table(table: str, rows: Sequence[Row]) -> pa.Table:
    """Rows as ones of this version. Raises KeyError for a column that the table does not have."""
    if strange := {key for row in rows for key in row} - set(SCHEMAS[table].names):
        raise KeyError(f"the table {table} has no column {', '.join(sorted(strange))}")
    rows = [{**row, "schema_version": SCHEMA_VERSION} for row in rows]
    return pa.Table.from_pylist(rows, schema=SCHEMAS[table])


def new_name() -> str:
    """A name that no file has."""
    return "part-" + uuid.uuid4().hex[:12]


def bundle_name(names: Iterable[str]) -> str:
    """The name of the file that replaces the files `names`."""
    return "part-" + hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]
