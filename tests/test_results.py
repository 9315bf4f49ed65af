import contextlib
import errno
import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from attnsweep.core import columns
from attnsweep.core.errors import UserError
from attnsweep.results import parquet, storage
from attnsweep.results.loading import load
from attnsweep.results.schema import FINAL, KEYS, SCHEMA_VERSION, SCHEMAS, TABLES
from attnsweep.results.store import Row, Store
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import resolve

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def row(trial_id: str, status: str = "done", **values: object) -> Row:
    return {"trial_id": trial_id, "status": status, "model": "vit", **values}


def keyed(table: str, number: int) -> Row:
    """A row of any table with nothing but its key."""
    types = {column.name: column.type for column in TABLES[table]}
    return {key: number if pa.types.is_integer(types[key]) else f"{key}{number}" for key in KEYS[table]}


def files(store: Store, table: str = "trials") -> list[str]:
    return sorted(Path(path).stem for path in store.paths(table))


def column(store: Store, name: str) -> dict[str, Any]:
    """One column of `trials`, by trial."""
    content = store.read("trials")
    ids = content["trial_id"].to_pylist()
    assert len(set(ids)) == len(ids), "a trial has one row"
    return dict(zip(ids, content[name].to_pylist(), strict=True))


# The schema


def test_every_table_begins_with_its_key_and_ends_with_the_version_of_its_schema() -> None:
    for table, described in TABLES.items():
        names = [column.name for column in described]
        assert tuple(names[: len(KEYS[table])]) == KEYS[table]
        assert names[-1] == "schema_version"
        assert len(set(names)) == len(names)


def test_every_column_has_a_meaning_and_every_file_carries_it(store: Store) -> None:
    for table, described in TABLES.items():
        assert all(column.meaning for column in described)
        store.write(table, [keyed(table, 0)], "one")
        written = pq.read_schema(store.paths(table)[0])
        for one in described:
            metadata = written.field(one.name).metadata
            assert metadata[b"meaning"].decode() == one.meaning and metadata[b"unit"].decode() == one.unit


def test_a_trial_fills_columns_that_the_table_has() -> None:
    names = {column.name for column in TABLES["trials"]}
    assert make_trial(resolve({"model": "vit"}), Path("nowhere")).row().keys() < names


@pytest.mark.parametrize("table", TABLES)
def test_types_and_columns_of_a_file_do_not_depend_on_its_rows(store: Store, table: str) -> None:
    store.write(table, [keyed(table, 0)], "null")
    store.write(table, [{**keyed(table, 1), **dict.fromkeys({"lr"} & set(SCHEMAS[table].names), 1)}], "int")
    store.write(table, [], "empty")
    for path in store.paths(table):
        assert pq.read_schema(path).equals(SCHEMAS[table])


VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    columns.STR: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    columns.INT: st.integers(-(2**63), 2**63 - 1),
    columns.FLOAT: st.floats(allow_nan=False),
    columns.BOOL: st.booleans(),
    columns.BITS: st.binary(max_size=8),
    columns.TIME: st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
}


def rows_of(table: str) -> st.SearchStrategy[Row]:
    """Rows with any value in any column but the key's, or none."""
    keys = st.integers(0, 3).map(lambda number: keyed(table, number))
    others = {
        one.name: st.none() | VALUES[one.type]
        for one in TABLES[table]
        if one.name not in (*KEYS[table], "schema_version")
    }
    return st.tuples(keys, st.fixed_dictionaries({}, optional=others)).map(lambda parts: parts[0] | parts[1])


@pytest.mark.slow
@settings(max_examples=20)
@given(st.data())
@pytest.mark.parametrize("table", TABLES)
def test_what_is_written_is_read_again_with_nulls_for_what_was_not(table: str, data: st.DataObject) -> None:
    written = data.draw(st.lists(rows_of(table), max_size=3, unique_by=lambda one: one[KEYS[table][0]]))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.write(table, written, "one")
        empty = dict.fromkeys(SCHEMAS[table].names) | {"schema_version": SCHEMA_VERSION}
        assert store.read(table).schema.equals(SCHEMAS[table])
        assert store.read(table).to_pylist() == [empty | one for one in written]


# Any reader reads a table's folder as it is


