"""The three tables of results: their columns, and how they are written, read and compacted.

Each table is a folder of Parquet files that share one explicit schema, so that pandas, polars and duckdb read
the folder as it is, even while a sweep is writing. A file appears by a rename, whole or not at all. A trial's
rows are first in files of their own, named after the trial, so that writing them again replaces them;
compaction moves what is final into one file, because a thousand files take seconds to read and one takes
milliseconds.
"""

import functools
import hashlib
import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from attnsweep.core.errors import UserError
from attnsweep.results import storage
from attnsweep.results.schema import FINAL, KEYS, OWN, SCHEMA_VERSION, SCHEMAS, STATUSES, TABLES, by_table

if TYPE_CHECKING:
    import pandas as pd

ID = r"^[^/\\\x00-\x1f]{1,200}$"
FIRST_US, LAST_US = -62_135_596_800_000_001, 253_402_300_800_000_000  # of the years 1 to 9999
FEW_ROWS = 20
READS = 10  # attempts at reading a table while another process compacts it
Row = dict[str, Any]
log = logging.getLogger("attnsweep")


class Store:
    """The tables below one root: a local folder, or any URI that pyarrow opens (s3://bucket/prefix)."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.files: fs.FileSystem
        self.base: str
        try:
            self.files, self.base = storage.opened(self.root)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"results={self.root!r} cannot be opened: {error}") from error

    @property
    def is_local(self) -> bool:
        return storage.is_local(self.files)

    def write(self, table: str, rows: Sequence[Row], name: str) -> None:
        """Writes `rows` as the file `name`.parquet of a table, replacing the file of that name as a whole."""
        if strange := {key for row in rows for key in row} - set(SCHEMAS[table].names):
            raise KeyError(f"the table {table} has no column {', '.join(sorted(strange))}")
        rows = [{**row, "schema_version": SCHEMA_VERSION} for row in rows]
        self._write(table, pa.Table.from_pylist(rows, schema=SCHEMAS[table]), name)

    def write_trial(self, row: Row) -> None:
        """Writes the row of a trial as files named after it, in `trials` and in the table of its task."""
        for table, part in by_table(row).items():
            self.write(table, [part], row["trial_id"])

    def _write(self, table: str, content: pa.Table, name: str) -> None:
        target = f"{self.base}/{table}/{name}.parquet"
        if not self.is_local:
            sink = pa.BufferOutputStream()
            write_parquet(content, sink)
            storage.patiently(self.files, lambda: storage.put(self.files, target, sink.getvalue()))
            return
        self.files.create_dir(f"{self.base}/{table}", recursive=True)
        scratch = f"{self.base}/.{table}-{name}-{uuid.uuid4().hex[:8]}.tmp"
        try:
            write_parquet(content, scratch, filesystem=self.files)
            os.replace(scratch, target)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def paths(self, table: str) -> list[str]:
        """The files of a table, oldest first, so that of two rows with one key the later one is the newer."""
        selector = fs.FileSelector(f"{self.base}/{table}", allow_not_found=True)
        listed = storage.patiently(self.files, lambda: self.files.get_file_info(selector))
        infos = [info for info in listed if info.is_file and path_of(info).endswith(".parquet")]
        return [info.path for info in sorted(infos, key=lambda info: (info.mtime_ns or 0, info.path))]

    def read(self, table: str) -> pa.Table:
        """All rows of a table by its schema, the newest of each key; a file that cannot be read is skipped
        with a warning.
        """
        for _ in range(READS):
            try:
                parts = [part for _, part in (*self._measures_in_trials(table), *self._sources(table))]
            except FileNotFoundError:  # compacted between the listing and now: list again
                continue
            return newest(table, pa.concat_tables([SCHEMAS[table].empty_table(), *parts]))
        raise OSError(f"the files of {self.base}/{table} vanish as fast as they are listed")

    def _read(self, table: str, path: str) -> pa.Table | None:
        source = path if self.is_local else pa.BufferReader(self._download(path))
        try:
            files = self.files if self.is_local else None
            file = pq.ParquetFile(source, filesystem=files, page_checksum_verification=True)
            return conform(
                file.read(use_threads=False), SCHEMAS[table], KEYS[table]
            )  # small: threads cost more
        except FileNotFoundError:  # compacted between the listing and now: for `read` to list again
            raise
        except Exception as error:  # whatever types that other packages have registered with Arrow raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            log.warning(
                "skipped %s, which cannot be read (%s); delete it, or restore it from a copy", path, reason
            )
            return None

    def _measures_in_trials(self, table: str) -> Iterator[tuple[str, pa.Table]]:
        """The files of `trials` that hold measures which have a `table` of their own since schema version 4,
        with those measures.
        """
        measures = {column.name for column in OWN.get(table, ())[1:-1]}
        for path in self.paths("trials") if measures else ():
            names = measures & {*self._names(path)}
            if names and (part := self._read(table, path)) is not None:
                known = functools.reduce(pc.or_, (pc.is_valid(part[name]) for name in sorted(names)))
                yield path, part.filter(known)

    def _names(self, path: str) -> list[str]:
        """The columns of a file; none where it cannot be read, of which `_read` warns."""
        try:
            with self.files.open_input_file(path) as file:
                return list(pq.read_schema(file).names)
        except (OSError, pa.ArrowInvalid):
            return []

    def upgrade(self) -> None:
        """Writes measures that an older version left in `trials` into their own tables, and those files of
        `trials` again without them. To be called by the only writer, before it writes.
        """
        for table in OWN:
            known = ids(self._read_all(table))
            for path, part in list(self._measures_in_trials(table)):
                new = part.filter(pc.invert(pc.is_in(part["trial_id"], pa.array(sorted(known), pa.string()))))
                if len(new):
                    self._write(table, new, Path(path).stem)
                if (trials := self._read("trials", path)) is not None:
                    self._write("trials", trials, Path(path).stem)

    def _read_all(self, table: str) -> pa.Table:
        """All rows in the files of a table."""
        return pa.concat_tables([SCHEMAS[table].empty_table(), *(part for _, part in self._sources(table))])

    def _download(self, path: str) -> pa.Buffer:
        """The content of a file. Where the store fails this raises OSError: the file is no torn one, and its
        rows are not to be taken for missing.
        """

        def download() -> pa.Buffer:
            with self.files.open_input_file(path) as file:
                return file.read_buffer()

        return storage.patiently(self.files, download)

    def compact(self) -> None:
        """Moves final rows of each table into one file; what a retry would replace stays where it is."""
        trials = self._sources("trials")
        ended = [part.filter(pc.is_in(part["status"], pa.array(FINAL))) for _, part in trials]
        final = set().union(*(ids(part) for part in ended))
        self._merge("trials", [(path, part) for path, part in trials if ids(part) <= final])
        for table in ("epochs", *OWN):
            self._merge(table, [(path, part) for path, part in self._sources(table) if ids(part) <= final])
        self._merge("latency", self._sources("latency"))

    def bundle(self, table: str, rows: Sequence[Row], names: Sequence[str]) -> None:
        """Writes final rows as one file in place of the files `names`, in which they stand already."""
        if not names:
            return
        self.write(table, rows, bundle_name(names))
        for name in names:
            storage.delete(self.files, f"{self.base}/{table}/{name}.parquet")

    def supersede(self, table: str, rows: Sequence[Row], keys: Sequence[str]) -> None:
        """Writes final rows as one file, then takes rows of the same `keys` out of the older files."""
        if not rows:
            return
        written = {tuple(row[key] for key in keys) for row in rows}
        older, name = self._sources(table), "part-" + uuid.uuid4().hex[:12]
        self.write(table, rows, name)
        for path, part in older:
            stays = [key not in written for key in zip(*(part[key].to_pylist() for key in keys), strict=True)]
            if not any(stays):
                storage.delete(self.files, path)
            elif not all(stays):
                self._write(table, part.filter(pa.array(stays)), Path(path).stem)

    def _sources(self, table: str) -> list[tuple[str, pa.Table]]:
        """The readable files of a table with their rows."""
        return [(path, part) for path in self.paths(table) if (part := self._read(table, path)) is not None]

    def _merge(self, table: str, sources: Sequence[tuple[str, pa.Table]]) -> None:
        """One file in place of several. A file is deleted only when all its rows stand in the new one."""
        if len(sources) < 2:
            return
        name = bundle_name([path for path, _ in sources])
        self._write(table, newest(table, pa.concat_tables([part for _, part in sources])), name)
        for path, _ in sources:
            storage.delete(self.files, path)

    def update_trials(self, changes: Mapping[str, Row]) -> None:
        """Rewrites, file by file, the rows of the trials named in `changes` with those columns changed."""
        for path in self.paths("trials"):
            part = self._read("trials", path)
            if part is None or not set(part["trial_id"].to_pylist()) & changes.keys():
                continue
            rows = [{**row, **changes.get(row["trial_id"], {})} for row in part.to_pylist()]
            self._write("trials", pa.Table.from_pylist(rows, schema=SCHEMAS["trials"]), Path(path).stem)

    def clear_scratch(self) -> None:
        """Deletes what a driver that was killed in the middle of a write has left."""
        for path in Path(self.base).glob(".*.tmp") if self.is_local else ():
            path.unlink(missing_ok=True)

    def set_aside_unreadable(self, folder: Path) -> list[str]:
        """Moves files that are not Parquet out of the tables, where one of them would stop pandas; returns
        their names.
        """
        moved = []
        for table in TABLES if self.is_local else ():
            for path in self.paths(table):
                if not is_parquet(path):
                    folder.mkdir(parents=True, exist_ok=True)
                    os.replace(path, folder / f"{table}-{Path(path).name}")
                    moved.append(path)
        return moved


def path_of(info: fs.FileInfo) -> str:
    """The path of a file; nothing where its name is no text, and so none that we gave."""
    try:
        return str(info.path)
    except UnicodeDecodeError:
        return ""


def is_parquet(path: str) -> bool:
    """Whether the file's footer can be parsed; also where the system does not give the file, which says
    nothing.
    """
    try:
        with open(path, "rb") as file:
            pq.read_metadata(file)
    except OSError as error:  # of Arrow's own ones, about the content, none has a number
        return error.errno is not None
    except Exception:  # as in `Store._read`
        return False
    return True


def write_parquet(content: pa.Table, where: Any, **options: Any) -> None:
    """Writes a table to a path or sink. A few rows gain nothing by dictionaries and statistics per column,
    which are a quarter of the time that they take to write.
    """
    many = len(content) > FEW_ROWS
    pq.write_table(
        content, where, write_page_checksum=True, use_dictionary=many, write_statistics=many, **options
    )


def bundle_name(names: Iterable[str]) -> str:
    """A name for the file that takes the place of `names`."""
    return "part-" + hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]


def ids(part: pa.Table) -> set[str]:
    """The trials that have rows in a file."""
    return set(part["trial_id"].to_pylist())


def conform(part: pa.Table, schema: pa.Schema, keys: Iterable[str]) -> pa.Table:
    """`part` with exactly the columns of `schema`: null where it lacks one.

    Raises ArrowInvalid if a key is missing, a column is there twice, or a value is none of a row of ours.
    """
    if not part.schema.equals(schema):
        if lacking := [key for key in keys if key not in part.column_names]:
            raise pa.ArrowInvalid(f"no column {', '.join(lacking)}: not a file of this table")
        twice = [name for name, times in Counter(part.column_names).items() if times > 1]
        if twice:
            raise pa.ArrowInvalid(f"several columns {', '.join(twice)}: not a file of this table")
        columns = [
            part[field.name].cast(field.type)
            if field.name in part.column_names
            else pa.nulls(len(part), field.type)
            for field in schema
        ]
        part = pa.table(columns, schema=schema)
    part.validate(full=True)  # text that is none would stop whoever reads it
    check_values(part, keys)
    return part


def check_values(part: pa.Table, keys: Iterable[str]) -> None:
    """Raises ArrowInvalid for a null in a key, an id that is none, or a time that Python has no word for."""
    for name in keys:
        if part[name].null_count:
            raise pa.ArrowInvalid(f"a row without {name}: not a file of this table")
        if name.endswith("_id") and not all_true(pc.match_substring_regex(part[name], ID)):  # it names files
            raise pa.ArrowInvalid(f"{name} holds something that is no id: not a file of this table")
    for field in part.schema:
        if pa.types.is_timestamp(field.type):
            times = part[field.name].cast(pa.int64())
            if not all_true(pc.and_(pc.less(FIRST_US, times), pc.less(times, LAST_US))):
                raise pa.ArrowInvalid(f"{field.name} lies thousands of years away: not a file of this table")


def all_true(values: pa.ChunkedArray) -> bool:
    """Whether none is false; nulls are not."""
    return pc.all(values, min_count=0).as_py() is not False


def newest(table: str, content: pa.Table) -> pa.Table:
    """The last row of each key, in order of first appearance of those rows."""
    keys = list(zip(*(content[key].to_pylist() for key in KEYS[table]), strict=True))
    last = {key: i for i, key in enumerate(keys)}
    return content if len(last) == len(keys) else content.take(sorted(last.values()))


def load(
    results: str | Path = "results",
    table: str = "trials",
    *,
    status: str | None = "done",
    all_columns: bool = False,
) -> "pd.DataFrame":
    """The rows of one table as a DataFrame: `trials` (by default the done ones; `status=None`: all) with the
    measures that a task keeps in a table of its own, or any table as it is.

    Columns of `trials` that are null in all these rows are left out, unless `all_columns`. Raises UserError
    where there are no results, or no such table.
    """
    if table not in TABLES:
        raise UserError(f"table={table!r} is unknown; use one of {', '.join(TABLES)}")
    if status not in (None, *STATUSES):
        raise UserError(f"status={status!r} is unknown; use one of {', '.join(STATUSES)}, or None for all")
    store = Store(results)
    if not any(store.paths(name) for name in TABLES):
        raise UserError(
            f"no results in {results}; run a sweep first: python -m attnsweep new quickstart writes one"
        )
    frame = store.read(table).to_pandas()
    if table != "trials":
        return frame
    if status is not None:
        frame = frame[frame["status"] == status].reset_index(drop=True)
    for own in OWN:
        measures = store.read(own).to_pandas().drop(columns="schema_version")
        frame = frame.merge(measures, on="trial_id", how="left", validate="one_to_one")
    return frame if all_columns else frame.dropna(axis="columns", how="all")
