"""The three tables of results: their columns, and how they are written, read and compacted.

Each table is a folder of Parquet files that share one explicit schema, so that pandas, polars and duckdb read
the folder as it is, even while a sweep is writing. A file appears by a rename, whole or not at all. A trial's
rows are first in files of their own, named after the trial, so that writing them again replaces them;
compaction moves what is final into one file, because a thousand files take seconds to read and one takes
milliseconds.
"""

import hashlib
import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from attnsweep.axes import AXES, NOT_ARCHITECTURE
from attnsweep.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2
STATUSES = ("done", "failed", "stopped", "diverged")
FINAL = ("done", "diverged")  # running such a trial again would give the same row
ID = r"^[^/\\\x00-\x1f]{1,200}$"
FIRST_US, LAST_US = -62_135_596_800_000_001, 253_402_300_800_000_000  # of the years 1 to 9999
READS = 10  # attempts at reading a table while another process compacts it
Row = dict[str, Any]
log = logging.getLogger("attnsweep")

STR, INT, FLOAT, BOOL, TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Column:
    """One column of a table: its name, Arrow type, unit and meaning."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str


ARROW = {str: STR, int: INT, float: FLOAT}
CONFIGURATION = tuple(Column(axis.name, ARROW[axis.kind], axis.unit, axis.meaning) for axis in AXES.values())
ARCHITECTURE = tuple(column for column in CONFIGURATION if column.name not in NOT_ARCHITECTURE)
TOKEN_ACCURACY = "share of the answers' tokens, each end included, that decoding gets right, on the"
QUALITY = (
    Column("val_acc", FLOAT, "fraction", "accuracy on the validation split at the selected epoch, 0..1"),
    Column("test_acc", FLOAT, "fraction", "accuracy on the test split at the selected epoch, 0..1"),
    Column("val_token_acc", FLOAT, "fraction", f"sequences: {TOKEN_ACCURACY} validation split"),
    Column("test_token_acc", FLOAT, "fraction", f"sequences: {TOKEN_ACCURACY} test split"),
    Column("test_acc_long", FLOAT, "fraction", "sequences: accuracy on test examples of twice the length"),
    Column(
        "test_acc_best",
        FLOAT,
        "fraction",
        "highest test accuracy of any epoch; to compare with published tables",
    ),
    Column(
        "best_epoch", INT, "epoch", "the selected epoch, counted from 1: the first with the highest val_acc"
    ),
    Column("val_loss", FLOAT, "nat", "mean cross-entropy on the validation split at the selected epoch"),
    Column("train_loss", FLOAT, "nat", "mean training loss of the last epoch"),
)
LATENCY_OF_TRIAL = (
    Column(
        "latency_ms_p50",
        FLOAT,
        "ms",
        "median time of a forward pass (sequences: of decoding an answer) at latency_batch, on measured_on",
    ),
    Column("latency_ms_p90", FLOAT, "ms", "90th percentile of the same"),
    Column("latency_ms_p99", FLOAT, "ms", "99th percentile of the same"),
    Column("latency_batch", INT, "example", "batch size of the latency columns"),
    Column("latency_ms_per_token", FLOAT, "ms", "sequences: latency_ms_p50 over the tokens decoded in it"),
    Column(
        "throughput_per_s",
        FLOAT,
        "1/s",
        "examples per second at the throughput batch (see the latency table)",
    ),
    Column("measured_on", STR, "", "device and thread count that latency and throughput were measured on"),
)
COST = (
    Column("params", INT, "", "trainable parameters"),
    Column("macs", INT, "", "multiply-accumulates of one forward pass of one example"),
    *LATENCY_OF_TRIAL[:-1],
    Column(
        "peak_mem_mb",
        FLOAT,
        "MB",
        "peak memory of training: allocated on the GPU, or resident in the worker process",
    ),
    LATENCY_OF_TRIAL[-1],
)
EFFORT = (
    Column(
        "train_s", FLOAT, "s", "wall clock of the trial in its worker, evaluation included, over all attempts"
    ),
    Column("epoch_s", FLOAT, "s", "median wall clock of one epoch's training steps"),
    Column("samples_per_s", FLOAT, "1/s", "training examples per second, median over epochs"),
    Column("started_at", TIME, "UTC", "start of the first attempt that led to this row"),
    Column("finished_at", TIME, "UTC", "when the trial ended"),
    Column("attempts", INT, "", "how many times the trial was started"),
)
PROVENANCE = (
    Column("git_sha", STR, "", "commit of the working directory; null outside a repository"),
    Column("git_dirty", BOOL, "", "whether the working directory had uncommitted changes"),
    Column("code_hash", STR, "", "hash of the package's source files"),
    Column("data_sha256", STR, "", "SHA-256 over the data set's files"),
    Column("torch", STR, "", "version of torch"),
    Column("cuda", STR, "", "version of CUDA that trained; null on other devices"),
    Column("ray", STR, "", "version of Ray"),
    Column("python", STR, "", "version of Python"),
    Column("attnsweep", STR, "", "version of this package"),
    Column("device", STR, "", "what trained: name of the GPU, or of the CPU with its thread count"),
    Column("cpu", STR, "", "name of the CPU"),
    Column("host", STR, "", "name of the host that trained"),
    Column("schema_version", INT, "", "version of this table's schema"),
)
TABLES: dict[str, tuple[Column, ...]] = {
    "trials": (
        Column("trial_id", STR, "", "12 hex digits; hash of all that determines the result"),
        Column("arch_id", STR, "", "12 hex digits; hash of all that determines latency and params"),
        Column("sweep", STR, "", "the sweep that ran the trial first"),
        Column("status", STR, "", "done, failed, stopped (by a scheduler) or diverged (loss not finite)"),
        Column("error", STR, "", "why the trial failed or diverged"),
        *CONFIGURATION, *QUALITY, *COST, *EFFORT, *PROVENANCE,
    ),
    "epochs": (
        Column("trial_id", STR, "", "the trial"),
        Column("epoch", INT, "epoch", "counted from 1"),
        Column("lr", FLOAT, "", "learning rate of the epoch's last step"),
        Column("train_loss", FLOAT, "nat", "mean loss over the epoch's training steps"),
        Column("val_acc", FLOAT, "fraction", "accuracy on the validation split after the epoch, 0..1"),
        Column("val_loss", FLOAT, "nat", "mean cross-entropy on the validation split after the epoch"),
        Column("test_acc", FLOAT, "fraction", "accuracy on the test split after the epoch; selects nothing"),
        *QUALITY[2:5],
        Column("epoch_s", FLOAT, "s", "wall clock of the training steps"),
        Column("eval_s", FLOAT, "s", "wall clock of the evaluation"),
        Column("samples_per_s", FLOAT, "1/s", "training examples per second"),
        Column("finished_at", TIME, "UTC", "when the epoch ended"),
        Column("schema_version", INT, "", "version of this table's schema"),
    ),
    "latency": (
        Column("arch_id", STR, "", "the architecture"),
        Column("measured_on", STR, "", "device and thread count"),
        Column("batch", INT, "example", "examples in one forward pass"),
        Column("precision", STR, "", "fp32, or bf16 by autocast"),
        *ARCHITECTURE,
        Column("params", INT, "", "trainable parameters"),
        Column("macs", INT, "", "multiply-accumulates of one forward pass of one example"),
        Column(
            "latency_ms_p50",
            FLOAT,
            "ms",
            "median host time of one synchronised forward pass (sequences: of decoding an answer)",
        ),
        Column("latency_ms_p90", FLOAT, "ms", "90th percentile"),
        Column("latency_ms_p99", FLOAT, "ms", "99th percentile"),
        Column("latency_ms_per_token", FLOAT, "ms", "latency_ms_p50 over the tokens decoded in it"),
        Column("latency_ms_iqr", FLOAT, "ms", "interquartile range"),
        Column("unstable", BOOL, "", "whether the interquartile range exceeds a tenth of the median"),
        Column("device_ms", FLOAT, "ms", "time of a pass by device events, synchronised once; null on CPUs"),
        Column("throughput_per_s", FLOAT, "1/s", "examples per second: batch over the median"),
        Column("calls", INT, "", "timed calls"),
        Column("warmup_calls", INT, "", "calls before timing began"),
        Column("peak_mem_mb", FLOAT, "MB", "peak memory of the passes: on the GPU, or of the process"),
        Column("threads", INT, "", "CPU threads of one forward pass"),
        Column("torch", STR, "", "version of torch"),
        Column("host", STR, "", "name of the host"),
        Column("measured_at", TIME, "UTC", "when the measurement ended"),
        Column("schema_version", INT, "", "version of this table's schema"),
    ),
}  # fmt: skip
KEYS = {
    "trials": ("trial_id",),
    "epochs": ("trial_id", "epoch"),
    "latency": ("arch_id", "measured_on", "batch", "precision"),
}
SCHEMAS = {
    table: pa.schema(
        [pa.field(c.name, c.type, metadata={"unit": c.unit, "meaning": c.meaning}) for c in columns]
    )
    for table, columns in TABLES.items()
}


class Store:
    """The tables below one root: a local folder, or any URI that pyarrow opens (s3://bucket/prefix)."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.files: fs.FileSystem
        self.base: str
        try:
            self.files, self.base = (
                fs.FileSystem.from_uri(self.root) if "://" in self.root else local(self.root)
            )
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"results={self.root!r} cannot be opened: {error}") from error

    @property
    def is_local(self) -> bool:
        return isinstance(self.files, fs.LocalFileSystem)

    def write(self, table: str, rows: Sequence[Row], name: str) -> None:
        """Writes `rows` as the file `name`.parquet of a table, replacing the file of that name as a whole."""
        if strange := {key for row in rows for key in row} - set(SCHEMAS[table].names):
            raise KeyError(f"the table {table} has no column {', '.join(sorted(strange))}")
        rows = [{**row, "schema_version": SCHEMA_VERSION} for row in rows]
        self._write(table, pa.Table.from_pylist(rows, schema=SCHEMAS[table]), name)

    def _write(self, table: str, content: pa.Table, name: str) -> None:
        target = f"{self.base}/{table}/{name}.parquet"
        self.files.create_dir(f"{self.base}/{table}", recursive=True)
        if not self.is_local:  # an object store shows an object when its upload is complete
            pq.write_table(content, target, filesystem=self.files, write_page_checksum=True)
            return
        scratch = f"{self.base}/.{table}-{name}-{uuid.uuid4().hex[:8]}.tmp"
        try:
            pq.write_table(content, scratch, filesystem=self.files, write_page_checksum=True)
            os.replace(scratch, target)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def paths(self, table: str) -> list[str]:
        """The files of a table, oldest first, so that of two rows with one key the later one is the newer."""
        selector = fs.FileSelector(f"{self.base}/{table}", allow_not_found=True)
        listed = self.files.get_file_info(selector)
        infos = [info for info in listed if info.is_file and path_of(info).endswith(".parquet")]
        return [info.path for info in sorted(infos, key=lambda info: (info.mtime_ns or 0, info.path))]

    def read(self, table: str) -> pa.Table:
        """All rows of a table by its schema, the newest of each key; a file that cannot be read is skipped
        with a warning.
        """
        for _ in range(READS):
            try:
                parts = [part for _, part in self._sources(table)]
            except FileNotFoundError:  # compacted between the listing and now: list again
                continue
            return newest(table, pa.concat_tables([SCHEMAS[table].empty_table(), *parts]))
        raise OSError(f"the files of {self.base}/{table} vanish as fast as they are listed")

    def _read(self, table: str, path: str) -> pa.Table | None:
        try:
            file = pq.ParquetFile(path, filesystem=self.files, page_checksum_verification=True)
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

    def compact(self) -> None:
        """Moves final rows of each table into one file; what a retry would replace stays where it is."""
        trials = self._sources("trials")
        ended = [part.filter(pc.is_in(part["status"], pa.array(FINAL))) for _, part in trials]
        final = set().union(*(ids(part) for part in ended))
        self._merge("trials", [(path, part) for path, part in trials if ids(part) <= final])
        self._merge("epochs", [(path, part) for path, part in self._sources("epochs") if ids(part) <= final])
        self._merge("latency", self._sources("latency"))

    def bundle(self, table: str, rows: Sequence[Row], names: Sequence[str]) -> None:
        """Writes final rows as one file in place of the files `names`, in which they stand already."""
        if not names:
            return
        self.write(table, rows, bundle_name(names))
        for name in names:
            self.files.delete_file(f"{self.base}/{table}/{name}.parquet")

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
                self.files.delete_file(path)
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
            self.files.delete_file(path)

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


def local(root: str) -> tuple[fs.FileSystem, str]:
    """The local file system and the absolute path of `root` on it."""
    return fs.LocalFileSystem(), str(Path(root).expanduser().absolute())


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
    results: str | Path = "results", table: str = "trials", *, status: str | None = "done"
) -> "pd.DataFrame":
    """The rows of one table as a DataFrame: `trials` (by default the done ones; `status=None`: all), `epochs`
    or `latency`.

    Raises UserError where there are no results, or no such table.
    """
    if table not in TABLES:
        raise UserError(f"table={table!r} is unknown; use one of {', '.join(TABLES)}")
    if status not in (None, *STATUSES):
        raise UserError(f"status={status!r} is unknown; use one of {', '.join(STATUSES)}, or None for all")
    store = Store(results)
    if not any(store.paths(name) for name in TABLES):
        raise UserError(
            f"no results in {results}; run a sweep first: python -m attnsweep sweeps/quickstart.py"
        )
    frame = store.read(table).to_pandas()
    if table == "trials" and status is not None:
        frame = frame[frame["status"] == status].reset_index(drop=True)
    return frame
