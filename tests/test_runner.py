"""Commands as a person gives them: sweeps on a Ray of their own, which end well, are cut off and go on."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from attnsweep.__main__ import main
from attnsweep.core import terminal
from attnsweep.engine import console
from attnsweep.results.store import Store

from commands import (
    PATIENCE_S,
    SLOW,
    TINY,
    finish,
    gone,
    metrics,
    plant,
    raw_ids,
    start,
    training,
    wait_for,
    workers_of,
    write_sweep,
)  # fmt: skip
from disturbed import Reference

pytestmark = pytest.mark.ray

BESIDE_OTHERS = "latency is known less well"  # where tests run side by side


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a sweep of two trials has run, with its latency phase."""
    folder = tmp_path_factory.mktemp("finished")
    plant(folder)
    (folder / "beside.py").write_text("SEEDS = [0, 1]\n")
    space = "model='vit', seed=tune.grid_search(SEEDS), epochs=2, latency={'batch': [1, 2]}"
    sweep = write_sweep(folder, f"{space}, {TINY}")
    sweep.write_text(f"from beside import SEEDS\n{sweep.read_text()}")
    command = [sys.executable, "-m", "attnsweep", str(sweep), "--address", "local"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    (folder / "run.txt").write_text(" ".join(path.name for path in (folder / "marks").iterdir()))
    (folder / "out.txt").write_text(done.stdout)
    (folder / "err.txt").write_text(done.stderr)
    yield folder


def test_a_sweep_leaves_one_full_row_per_trial_that_pandas_alone_can_read(finished: Path) -> None:
    rows = pd.read_parquet(finished / "results/trials")
    assert sorted(rows["seed"]) == [0, 1]
    assert set(rows["status"]) == {"done"}
    measured = [
        "val_acc",
        "test_acc",
        "latency_ms_p50",
        "throughput_per_s",
        "measured_on",
        "params",
        "host",
        "ray",
    ]
    assert rows[measured].notna().all(axis=None)
    assert set(rows["attempts"]) == {1}


def test_each_epoch_leaves_a_row(finished: Path) -> None:
    epochs = pd.read_parquet(finished / "results/epochs")
    assert sorted(epochs.groupby("trial_id").size()) == [2, 2]


def test_latency_is_measured_once_per_architecture_and_batch(finished: Path) -> None:
    latency = pd.read_parquet(finished / "results/latency")
    assert len(latency) == 2 and latency["arch_id"].nunique() == 1
    assert (latency["latency_ms_p50"] > 0).all() and set(latency["batch"]) == {1, 2}
    assert (latency["latency_ms_p50"] <= latency["latency_ms_p99"]).all()


def test_what_a_person_sees_is_ours_alone_and_names_what_is_next(finished: Path) -> None:
    out = (finished / "out.txt").read_text()
    assert out.startswith("sweep_file: 2 trials (2 new)")
    assert "2 done in " in out and "  next: python -m attnsweep plot results" in out.splitlines()
    noise = [line for line in (finished / "err.txt").read_text().splitlines() if BESIDE_OTHERS not in line]
    assert noise == [], "Ray's own noise is off"


@pytest.mark.parametrize(("task", "command"), [("images", "plot"), ("driving", "planning")])
def test_what_is_next_goes_by_what_was_swept(
    task: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = Counter({"done": 2})
    console.show_closing(terminal.screen(), counts, "results", 3.0, tasks={task}, interrupted=False)
    assert f"python -m attnsweep {command} results" in capsys.readouterr().out


def test_a_sweep_finds_the_module_beside_it_and_nothing_in_place_of_a_package(finished: Path) -> None:
    """Neither the driver, nor workers of Ray, nor the process that measures."""
    assert (finished / "run.txt").read_text() == ""


def test_nothing_but_parquet_lies_in_the_results(finished: Path) -> None:
    files = [path for path in (finished / "results").rglob("*") if path.is_file()]
    assert files and {path.suffix for path in files} == {".parquet"}


def here(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The status of a command in this process."""
    monkeypatch.chdir(folder)
    return main(["sweep_file.py", "--no-latency", *arguments])


def test_running_a_finished_sweep_again_runs_nothing_and_widening_its_grid_the_new_cells(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = finished / "runs/starts.log"
    before = starts.read_text()
    assert here(finished, monkeypatch) == 0
    assert "2 trials (0 new, 2 done)" in capsys.readouterr().out and starts.read_text() == before
    assert here(finished, monkeypatch, "--serial", "seed=0,1,2,3") == 0
    assert "4 trials (2 new, 2 done)" in capsys.readouterr().out and len(starts.read_text().split()) == 4


@pytest.mark.faults
def test_a_killed_worker_is_one_sentence_and_ctrl_c_keeps_finished_rows_and_ends_the_workers(
    tmp_path: Path, undisturbed: Reference
) -> None:
    sweep, starts = write_sweep(tmp_path, SLOW), tmp_path / "runs/starts.log"
    process = start(sweep)
    os.kill(training(process, tmp_path / "runs")[0], signal.SIGKILL)
    wait_for(lambda: len(starts.read_text().split()) > 2)
    wait_for(lambda: Store(tmp_path / "results").paths("trials"))
    workers = workers_of(process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert status == 130, err
    assert "cut off" in out and "raylet" not in out and "Traceback" not in out
    (line,) = err.splitlines()
    assert line.startswith("attnsweep: ") and "its worker died" in line and "it starts again" in line
    assert line.endswith(str(tmp_path / "runs/ray.log"))
    assert "Traceback" in (tmp_path / "runs/ray.log").read_text()
    wait_for(lambda: all(gone(pid) for pid in workers))
    assert 1 <= len(raw_ids(tmp_path / "results")) < 3
    assert finish(start(sweep, "--serial"))[0] == 0, "what Ray has begun goes on without it"
    pd.testing.assert_frame_equal(metrics(tmp_path / "results"), undisturbed.metrics)


def test_two_drivers_do_not_write_to_the_same_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(write_sweep(tmp_path, f"model='vit', epochs=100_000, {TINY}"), "--serial")
    wait_for(lambda: (tmp_path / "runs/starts.log").exists() or process.poll() is not None)
    assert here(tmp_path, monkeypatch) == 2
    assert "another sweep is writing" in capsys.readouterr().err
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 130
