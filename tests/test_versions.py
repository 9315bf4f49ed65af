"""Files of other versions of the schema, and files that unpack to far more than they are."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attnsweep.core import files
from attnsweep.engine.writer import sole_writer
from attnsweep.results import parquet
from attnsweep.results.loading import load
from attnsweep.results.merge import merge
from attnsweep.results.schema import KEYS, MOVED, SCHEMA_VERSION, SCHEMAS, TABLES
from attnsweep.results.store import Row, Store

READERS: dict[str, Callable[[str], list[Any]]] = {
    "pandas": lambda folder: pd.read_parquet(folder)["trial_id"].tolist(),
    "polars": lambda folder: pl.read_parquet(folder)["trial_id"].to_list(),
    "duckdb": lambda folder: [
        row[0] for row in duckdb.sql(f"select trial_id from read_parquet('{folder}/*.parquet')").fetchall()
    ],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def row(trial_id: str, **columns: Any) -> Row:
    return {"trial_id": trial_id, "status": "done", **columns}


def put(
    store: Store, table: str, name: str, *rows: Row, without: tuple[str, ...] = (), **more: pa.Array
) -> Path:
    """Writes a file of a table as another version would: without some columns, and with more."""
    content = pa.Table.from_pylist([*rows], schema=SCHEMAS[table]).drop_columns([*without])
    for column, values in more.items():
        content = content.append_column(column, values)
    path = Path(store.base) / table / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)
    return path


def older(store: Store, trial_id: str, *, name: str = "", **columns: Any) -> Path:
    """A file of a version that knew no sensor, beam or seed."""
    lacks = ("sensor", "beam", "seed")
    return put(store, "trials", name or trial_id, row(trial_id, schema_version=2, **columns), without=lacks)


def newer(store: Store, *trial_ids: str, name: str = "newer", table: str = "trials", **columns: Any) -> Path:
    """A file of a version that has a column more."""
    key = {"epoch": 1} if table == "epochs" else {"status": "done"}
    rows = [{"trial_id": one, "schema_version": SCHEMA_VERSION + 1, **key, **columns} for one in trial_ids]
    return put(store, table, name, *rows, joules=pa.array([7.5] * len(rows)))


# --- Older files ---


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_reads_old_results_once_a_driver_has_begun(
    store: Store, tmp_path: Path, reader: str
) -> None:
    older(store, "a", depth=3)
    store.write("trials", [row("b", depth=4)], "b")
    with sole_writer(store, tmp_path / "runs"):
        pass
    assert sorted(READERS[reader](f"{store.base}/trials")) == ["a", "b"]
    read = {one["trial_id"]: one for one in store.read("trials").to_pylist()}
    assert (read["a"]["depth"], read["a"]["beam"], read["b"]["depth"]) == (3, None, 4)
    assert {pq.read_schema(path) == SCHEMAS["trials"] for path in store.paths("trials")} == {True}
    assert {one["schema_version"] for one in read.values()} == {SCHEMA_VERSION}


def test_an_old_file_that_is_rewritten_becomes_no_newer_than_what_replaced_its_rows(store: Store) -> None:
    put(store, "trials", "both", row("a", depth=1), row("b", depth=1), without=("seed",))
    store.write("trials", [row("a", depth=2)], "a")
    before = store.read("trials").sort_by("trial_id")["depth"].to_pylist()
    store.upgrade()
    assert store.read("trials").sort_by("trial_id")["depth"].to_pylist() == before == [2, 1]
    assert sorted(pd.read_parquet(f"{store.base}/trials")["trial_id"]) == ["a", "b"]


def test_what_is_of_this_version_is_not_rewritten(store: Store) -> None:
    for table, keys in KEYS.items():
        key = {name: 1 if pa.types.is_integer(SCHEMAS[table].field(name).type) else "a" for name in keys}
        store.write(table, [key], "a")
    before = {path: Path(path).stat().st_mtime_ns for table in TABLES for path in store.paths(table)}
    store.upgrade()
    assert {path: Path(path).stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_a_disk_that_is_full_while_old_files_are_rewritten_costs_no_row(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    older(store, "a", depth=3)
    older(store, "b", depth=4)

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(files.os, "replace", full)
        store.upgrade()
    assert sorted(load(store.root)["depth"]) == [3, 4]


# --- Newer files ---

CHANGES: dict[str, Callable[[Store], object]] = {
    "compact": lambda store: store.compact(),
    "update_trials": lambda store: store.update_trials({"a": {"depth": 9}, "b": {"depth": 9}}),
    "bundle": lambda store: store.bundle("trials", [row("b")], ["b", "newer"]),
    "supersede": lambda store: store.supersede("trials", [row("a"), row("c")], ["trial_id"]),
    "upgrade": lambda store: store.upgrade(),
    "merge": lambda store: (
        merge(store.root, f"{store.root}-other") and merge(f"{store.root}-other", store.root)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_no_column_of_a_newer_version_is_dropped(store: Store, change: str) -> None:
    paths = [newer(store, "a", "z"), newer(store, "a", table="epochs")]
    for name in "bcd":
        store.write("trials", [row(name)], name)
        store.write("epochs", [{"trial_id": name, "epoch": 1}], name)
    older(store, "old")
    before = {path: path.read_bytes() for path in paths}
    CHANGES[change](store)
    assert {path: path.read_bytes() for path in paths} == before
    assert {*store.read("trials")["trial_id"].to_pylist()} == {*"abcdz", "old"}


def test_a_file_is_newer_by_its_version_even_where_no_column_is_new(store: Store) -> None:
    path = put(store, "trials", "n", row("a", schema_version=SCHEMA_VERSION + 1), without=("beam",))
    before = path.read_bytes()
    store.write("trials", [row("b")], "b")
    store.compact()
    assert path.read_bytes() == before and len(store.read("trials")) == 2


def test_a_column_that_somebody_added_is_kept(store: Store) -> None:
    path = put(store, "trials", "mine", row("a"), note=pa.array(["look at this one"]))
    store.write("trials", [row("b")], "b")
    store.compact()
    assert pq.read_table(path)["note"].to_pylist() == ["look at this one"]


@pytest.mark.slow
def test_rows_of_a_newer_version_travel_with_all_their_columns(store: Store, tmp_path: Path) -> None:
    there = Store(tmp_path / "there")
    newer(there, "a", "b", depth=2)
    newer(there, "a", table="epochs")
    there.write("trials", [row("c", depth=2)], "c")
    store.write("trials", [row("a", depth=1), row("b", depth=1)], "ours")
    store.update_trials({"b": {"finished_at": pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime()}})
    there_a = {"finished_at": pd.Timestamp("2026-01-02", tz="UTC").to_pydatetime()}
    newer(there, "a", depth=2, name="later", **there_a)
    assert merge(there.root, store.root) == 2
    joules = {
        one["trial_id"]: one.get("joules")
        for path in store.paths("trials")
        for one in pq.read_table(path).to_pylist()
    }
    assert joules == {"a": 7.5, "b": None, "c": None}
    assert sorted(store.read("trials")["depth"].to_pylist()) == [1, 2, 2]
    assert [pq.read_table(path)["joules"].to_pylist() for path in store.paths("epochs")] == [[7.5]]
    assert merge(there.root, store.root) == 0, "and only once"


# --- Columns that move to a table of their own ---


@pytest.fixture
def driven(store: Store) -> Store:
    """Results of an earlier version, in which what planners are judged by stood in `trials`."""
    times, comforts = pa.array([0.5, None, None]), pa.array([None, 0.25, None])
    rows = [row(name, schema_version=3, depth=1) for name in ("a", "b", "image")]
    put(store, "trials", "three", *rows, without=("numerics",), test_ttc=times, test_comfort=comforts)
    ones = {"test_ttc": pa.array([1.0]), "test_comfort": pa.array([1.0])}
    put(store, "trials", "d", row("d", schema_version=3), without=("numerics",), **ones)
    return store


EXPECTED = {"a": (0.5, None), "b": (None, 0.25), "d": (1.0, 1.0)}


def driving(store: Store) -> dict[str, tuple[float | None, float | None]]:
    rows = store.read("driving").to_pylist()
    assert len(rows) == len({one["trial_id"] for one in rows})
    return {one["trial_id"]: (one["test_ttc"], one["test_comfort"]) for one in rows}


@pytest.mark.slow
def test_columns_that_have_moved_are_read_where_they_are_now_before_anything_is_rewritten(
    driven: Store,
) -> None:
    assert driving(driven) == EXPECTED
    assert driven.read("trials").column_names == SCHEMAS["trials"].names
    assert len(driven.read("trials")) == 4


@pytest.mark.slow
@pytest.mark.parametrize("change", ["upgrade", "compact", "update_trials", "supersede"])
def test_columns_that_have_moved_are_rewritten_where_they_are_now(driven: Store, change: str) -> None:
    CHANGES[change](driven)
    assert driving(driven) == EXPECTED
    assert sorted(pl.read_parquet(f"{driven.base}/driving")["trial_id"]) == ["a", "b", "d"]
    assert "test_ttc" not in pl.read_parquet(f"{driven.base}/trials").columns
    driven.compact()
    assert driving(driven) == EXPECTED and len(driven.paths("driving")) == 1


def test_a_newer_row_of_a_table_is_not_replaced_by_one_that_moves_there(driven: Store) -> None:
    driven.write("driving", [{"trial_id": "d", "test_ttc": 0.0}], "new")
    driven.upgrade()
    assert driving(driven) == {**EXPECTED, "d": (0.0, None)}


@pytest.mark.slow
@pytest.mark.parametrize("renamed", range(4))
def test_a_rewriting_that_is_cut_off_goes_on_the_next_time(
    driven: Store, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    left, rename = iter(range(renamed)), files.os.replace

    def until_killed(*arguments: Any, **named: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(*arguments, **named)

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(files.os, "replace", until_killed)
        driven.upgrade()
    assert driving(driven) == EXPECTED
    driven.upgrade()
    assert driving(driven) == EXPECTED and len(driven.read("trials")) == 4


def test_an_older_version_leaves_the_files_of_one_that_has_moved_columns(store: Store) -> None:
    """What today's version makes of tomorrow's files."""
    path = put(store, "trials", "a", row("a", schema_version=SCHEMA_VERSION + 1), without=("val_acc",))
    before = path.read_bytes()
    store.update_trials({"a": {"depth": 2}})
    store.compact()
    assert path.read_bytes() == before and store.read("trials")["trial_id"].to_pylist() == ["a"]


# --- Files that unpack to far more than they are ---


def million_rows() -> pa.Table:
    values = {"trial_id": ["x"] * 1_000_000, "status": ["done"] * 1_000_000, "error": ["y" * 60] * 1_000_000}
    return pa.table(values)


def long_text(*, rows: int = 1) -> pa.Table:
    return pa.table(
        {"trial_id": [f"{i}" for i in range(rows)], "error": ["x" * (200_000_000 // rows)] * rows}
    )


def one_text_in_each_row() -> pa.Table:
    """A text of 2 MB that stands in the file once and in 200 rows."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["x" * 2_000_000]))
    return pa.table({"trial_id": [f"{i}" for i in range(200)], "error": text})


