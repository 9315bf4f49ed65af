"""Files and rows in a real object store: moto's server, as a process on loopback."""

import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pandas as pd
import pytest
import torch

import attnsweep
from attnsweep.__main__ import main
from attnsweep.cli.doctor import store_findings
from attnsweep.core.errors import Interrupted, Unreachable, UserError, writing
from attnsweep.core.trial import Trial
from attnsweep.engine.writer import sole_writer
from attnsweep.results import conditional, lock, storage
from attnsweep.results.loading import load
from attnsweep.results.store import Store
from attnsweep.space.plan import folders_of
from attnsweep.space.sweep import Sweep
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import resolve
from attnsweep.training.trial import Options, checkpoint_path, run, weights_path

from objects import Objects, served

pytestmark = pytest.mark.slow

TINY = dict(depth=1, heads=2, dim=16, dim_head=8, mlp_dim=16, lr=1e-3)


@pytest.fixture(scope="module")
def objects() -> Iterator[Objects]:
    with served() as server:
        yield server


@pytest.fixture
def cut(objects: Objects) -> Iterator[Objects]:
    """The server, not reached until the test mends the line."""
    objects.line.is_cut = True
    yield objects
    objects.line.is_cut = False


def tiny(**point: object) -> Trial:
    return make_trial(resolve({"model": "vit", "epochs": 3, **TINY, **point}), Path("nowhere"))


# Paths


@pytest.mark.parametrize(
    ("results", "checkpoints"),
    [
        ("s3://bucket/results", "s3://bucket/runs"),
        ("s3://bucket/mine/results/", "s3://bucket/mine/runs"),
        ("s3://bucket/mine", "s3://bucket/mine-runs"),
        ("s3://bucket", "s3://bucket/runs"),
        ("file:///results", "file:///runs"),
        ("s3://bucket/a/b?region=eu-west-1", "s3://bucket/a/b-runs?region=eu-west-1"),
    ],
)
def test_checkpoints_lie_beside_results_behind_a_uri(results: str, checkpoints: str) -> None:
    assert folders_of(results).checkpoints == checkpoints


def test_checkpoints_of_results_on_a_disk_lie_with_the_logs(tmp_path: Path) -> None:
    assert folders_of(tmp_path / "results").checkpoints == str(tmp_path / "runs")


def test_what_follows_the_question_mark_of_a_uri_stays_at_its_end() -> None:
    assert storage.below("s3://bucket/runs?region=eu", "a/b.pt") == "s3://bucket/runs/a/b.pt?region=eu"
    assert storage.below("/tmp/why?/runs", "a") == "/tmp/why?/runs/a"


# Rows


def test_rows_in_a_bucket_are_written_replaced_compacted_and_read_as_on_a_disk(
    objects: Objects, tmp_path: Path
) -> None:
    there, here = Store(objects.uri("rows/results")), Store(tmp_path / "results")
    for store in (there, here):
        for seed in range(4):
            row = {"trial_id": f"{seed}", "status": "failed" if seed == 3 else "done", "seed": seed}
            store.write("trials", [row], f"{seed}")
            store.write("epochs", [{"trial_id": f"{seed}", "epoch": 1}], f"{seed}")
        store.bundle("trials", store.read("trials").to_pylist()[:2], ["0", "1"])
        store.compact()
        store.write("trials", [{"trial_id": "3", "status": "done", "seed": 3}], "3")
        store.update_trials({"1": {"depth": 7}})
    for table in ("trials", "epochs"):
        read = [store.read(table).sort_by("trial_id") for store in (there, here)]
        assert read[0].equals(read[1])
    assert len(there.paths("trials")) == len(here.paths("trials")) == 2
    pd.testing.assert_frame_equal(load(there.root), load(here.root))
    assert sorted(pd.read_parquet(f"{there.root}/trials")["trial_id"]) == ["0", "1", "2", "3"]