Reader = Callable[[Path], pa.Table]
READERS: dict[str, Reader] = {
    "pandas": lambda folder: pa.Table.from_pandas(pd.read_parquet(folder), preserve_index=False),
    "polars": lambda folder: pl.read_parquet(folder).to_arrow(),
    "duckdb": lambda folder: duckdb.sql(f"select * from '{folder}/*.parquet'").to_arrow_table(),
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


def read_by(reader: Reader, store: Store, name: str) -> dict[str, Any]:
    """One column of `trials` by trial, through another program's eyes."""
    content = reader(Path(store.base) / "trials")
    assert content.column_names == SCHEMAS["trials"].names
    assert content["trial_id"].null_count == 0
    ids = content["trial_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return dict(
        zip(
            ids,
            (int(x) if x == x and x is not None else None for x in content[name].to_pylist()),
            strict=True,
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("depths", [(None, 6, 2), (6, None, 2), (None, None, 6), (None, None, None)])
def test_files_with_and_without_a_depth_are_read_together(store: Store, reader: Reader, depths: Any) -> None:
    expected = {f"{i}": depth for i, depth in enumerate(depths)}
    for trial_id, depth in expected.items():
        store.write("trials", [row(trial_id, depth=depth)], trial_id)
    assert read_by(reader, store, "depth") == expected


def test_small_and_compacted_files_are_read_together(store: Store, reader: Reader) -> None:
    expected = {f"{i}": i if i % 2 else None for i in range(8)}
    for i, (trial_id, depth) in enumerate(expected.items()):
        store.write("trials", [row(trial_id, depth=depth)], trial_id)
        if i in (2, 5):
            store.compact()
    assert len(store.paths("trials")) == 3
    assert read_by(reader, store, "depth") == expected


def test_a_table_is_read_while_another_file_is_being_written(
    store: Store, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("trials", [row("a", depth=1)], "a")
    seen, rename = [], os.replace

    def halfway(source: str, target: str, **folders: int) -> None:
        scratch = Path(store.base) / source
        whole = scratch.read_bytes()
        scratch.write_bytes(whole[: len(whole) // 2])
        seen.append(read_by(reader, store, "depth"))
        scratch.write_bytes(whole)
        rename(source, target, **folders)

    monkeypatch.setattr(os, "replace", halfway)
    store.write("trials", [row("b", depth=2)], "b")
    store.write("trials", [row("a", depth=3)], "a")
    assert seen == [{"a": 1}, {"a": 1, "b": 2}]
    assert read_by(reader, store, "depth") == {"a": 3, "b": 2}


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_read_by_any_reader_with_its_own_columns_only(
    store: Store, reader: Reader, table: str
) -> None:
    for each, number in itertools.product(TABLES, range(3)):
        store.write(each, [keyed(each, number)], f"file{number}")
    content = reader(Path(store.base) / table)
    assert content.column_names == SCHEMAS[table].names
    assert content.num_rows == 3


def test_numbers_and_times_reach_pandas_as_such(store: Store) -> None:
    store.write("trials", [row("a", lr=1, params=7, finished_at=NOW, git_dirty=False)], "a")
    store.write("trials", [row("b", lr=1e-4, params=8, finished_at=NOW, git_dirty=True)], "b")
    frame = load(store.root)
    assert frame["lr"].tolist() == [1.0, 1e-4]
    assert (frame["params"].dtype, frame["lr"].dtype) == ("int64", "float64")
    assert frame["finished_at"].tolist() == [pd.Timestamp(NOW)] * 2
    assert frame["git_dirty"].tolist() == [False, True]
    assert frame.query("model == 'vit' and lr < 0.5")["trial_id"].tolist() == ["b"]


# Files that cannot be read


BROKEN = {"empty": b"", "torn": b"PAR1 and no more", "text": b"trial_id,status\na,done\n" * 100}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_torn_file_is_skipped_with_a_warning_and_the_other_rows_are_intact(
    store: Store, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for trial_id in "abc":
        store.write("trials", [row(trial_id, depth=1)], trial_id)
    torn = Path(store.base) / "trials/b.parquet"
    torn.write_bytes(content)
    with caplog.at_level(logging.WARNING, "attnsweep"):
        assert column(store, "depth") == {"a": 1, "c": 1}
    assert [str(torn) in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.slow
def test_any_way_of_tearing_a_file_is_noticed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.write("trials", [row("a")], "a")
    store.write("trials", [row("b")], "b")
    torn = Path(store.base) / "trials/b.parquet"
    whole = torn.read_bytes()
    for length in range(0, len(whole), 997):
        torn.write_bytes(whole[:length])
        caplog.clear()
        assert column(store, "status") == {"a": "done"}
        assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0", "a" * 201])
def test_an_id_that_may_name_another_folder_is_none(name: str) -> None:
    with pytest.raises(pa.ArrowInvalid, match="trial_id holds something that is no id"):
        parquet.conform(pa.table({"trial_id": ["a", name]}), SCHEMAS["trials"], KEYS["trials"])
    fine = pa.table({"trial_id": ["...", ".a", "..a", "a.b", "-"]})
    assert len(parquet.conform(fine, SCHEMAS["trials"], KEYS["trials"])) == 5


def test_unreadable_files_are_set_aside_where_they_stop_no_reader(
    store: Store, tmp_path: Path, reader: Reader
) -> None:
    for i, (name, content) in enumerate(BROKEN.items()):
        store.write("trials", [row(f"{i}", depth=i)], f"{i}")
        (Path(store.base) / f"trials/{name}.parquet").write_bytes(content)
    (Path(store.base) / "epochs").mkdir()
    (Path(store.base) / "epochs/torn.parquet").write_bytes(b"")
    moved = store.set_aside_unreadable(tmp_path / "aside")
    assert sorted(Path(path).name for path in moved) == [
        "empty.parquet",
        "text.parquet",
        "torn.parquet",
        "torn.parquet",
    ]
    assert {path.name: path.read_bytes() for path in (tmp_path / "aside").iterdir()} == {
        **{f"trials-{name}.parquet": content for name, content in BROKEN.items()},
        "epochs-torn.parquet": b"",
    }
    assert read_by(reader, store, "depth") == {"0": 0, "1": 1, "2": 2}
    assert store.set_aside_unreadable(tmp_path / "aside") == []


def test_nothing_is_set_aside_where_everything_can_be_read(store: Store, tmp_path: Path) -> None:
    store.write("trials", [row("a")], "a")
    assert store.set_aside_unreadable(tmp_path / "aside") == []
    assert not (tmp_path / "aside").exists()
    assert files(store) == ["a"]


@pytest.mark.parametrize(
    "foreign",
    [pa.table({"x": [1]}), pa.table({"trial_id": ["z"], "lr": ["high"]}), pa.table({"trial_id": [[1]]})],
    ids=["no key", "text for a number", "list for a key"],
)
def test_a_foreign_parquet_file_is_skipped_with_a_warning(
    store: Store, foreign: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    store.write("trials", [row("a")], "a")
    pq.write_table(foreign, Path(store.base) / "trials/foreign.parquet")
    assert column(store, "status") == {"a": "done"}
    assert "foreign.parquet" in caplog.text
    store.compact()
    assert "foreign" in files(store), "what is not ours is not ours to delete"


def test_files_and_folders_that_are_not_parquet_are_no_part_of_a_table(store: Store) -> None:
    store.write("trials", [row("a")], "a")
    (Path(store.base) / "trials/notes.txt").write_text("mine")
    (Path(store.base) / "trials/folder.parquet").mkdir()
    assert files(store) == ["a"]


def test_a_file_of_an_older_schema_has_nulls_for_what_it_lacks(store: Store) -> None:
    older = pa.table({"status": ["done"], "trial_id": ["old"], "depth": pa.array([3], pa.int32())})
    store.write("trials", [row("new", depth=4, lr=0.5)], "new")
    pq.write_table(older, Path(store.base) / "trials/old.parquet")
    content = store.read("trials")
    assert content.schema.equals(SCHEMAS["trials"])
    assert column(store, "depth") == {"old": 3, "new": 4}
    assert column(store, "lr") == {"old": None, "new": 0.5}
    store.compact()
    assert len(files(store)) == 1
    assert column(store, "depth") == {"old": 3, "new": 4}


# Writing


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each file is cut off in the middle, and then there is no room."""

    def write(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.truncate(os.open(source, os.O_WRONLY, dir_fd=src_dir_fd), 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", write)
        yield


def bytes_below(store: Store) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(store.base).rglob("*") if path.is_file()}


def test_a_retry_replaces_the_row(store: Store) -> None:
    store.write("trials", [row("a", "failed", error="no memory", attempts=1)], "a")
    store.write("trials", [row("a", "done", attempts=2)], "a")
    assert store.read("trials").to_pylist() == [
        dict.fromkeys(SCHEMAS["trials"].names) | row("a", attempts=2, schema_version=SCHEMA_VERSION)
    ]


def test_a_learning_curve_that_grows_replaces_the_shorter_one(store: Store) -> None:
    for epochs in (1, 3, 2):
        store.write("epochs", [{"trial_id": "a", "epoch": i, "val_acc": epochs} for i in range(epochs)], "a")
    assert store.read("epochs")["val_acc"].to_pylist() == [2, 2]


def test_the_newest_row_of_a_key_wins_wherever_it_stands(store: Store) -> None:
    for name, measured in (("a", 1), ("b", 3), ("c", 2)):
        store.write("latency", [{**keyed("latency", 0), "calls": measured}, keyed("latency", measured)], name)
        os.utime(f"{store.base}/latency/{name}.parquet", (measured, measured))
    content = store.read("latency")
    assert content.num_rows == 4
    assert content.filter(pa.compute.equal(content["batch"], 0))["calls"].to_pylist() == [3]
    store.compact()
    again = store.read("latency")
    assert again.num_rows == 4
    assert again.filter(pa.compute.equal(again["batch"], 0))["calls"].to_pylist() == [3]


@pytest.mark.usefixtures("full_disk")
def test_a_failing_write_leaves_no_file_behind(store: Store) -> None:
    with pytest.raises(OSError, match="No space left"):
        store.write("trials", [row("a")], "a")
    assert bytes_below(store) == {}


def test_a_failing_write_leaves_the_row_that_was_there(store: Store, request: pytest.FixtureRequest) -> None:
    store.write("trials", [row("a", depth=1)], "a")
    before = bytes_below(store)
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="No space left"):
        store.write("trials", [row("a", depth=2)], "a")
    assert bytes_below(store) == before


def test_what_a_killed_driver_left_of_a_write_disturbs_nobody_and_is_cleared(
    store: Store, reader: Reader
) -> None:
    store.write("trials", [row("a", depth=1)], "a")
    scratch = Path(store.base) / ".trials-b-0123abcd.tmp"
    scratch.write_bytes(b"PAR1")
    assert read_by(reader, store, "depth") == {"a": 1}
    store.clear_scratch()
    assert not scratch.exists()
    assert files(store) == ["a"]


def test_a_file_appears_in_its_folder_in_one_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written, rename = [], os.replace

    def note(source: str, target: str, **folders: int) -> None:
        written.extend(path for path in Path(store.base).rglob("*") if path.is_file())
        rename(source, target, **folders)

    monkeypatch.setattr(os, "replace", note)
    store.write("trials", [row("a")], "a")
    assert [path.parent for path in written] == [Path(store.base)], "scratch lies outside the table's folder"
    assert not written[0].exists()


# Compaction


@pytest.mark.slow
def test_compaction_leaves_one_file_and_every_row(store: Store) -> None:
    for i in range(5):
        store.write("trials", [row(f"{i}", depth=i)], f"{i}")
        store.write("epochs", [{"trial_id": f"{i}", "epoch": epoch} for epoch in (1, 2)], f"{i}")
        store.write("latency", [keyed("latency", i)], f"{i}")
    before = {table: store.read(table) for table in TABLES}
    store.compact()
    assert [len(files(store, table)) for table in ("trials", "epochs", "latency")] == [1, 1, 1]
    for table in TABLES:
        key = [(name, "ascending") for name in KEYS[table]]
        assert store.read(table).sort_by(key).equals(before[table].sort_by(key))


def test_compaction_leaves_what_a_retry_would_replace_in_files_of_its_own(store: Store) -> None:
    statuses = {"a": "done", "b": "failed", "c": "diverged", "d": "stopped", "e": "done"}
    for trial_id, status in statuses.items():
        store.write("trials", [row(trial_id, status)], trial_id)
        store.write("epochs", [{"trial_id": trial_id, "epoch": 1}], trial_id)
    store.write("epochs", [{"trial_id": "running", "epoch": 1}], "running")
    store.compact()
    assert files(store)[:2] == ["b", "d"] and len(files(store)) == 3
    assert {"b", "d", "running"} < set(files(store, "epochs")) and len(files(store, "epochs")) == 4
    assert column(store, "status") == statuses
    assert sorted(store.read("epochs")["trial_id"].to_pylist()) == [*"abcde", "running"]


def test_compaction_does_not_touch_a_file_that_holds_anything_a_retry_would_replace(store: Store) -> None:
    store.write("trials", [row("a"), row("b", "failed")], "mixed")
    store.write("trials", [row("c")], "c")
    store.write("trials", [row("d")], "d")
    store.compact()
    assert files(store)[0] == "mixed" and len(files(store)) == 2


def test_compacting_twice_changes_nothing(store: Store) -> None:
    for trial_id in "abc":
        store.write("trials", [row(trial_id)], trial_id)
    store.compact()
    before = bytes_below(store)
    store.compact()
    assert bytes_below(store) == before


def test_compacting_nothing_is_no_error(store: Store) -> None:
    store.compact()
    assert not Path(store.base).exists()


def test_a_full_disk_during_compaction_loses_nothing(store: Store, request: pytest.FixtureRequest) -> None:
    for table, number in itertools.product(TABLES, range(3)):
        store.write(
            table,
            [{**keyed(table, number), **({"status": "done"} if table == "trials" else {})}],
            f"{number}",
        )
    before = bytes_below(store)
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="No space left"):
        store.compact()
    assert bytes_below(store) == before


class Killed(BaseException):
    """The end of the process, as the code that is running sees it."""


@contextlib.contextmanager
def killed_after(deletions: int) -> Iterator[None]:
    """The process ends when it has deleted so many files."""
    left, unlink = iter(range(deletions)), os.unlink

    def until_killed(path: str, *, dir_fd: int) -> None:
        if next(left, None) is None:
            raise Killed
        unlink(path, dir_fd=dir_fd)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "unlink", until_killed)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("deleted", range(4))
def test_compaction_that_is_cut_off_loses_and_doubles_nothing(store: Store, deleted: int) -> None:
    expected = {f"{i}": i for i in range(4)}
    for trial_id, depth in expected.items():
        store.write("trials", [row(trial_id, depth=depth)], trial_id)
    with pytest.raises(Killed), killed_after(deleted):
        store.compact()
    assert len(files(store)) == 1 + 4 - deleted
    assert column(store, "depth") == expected
    restarted = Store(store.root)
    restarted.write("trials", [row("new", depth=9)], "new")
    restarted.compact()
    assert len(files(restarted)) == 1
    assert column(restarted, "depth") == {**expected, "new": 9}


def test_reading_during_a_compaction_misses_no_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for trial_id in "abc":
        store.write("trials", [row(trial_id)], trial_id)
    listed = store.paths("trials")
    store.compact()
    lists = iter([listed])
    paths = Store.paths
    monkeypatch.setattr(Store, "paths", lambda self, table: next(lists, None) or paths(self, table))
    assert set(column(store, "status")) == set("abc")


events = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["done", "failed", "stopped", "diverged"])),
        st.just("compact"),
        st.just("cut off"),
    ),
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=40)
@given(events)
def test_however_trials_end_and_tables_are_compacted_each_trial_has_its_last_row(happened: list[Any]) -> None:
    expected: dict[str, tuple[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for i, event in enumerate(happened):
            if event == "compact":
                store.compact()
            elif event == "cut off":
                cut_off(store)
            elif expected.get(event[0], ("new", 0))[0] not in FINAL:  # what is final does not run again
                trial_id, status = event
                expected[trial_id] = (status, i)
                store.write("trials", [row(trial_id, status, attempts=i)], trial_id)
            attempts = column(store, "attempts")
            statuses = column(store, "status")
            assert {one: (statuses[one], attempts[one]) for one in attempts} == expected


def cut_off(store: Store) -> None:
    """A compaction by a process that dies after its first deletion."""
    with contextlib.suppress(Killed), killed_after(1):
        Store(store.root).compact()


# Changing rows


def test_only_the_named_rows_and_columns_are_changed(store: Store) -> None:
    for trial_id in "abcd":
        store.write("trials", [row(trial_id, depth=1, lr=0.5)], trial_id)
        if trial_id == "b":
            store.compact()
    untouched = {path: content for path, content in bytes_below(store).items() if "/d.parquet" in path}
    before = files(store)
    store.update_trials(
        {"a": {"latency_ms_p50": 2.0}, "c": {"latency_ms_p50": 3.0, "depth": 9}, "nobody": {"depth": 7}}
    )
    assert column(store, "latency_ms_p50") == {"a": 2.0, "b": None, "c": 3.0, "d": None}
    assert column(store, "depth") == {"a": 1, "b": 1, "c": 9, "d": 1}
    assert set(column(store, "lr").values()) == {0.5}
    assert files(store) == before
    assert untouched.items() <= bytes_below(store).items() and len(untouched) == 1


def test_changing_rows_past_a_torn_file_leaves_it_alone(store: Store) -> None:
    store.write("trials", [row("a")], "a")
    torn = Path(store.base) / "trials/torn.parquet"
    torn.write_bytes(b"PAR1")
    store.update_trials({"a": {"depth": 2}})
    assert column(store, "depth") == {"a": 2}
    assert torn.read_bytes() == b"PAR1"


# Loading


@pytest.mark.slow
def test_load_gives_the_done_trials_unless_it_is_told_otherwise(store: Store) -> None:
    for trial_id, status in (("a", "done"), ("b", "failed"), ("c", "diverged"), ("d", "done")):
        store.write("trials", [row(trial_id, status)], trial_id)
    assert load(store.root)["trial_id"].tolist() == ["a", "d"]
    assert load(store.root).index.tolist() == [0, 1]
    assert load(store.root, status="failed")["trial_id"].tolist() == ["b"]
    assert sorted(load(Path(store.root), status=None)["trial_id"]) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("table", ["epochs", "latency"])
def test_load_gives_the_other_tables_whole(store: Store, table: str) -> None:
    store.write("trials", [row("a", "failed")], "a")
    assert load(store.root, table).empty
    store.write(table, [keyed(table, 0), keyed(table, 1)], "one")
    frame = load(store.root, table)
    assert list(frame.columns) == SCHEMAS[table].names
    assert len(frame) == 2


def test_loading_where_there_are_no_results_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no results in {tmp_path}; run a sweep first: python -m attnsweep"):
        load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_loading_one_table_names_the_folder_that_has_it(store: Store) -> None:
    store.write("trials", [keyed("trials", 0)], "one")
    with pytest.raises(UserError, match=f"/trials/ is one table of results; give .* has it: {store.root}$"):
        load(f"{store.root}/trials/")


def test_loading_an_unknown_table_names_those_there_are(store: Store) -> None:
    with pytest.raises(UserError, match=r"table='trails' is unknown, did you mean 'trials'\?; use one of"):
        load(store.root, "trails")


def test_an_unknown_file_system_is_refused() -> None:
    with pytest.raises(UserError, match="results='nosuch://bucket' cannot be opened"):
        Store("nosuch://bucket")


def test_whatever_a_store_refuses_with_is_a_sentence() -> None:
    """Azure's client has errors of no kind, as where nobody has told it who asks."""

    def ask() -> None:
        raise pa.ArrowException("Unknown error: failed to get a token\nsee there")

    with pytest.raises(UserError, match=r"the store refuses \(Unknown error: failed to get a token\)$"):
        storage.patiently(fs.SubTreeFileSystem("/", fs.LocalFileSystem()), ask)


# Results behind a URI


def test_results_may_be_named_by_a_uri(tmp_path: Path) -> None:
    there, here = Store(f"file://{tmp_path}/results"), Store(tmp_path / "results")
    for trial_id in "abc":
        there.write("trials", [row(trial_id, depth=1)], trial_id)
    there.compact()
    there.update_trials({"b": {"depth": 2}})
    assert len(files(here)) == 1
    assert column(there, "depth") == column(here, "depth") == {"a": 1, "b": 2, "c": 1}
    assert load(f"file://{tmp_path}/results")["trial_id"].tolist() == ["a", "b", "c"]


def test_results_in_a_store_that_is_not_a_local_disk_are_written_read_and_compacted(tmp_path: Path) -> None:
    store = Store(tmp_path / "unused")
    (tmp_path / "bucket").mkdir()
    store.files, store.base = fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem()), "results"
    assert not store.is_local
    for trial_id, status in (("a", "done"), ("b", "failed"), ("c", "done")):
        store.write("trials", [row(trial_id, status, depth=1)], trial_id)
    store.compact()
    store.update_trials({"c": {"depth": 2}})
    assert len(files(store)) == 2
    assert column(store, "depth") == {"a": 1, "b": 1, "c": 2}
    store.clear_scratch()
    assert store.set_aside_unreadable(tmp_path) == []
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == [
        "bucket",
        "results",
        "trials",
    ]