def wide() -> pa.Table:
    return pa.table({"trial_id": ["a"], **{f"x{i}": [1] for i in range(10_000)}})


BOMBS: dict[str, tuple[Callable[[], pa.Table], dict[str, Any]]] = {
    "a million equal rows": (million_rows, {}),
    "a million equal rows, in many row groups": (million_rows, {"row_group_size": 1000}),
    "a long text": (long_text, {"compression": "zstd"}),
    "several long texts": (lambda: long_text(rows=7), {"compression": "gzip", "use_dictionary": False}),
    "one text in each row": (one_text_in_each_row, {"compression": "zstd"}),
    "a column of zeros": (lambda: pa.table({"trial_id": ["a"] * 9_000_000}), {"compression": "zstd"}),
    "ten thousand columns": (wide, {}),
}

POOLS: list[pa.MemoryPool] = []  # Arrow frees into them until the process ends


@contextlib.contextmanager
def peak_memory() -> Iterator[pa.MemoryPool]:
    """A pool that counts what Arrow allocates meanwhile."""
    default = pa.default_memory_pool()
    POOLS.append(pa.proxy_memory_pool(default))
    pa.set_memory_pool(POOLS[-1])
    yield POOLS[-1]
    pa.set_memory_pool(default)


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_unpacks_to_many_times_its_size_is_skipped_with_a_sentence(
    store: Store, bomb: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, options = BOMBS[bomb]
    store.write("trials", [row("good")], "good")
    path = Path(store.base) / "trials/bomb.parquet"
    pq.write_table(make(), path, **options)
    with peak_memory() as counted, caplog.at_level(logging.WARNING, "attnsweep"):
        assert load(store.root)["trial_id"].tolist() == ["good"]
    assert counted.max_memory() < 30e6
    (record,) = caplog.records
    assert "bomb.parquet, which cannot be read (it" in record.getMessage()


@pytest.mark.parametrize("count", [1, 25, 5_000])
def test_rows_that_hardly_differ_are_no_such_file(store: Store, count: int) -> None:
    rows = [row(f"{i:012x}", error="out of memory " * 20, model="vit") for i in range(count)]
    store.write("trials", rows, "all")
    store.write("epochs", [{"trial_id": "a", "epoch": i} for i in range(count)], "all")
    assert len(store.read("trials")) == len(store.read("epochs")) == count


def test_texts_that_were_read_once_each_are_equal_to_those_read_as_they_are(store: Store) -> None:
    rows = [row(f"{i:05}", model="vit", error=None if i % 3 else f"e{i}" * 9, depth=i) for i in range(3_000)]
    store.write("trials", rows, "all")
    (path,) = store.paths("trials")
    numbers = pq.read_metadata(path)
    most = parquet.MOST_TIMES * Path(path).stat().st_size
    assert numbers.num_rows * numbers.row_group(0).total_byte_size > most, "so that they are read once each"
    assert store.read("trials").equals(pq.read_table(path))


def test_a_table_that_columns_move_to_has_them_and_the_other_its_key() -> None:
    assert MOVED
    for move in MOVED:
        assert {*move.columns} <= {*SCHEMAS[move.into].names} - {*SCHEMAS[move.out_of].names}
        assert {*KEYS[move.into]} <= {*SCHEMAS[move.out_of].names}