def test_an_object_that_is_not_parquet_is_skipped_with_a_warning(
    objects: Objects, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(objects.uri("torn/results"))
    store.write("trials", [{"trial_id": "a", "status": "done"}], "a")
    storage.write(objects.uri("torn/results/trials/b.parquet"), b"PAR1 torn")
    assert store.read("trials")["trial_id"].to_pylist() == ["a"]
    assert "b.parquet, which cannot be read" in caplog.text


# Checkpoints and weights


def test_a_trial_goes_on_from_a_checkpoint_in_a_bucket_to_the_same_numbers(objects: Objects) -> None:
    trial, runs = tiny(epochs=4), objects.uri("some/runs")
    options = Options(data_dir="nowhere", runs_dir=runs, keep_weights=True, checkpoint_s=0)
    whole = list(run(trial, Options(data_dir="nowhere")))[-1]["row"]
    begun = run(trial, options)
    for _ in range(2):
        next(begun)
    begun.close()
    assert objects.below("some/runs") == [f"{trial.trial_id}/checkpoint.pt"]
    rest = list(run(trial, options))
    assert rest[0]["epoch"] == 3 and rest[-1]["row"]["val_loss"] == whole["val_loss"]
    storage.drop(storage.below(runs, trial.trial_id), "checkpoint")
    assert objects.below("some/runs") == [f"{trial.trial_id}/weights.pt"]
    path = weights_path(runs, trial.trial_id)
    assert torch.load(io.BytesIO(storage.read(path)), weights_only=True).keys()


def test_a_hostile_checkpoint_in_a_bucket_runs_no_code(objects: Objects, tmp_path: Path) -> None:
    trial, options = tiny(epochs=1), Options(data_dir="nowhere", runs_dir=objects.uri("hostile/runs"))

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": Hostile()}, tmp_path / "checkpoint.pt")
    storage.write(str(checkpoint_path(trial, options)), (tmp_path / "checkpoint.pt").read_bytes())
    assert list(run(trial, options))[-1]["status"] == "done"
    assert not (tmp_path / "ran").exists()


def test_dropping_the_last_file_of_a_folder_drops_the_folder(objects: Objects, tmp_path: Path) -> None:
    for folder in (str(tmp_path / "runs/a"), objects.uri("drop/a")):
        storage.write(storage.below(folder, "checkpoint.pt"), b"1")
        storage.drop(folder, "checkpoint")
        storage.drop(folder, "checkpoint")
    assert list((tmp_path / "runs").iterdir()) == objects.below("drop") == []


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_fails_no_trial(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("no folder")
    options = Options(data_dir="nowhere", runs_dir=str(tmp_path / "runs"), checkpoint_s=0)
    happened = list(run(tiny(), options))
    assert happened[-1]["status"] == "done"
    assert "checkpoints cannot be written" in happened[0]["warning"]


# A store that fails


def test_a_write_waits_for_a_store_that_comes_back(
    cut: Objects, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(cut.uri("late/results"))
    monkeypatch.setattr(storage.time, "sleep", lambda _: setattr(cut.line, "is_cut", False))
    store.write("trials", [{"trial_id": "a", "status": "done"}], "a")
    assert store.read("trials")["trial_id"].to_pylist() == ["a"]
    assert "the store does not answer" in caplog.text


@pytest.mark.faults
def test_a_store_that_stays_away_is_a_sentence_and_no_empty_table(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = objects.uri("away/results")
    Store(root).write("trials", [{"trial_id": "a", "status": "done"}], "a")
    monkeypatch.setattr(storage, "PATIENCE_S", 0.0)
    objects.line.is_cut = True
    try:
        with pytest.raises(Interrupted, match="finished rows are intact, the same command goes on"):
            with writing(root):
                Store(root).write("trials", [{"trial_id": "b", "status": "done"}], "b")
        assert main(["pick", "--results", root]) == 2
        assert "attnsweep: the store failed for" in capsys.readouterr().err
    finally:
        objects.line.is_cut = False
    assert load(root)["trial_id"].tolist() == ["a"]


def test_a_store_that_fails_between_listing_and_reading_is_not_taken_for_a_torn_file(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(objects.uri("between/results"))
    store.write("trials", [{"trial_id": "a", "status": "done"}], "a")
    paths = store.paths("trials")
    monkeypatch.setattr(storage, "PATIENCE_S", 0.0)
    monkeypatch.setattr(store, "paths", lambda table: paths)
    objects.line.is_cut = True
    try:
        with pytest.raises(Unreachable):
            store.read("trials")
    finally:
        objects.line.is_cut = False


def test_what_time_does_not_heal_is_told_at_once(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.time, "sleep", lambda _: pytest.fail("it waits for the store"))
    with (
        pytest.raises(UserError, match=r"the store refuses .*nosuch"),
        sole_writer(Store("s3://nosuch/results"), tmp_path),
    ):
        pass


def test_the_doctor_tries_to_write_where_results_are_to_go(objects: Objects) -> None:
    assert list(store_findings(folders_of(objects.uri("well/results")))) == [
        (True, "s3://bucket/well/results can be written")
    ]
    ((good, text),) = store_findings(folders_of("s3://nosuch/results"))
    assert not good and "s3://nosuch/results cannot be written: the store refuses" in text
    assert objects.below("well") == [], "and leaves nothing there"


# The lock


def another(path: str, **holder: object) -> None:
    """Writes the lock of another driver."""
    known = {"host": "elsewhere", "pid": 1, "since": "noon", "machine": "x", "id": "x", **holder}
    storage.write(path, json.dumps(known).encode())


def test_two_drivers_on_two_machines_do_not_write_to_the_same_bucket(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.2)
    store = Store(objects.uri("locked/results"))
    said = (
        rf"another sweep is writing to s3://bucket/locked/results from .* \(process {os.getpid()}, since 20"
    )
    with sole_writer(store, tmp_path / "one"):
        monkeypatch.setattr(lock, "is_dead", lambda one: False)
        with pytest.raises(UserError, match=said):
            with sole_writer(store, tmp_path / "other"):
                pass
    assert objects.below("locked") == []
    with sole_writer(store, tmp_path / "other"):
        pass


@pytest.mark.parametrize("begun", [None, b"what an abandoned lock holds"])
def test_of_two_that_see_the_same_lock_one_gets_it(objects: Objects, begun: bytes | None) -> None:
    path = objects.uri("instant/runs/lock")
    one, other = conditional.conditional_object(path), conditional.conditional_object(path)
    if begun:
        storage.write(path, begun)
    seen = [there.read() for there in (one, other)]
    states = [found and found[1] for found in seen]
    assert states[0] == states[1] and (states[0] is None) == (begun is None)
    assert one.write(b"one", states[0])
    assert other.write(b"other", states[1]) is None
    assert storage.read(path) == b"one"
    one.delete()
    assert objects.below("instant") == [], "what it was tried with is gone"


def test_a_write_whose_answer_was_lost_is_known_for_ours(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = conditional.conditional_object(objects.uri("answer/runs/lock"))
    put = obstore.put

    def twice(*arguments: Any, **named: Any) -> Any:
        put(*arguments, **named)
        return put(*arguments, **named)

    monkeypatch.setattr(obstore, "put", twice)
    state = there.write(b"one", None)
    assert state and there.write(b"two", state)
    assert there.write(b"three", state) is None
    assert storage.read(objects.uri("answer/runs/lock")) == b"two"
    there.delete()


def heedless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that knows no conditions, as older ones that speak S3."""
    put = obstore.put
    monkeypatch.setattr(obstore, "put", lambda *a, mode, **named: put(*a, **named))


def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)


def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore has no key, pyarrow has."""
    monkeypatch.setattr(
        conditional, "s3_settings", lambda path: {"access_key_id": "", "skip_signature": False}
    )

    def put(*arguments: Any, **named: Any) -> None:
        raise obstore.exceptions.PermissionDeniedError("AccessDenied")

    monkeypatch.setattr(obstore, "put", put)


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        (heedless, "overwrites what it was asked not to"),
        (missing, "pip install obstore"),
        (refused, "AccessDenied"),
    ],
)
def test_without_conditions_a_lock_is_held_with_a_warning(
    objects: Objects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    why: Callable[[pytest.MonkeyPatch], None],
    reason: str,
) -> None:
    why(monkeypatch)
    monkeypatch.setattr(lock, "BEAT_S", 0.2)
    store = Store(objects.uri("plain/results"))
    with sole_writer(store, tmp_path / "one"):
        assert reason in caplog.text and "may both take it" in caplog.text
        monkeypatch.setattr(lock, "is_dead", lambda one: False)
        with (
            pytest.raises(UserError, match="another sweep is writing"),
            sole_writer(store, tmp_path / "other"),
        ):
            pass
    assert objects.below("plain") == []


def test_a_driver_whose_lock_was_taken_over_ends_and_leaves_the_other_s(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    store = Store(objects.uri("asleep/results"))
    with pytest.raises(
        Interrupted, match=r"taken over by elsewhere \(process 1, since noon\); finished rows"
    ):
        with sole_writer(store, tmp_path):
            another(objects.uri("asleep/runs/lock"))
            for _ in range(300):  # the interrupt comes between two calls, not within one
                time.sleep(0.1)
    assert objects.below("asleep/runs") == ["lock"]


def test_the_lock_of_a_driver_that_is_dead_is_taken_over(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = objects.uri("dead/runs/lock")
    pid = os.spawnlp(os.P_WAIT, "true", "true") or 2**22 + 1  # no process has it
    another(path, machine=lock.machine(), pid=pid)
    with lock.held(path):
        assert "whether it still does" not in caplog.text
    another(path)  # of a machine that is gone
    monkeypatch.setattr(lock, "WATCH_S", 1.0)
    with lock.held(path):
        assert "looking for 1 s whether it still does" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\x80", b"[]", b'{"host": 1}', b'{"host": "a", "pid": "b"}'])
def test_a_lock_that_says_nothing_is_none(objects: Objects, content: bytes) -> None:
    path = objects.uri("foreign/runs/lock")
    storage.write(path, content)
    with lock.held(path):
        pass


def test_the_lock_of_an_earlier_version_is_one(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = objects.uri("earlier/runs/lock"), {"host": "elsewhere", "pid": 1, "id": "x"}
    monkeypatch.setattr(lock, "WATCH_S", 5.0)
    storage.write(path, json.dumps({**content, "at": 1}).encode())
    later = threading.Timer(1, lambda: storage.write(path, json.dumps({**content, "at": 2}).encode()))
    later.start()
    with pytest.raises(lock.Held, match="elsewhere"), lock.held(path):
        pass
    later.join()


def test_the_key_in_a_uri_opens_the_lock_too(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow takes key, region and server from the URI, so does the lock."""
    server = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    uri = f"s3://key:sec%2Fret@bucket/named/runs/lock?scheme=http&endpoint_override={server}&region=us-east-1"
    settings = conditional.s3_settings(uri)
    assert settings == {
        "region": "us-east-1",
        "endpoint": f"http://{server}",
        "access_key_id": "key",
        "secret_access_key": "sec/ret",
    }
    with lock.held(uri) as held:
        assert isinstance(held.object, conditional.ConditionalObject)
        assert lock.holder_of(held.object) == held.me


# A sweep


def test_a_sweep_into_a_bucket_runs_resumes_and_is_read_like_any_other(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = objects.uri("sweep/results")
    sweep = Sweep(model="vit", epochs=1, latency={"batch": 1}, **TINY)
    rows = attnsweep.run(sweep, root, serial=True)
    assert rows["latency_ms_p50"].notna().all() and len(load(root, "latency")) == 1
    both = Sweep(model="vit", epochs=1, seed={"grid_search": [0, 1]}, **TINY)
    wider = attnsweep.run(both, root, serial=True, latency=False)
    assert sorted(wider["attempts"]) == [1, 1] and len(wider) == 2
    tables = [name.partition("/")[0] for name in objects.below("sweep/results")]
    assert tables == ["epochs", "latency", "references", "trials"], "each in one file"
    assert objects.below("sweep/runs") == []
    capsys.readouterr()
    assert main(["pick", "--results", root]) == 0
    assert main(["show", rows["trial_id"].item(), "--results", root]) == 0
    assert rows["trial_id"].item() in capsys.readouterr().out


def test_a_store_that_is_well_says_nothing(objects: Objects, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    Store(objects.uri("well/results")).write("trials", [{"trial_id": "a", "status": "done"}], "a")
    assert not caplog.records
