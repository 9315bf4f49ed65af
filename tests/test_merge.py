"""Rows that travel between two stores: none is lost or doubled, and the next merge mends a cut-off one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnsweep.results.merge import extract, merge
from attnsweep.results.schema import FINAL, STATUSES
from attnsweep.results.store import Row, Store

START = datetime(2026, 1, 1, tzinfo=UTC)


def trial(name: str, *, status: str = "done", minute: int = 0, **more: Any) -> Row:
    return {"trial_id": name, "status": status, "finished_at": START + timedelta(minutes=minute), **more}


def put(root: Path, *rows: Row, epochs: int = 0) -> Path:
    """Writes rows, and curves of so many epochs, as a driver does."""
    store = Store(root)
    for row in rows:
        store.write("trials", [row], row["trial_id"])
        if epochs:
            curve = [{"trial_id": row["trial_id"], "epoch": n + 1} for n in range(epochs)]
            store.write("epochs", curve, row["trial_id"])
    return root


def raw(root: Path, table: str = "trials") -> pd.DataFrame:
    """A table as pandas alone reads it."""
    keys = ["trial_id", "epoch"] if table == "epochs" else ["trial_id"]
    return pd.read_parquet(root / table).sort_values(keys).reset_index(drop=True)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


@pytest.mark.slow
def test_new_trials_come_with_their_curves_and_once(here: Path, there: Path) -> None:
    put(here, trial("a"), epochs=2)
    put(there, trial("a"), trial("b"), trial("c", status="failed"), epochs=2)
    assert merge(there, here) == 2
    assert merge(there, here) == 0
    assert raw(here)["trial_id"].tolist() == ["a", "b", "c"]
    assert raw(here, "epochs").groupby("trial_id").size().tolist() == [2, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("compacted", [False, True])
def test_a_later_row_takes_the_place_of_an_earlier_one_wherever_that_stands(
    here: Path, there: Path, compacted: bool
) -> None:
    put(here, trial("a", val_acc=0.1), trial("b", val_acc=0.2), epochs=3)
    if compacted:
        Store(here).compact()
    put(there, trial("a", minute=1, val_acc=0.9), trial("b", minute=-1, val_acc=0.8), epochs=2)
    assert merge(there, here) == 1
    assert raw(here)["val_acc"].tolist() == [0.9, 0.2]
    assert raw(here, "epochs").groupby("trial_id").size().tolist() == [2, 3], "a curve goes with its row"


@pytest.mark.slow
def test_a_failed_row_never_replaces_a_finished_one_and_a_retry_replaces_it(here: Path, there: Path) -> None:
    put(here, trial("a"))
    put(there, trial("a", status="failed", minute=5), trial("b", status="failed"))
    merge(there, here)
    assert raw(here)["status"].tolist() == ["done", "failed"]
    put(here, trial("b", minute=9))  # as a driver writes: by the trial's own name
    assert raw(here)["status"].tolist() == ["done", "done"]


@pytest.mark.slow
def test_latency_that_was_measured_after_the_row_came_is_fetched_too(here: Path, there: Path) -> None:
    put(there, trial("a"))
    merge(there, here)
    deployment = {"measured_on": "cpu", "runtime": "eager", "versions": "torch 2", "batch": 1}
    measured = {"arch_id": "x", **deployment, "precision": "fp32", "measured_at": START}
    Store(there).write("latency", [measured], "x")
    reference = {"reference": "small", "measured_on": "cpu", "versions": "torch 2"}
    Store(there).write(
        "references", [{**reference, "ms": 0.6}, {**reference, "reference": "big", "ms": 4.0}], "x"
    )
    Store(here).write("references", [{**reference, "ms": 0.5}], "x")
    Store(there).update_trials({"a": {"latency_ms_p50": 1.5}})
    assert merge(there, here) == 1
    assert raw(here)["latency_ms_p50"].tolist() == [1.5]
    assert len(pd.read_parquet(here / "latency")) == 1
    assert sorted(pd.read_parquet(here / "references")["ms"]) == [0.5, 4.0], (
        "what is known stays, others come"
    )
    put(there, trial("a"))
    assert merge(there, here) == 0, "a row without latency does not take that of ours away"


def test_the_curve_of_a_running_trial_comes_and_is_replaced_by_the_whole_one(here: Path, there: Path) -> None:
    Store(there).write("epochs", [{"trial_id": "a", "epoch": 1}], "a")
    merge(there, here)
    assert raw(here, "epochs")["epoch"].tolist() == [1]
    put(there, trial("a"), epochs=3)
    merge(there, here)
    assert raw(here, "epochs")["epoch"].tolist() == [1, 2, 3]


@pytest.mark.slow
def test_a_merge_that_was_cut_off_between_its_steps_is_mended_by_the_next(
    here: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(there, trial("a"), trial("b"), epochs=2)
    write = Store._write

    def cut_off(store: Store, table: str, *rest: Any) -> None:
        if table == "trials":
            raise KeyboardInterrupt
        write(store, table, *rest)

    monkeypatch.setattr(Store, "_write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        merge(there, here)
    monkeypatch.setattr(Store, "_write", write)
    assert merge(there, here) == 2
    assert len(raw(here)) == 2 and len(raw(here, "epochs")) == 4


def test_only_what_a_driver_elsewhere_needs_is_sent(here: Path, there: Path) -> None:
    put(here, trial("a"), trial("b", status="failed"), trial("c", status="diverged"), epochs=2)
    extract(here, there)
    assert raw(there)["trial_id"].tolist() == ["a", "c"]
    assert not (there / "epochs").exists()


NAMES = st.sampled_from("abcd")
ROWS = st.dictionaries(NAMES, st.tuples(st.sampled_from(STATUSES), st.integers(0, 3)), max_size=4)


@pytest.mark.slow
@settings(max_examples=40)
@given(ours=ROWS, theirs=ROWS, compacted=st.booleans())
def test_no_final_row_is_lost_and_none_comes_twice_whatever_is_merged(
    ours: dict[str, tuple[str, int]], theirs: dict[str, tuple[str, int]], compacted: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    root = tmp_path_factory.mktemp("merge")
    for name, rows in (("here", ours), ("there", theirs)):
        put(root / name, *(trial(key, status=s, minute=minute) for key, (s, minute) in rows.items()))
    if compacted:
        Store(root / "here").compact()
    merge(root / "there", root / "here")
    merged = Store(root / "here")
    files = [row for path in merged.paths("trials") for row in pq.read_table(path).to_pylist()]
    assert len(files) == len({row["trial_id"] for row in files}) == len({*ours, *theirs})
    for row in files:
        both = [rows[row["trial_id"]] for rows in (ours, theirs) if row["trial_id"] in rows]
        best = max(both, key=lambda pair: (pair[0] in FINAL, pair[1]))
        got = (row["status"] in FINAL, (row["finished_at"] - START) // timedelta(minutes=1))
        assert got == (best[0] in FINAL, best[1])


@pytest.mark.slow
def test_a_table_of_another_version_comes_as_it_is(here: Path, there: Path) -> None:
    put(there, trial("a"))
    (there / "quantised").mkdir()
    pd.DataFrame({"arch_id": ["x"], "error": [0.5]}).to_parquet(there / "quantised/one.parquet")
    (there / "no table").mkdir()
    (there / "no table/notes.txt").write_text("mine")
    assert (merge(there, here), merge(there, here)) == (1, 0)
    Store(here).compact()
    first = pd.read_parquet(here / "quantised")
    assert first.to_dict("records") == [{"arch_id": "x", "error": 0.5}]
    pd.DataFrame({"arch_id": ["y"], "error": [0.25]}).to_parquet(there / "quantised/one.parquet")
    merge(there, here), merge(there, here)
    assert sorted(pd.read_parquet(here / "quantised")["arch_id"]) == ["x", "y"], "none takes another's place"
    assert sorted(path.name for path in here.iterdir()) == ["quantised", "trials"]
