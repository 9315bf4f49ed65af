"""Real sweeps on a real Ray of this machine's, through the command line and through `attnsweep.run`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import attnsweep
from attnsweep import Sweep
from attnsweep.results import Store

TINY = "depth=1, heads=2, dim=16, dim_head=8, mlp_dim=16"
UNDISTURBED = ["trial_id", "val_acc", "test_acc", "test_acc_best", "best_epoch", "val_loss", "train_loss"]


def write_sweep(folder: Path, body: str) -> Path:
    path = folder / "sweep_file.py"
    path.write_text(f"from ray import tune\nfrom attnsweep import Sweep\nsweep = Sweep({body})\n")
    return path


def start(sweep: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "attnsweep",
        str(sweep),
        "--address",
        "local",
        "--no-latency",
        *arguments,
    ]
    return subprocess.Popen(
        command, cwd=sweep.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def metrics(folder: Path) -> pd.DataFrame:
    rows = attnsweep.load(folder / "results", status=None)
    assert rows["trial_id"].is_unique
    return rows[UNDISTURBED].sort_values("trial_id").reset_index(drop=True)


def raw_ids(folder: Path) -> list[str]:
    """The trial ids as pandas alone reads them."""
    return sorted(pd.read_parquet(folder / "results/trials")["trial_id"])


def descendants(pid: int) -> dict[int, str]:
    """The processes below `pid`, with their command lines."""
    parent, line = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            line[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError):
            continue
    below, grown = {pid}, True
    while grown:
        more = {child for child, above in parent.items() if above in below} - below
        below, grown = below | more, bool(more)
    return {child: line[child] for child in below - {pid}}


def wait_for(condition: "object", seconds: float = 60) -> None:
    """Waits until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a sweep of three trials has run, with its latency phase."""
    folder = tmp_path_factory.mktemp("finished")
    sweep = write_sweep(folder, f"model=tune.grid_search(['vit', 'deepvit', 'cnn']), epochs=2, {TINY}")
    command = [sys.executable, "-m", "attnsweep", str(sweep), "--address", "local"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder / "out.txt").write_text(done.stdout)
    (folder / "err.txt").write_text(done.stderr)
    yield folder


def test_a_sweep_leaves_one_full_row_per_trial_that_pandas_alone_can_read(finished: Path) -> None:
    rows = pd.read_parquet(finished / "results/trials")
    assert sorted(rows["model"]) == ["cnn", "deepvit", "vit"]
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
    assert sorted(epochs.groupby("trial_id").size()) == [2, 2, 2]


def test_latency_is_measured_once_per_architecture_and_batch(finished: Path) -> None:
    latency = pd.read_parquet(finished / "results/latency")
    assert len(latency) == 6 and latency["arch_id"].nunique() == 3
    assert (latency["latency_ms_p50"] > 0).all() and set(latency["batch"]) == {1, 256}
    assert (latency["latency_ms_p50"] <= latency["latency_ms_p99"]).all()


def test_what_a_person_sees_is_ours_alone_and_names_what_is_next(finished: Path) -> None:
    out = (finished / "out.txt").read_text()
    assert out.startswith("sweep_file: 3 trials (3 new)")
    assert "3 done in " in out and "python analysis/pareto.py results" in out.splitlines()[-1]
    assert (finished / "err.txt").read_text() == "", "Ray's own noise is off"


def test_nothing_but_parquet_lies_in_the_results(finished: Path) -> None:
    files = [path for path in (finished / "results").rglob("*") if path.is_file()]
    assert files and {path.suffix for path in files} == {".parquet"}


def test_running_a_finished_sweep_again_runs_nothing(finished: Path) -> None:
    before = (finished / "runs/starts.log").read_text()
    status, out, _ = finish(start(finished / "sweep_file.py"))
    assert (status, "3 trials (0 new, 3 done)" in out) == (0, True)
    assert (finished / "runs/starts.log").read_text() == before


def test_widening_a_grid_runs_only_the_new_cells(finished: Path) -> None:
    status, out, _ = finish(start(finished / "sweep_file.py", "seed=0,1"))
    assert (status, "6 trials (3 new, 3 done)" in out) == (0, True)
    assert len((finished / "runs/starts.log").read_text().split()) == 6


def test_run_gives_a_notebook_the_rows_and_a_trial_that_fails_stops_no_other(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("cats", "dogs"):
        (images / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (i * 20, 0, 0)).save(images / name / f"{i}.png")
    (images / "cats/3.png").write_bytes(b"torn")
    datasets = {"grid_search": ["digits", f"folder:{images}"]}
    sweep = Sweep(model="cnn", dataset=datasets, epochs=1)
    rows = attnsweep.run(sweep, tmp_path / "results", address="local", latency=False)
    assert dict(zip(rows["dataset"].str[:6], rows["status"], strict=True)) == {
        "digits": "done",
        "folder": "failed",
    }
    assert "3.png is not an image" in rows.loc[rows["status"] == "failed", "error"].item()
    Image.new("RGB", (8, 8)).save(images / "cats/3.png")
    again = attnsweep.run(Sweep(model="cnn", dataset=f"folder:{images}", epochs=1), tmp_path / "results",
                          address="local", latency=False)  # fmt: skip
    assert set(again["status"]) == {"done"}


SLOW = f"model='vit', seed=tune.grid_search([0, 1, 2]), epochs=60, lr=1e-3, lr_gamma=1, {TINY}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The metrics of a sweep that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    status, _, err = finish(start(write_sweep(folder, SLOW)))
    assert status == 0, err
    return metrics(folder)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that train."""
    return [
        pid for pid, line in descendants(process.pid).items() if line.startswith("ray::") and ".train" in line
    ]


def training(process: subprocess.Popen[str]) -> list[int]:
    """The workers, once two of them are at it."""
    wait_for(lambda: len(workers_of(process)) == 2 or process.poll() is not None)
    time.sleep(1)
    return workers_of(process)


def test_a_worker_that_is_killed_costs_no_row_and_changes_no_number(
    tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    process = start(write_sweep(tmp_path, SLOW))
    os.kill(training(process)[0], signal.SIGKILL)
    status, _, err = finish(process)
    assert status == 0, err
    pd.testing.assert_frame_equal(metrics(tmp_path), undisturbed)
    assert sorted(attnsweep.load(tmp_path / "results")["attempts"]) == [1, 1, 2]


def test_a_driver_that_is_killed_goes_on_with_the_same_command(
    tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    sweep = write_sweep(tmp_path, SLOW)
    process = start(sweep)
    workers = training(process)
    process.kill()
    process.wait()
    wait_for(lambda: all(gone(pid) for pid in workers))
    status, _, err = finish(start(sweep))
    assert status == 0, err
    pd.testing.assert_frame_equal(metrics(tmp_path), undisturbed)
    assert raw_ids(tmp_path) == sorted(undisturbed["trial_id"])


def test_ctrl_c_keeps_finished_rows_ends_the_workers_and_exits_with_130(
    tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    sweep = write_sweep(tmp_path, SLOW)
    process = start(sweep)
    workers = training(process)
    wait_for(lambda: Store(tmp_path / "results").paths("trials"))
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert status == 130, err
    assert "cut off" in out and "Traceback" not in err
    wait_for(lambda: all(gone(pid) for pid in workers), 15)
    assert 1 <= len(raw_ids(tmp_path)) < 3
    assert finish(start(sweep))[0] == 0
    pd.testing.assert_frame_equal(metrics(tmp_path), undisturbed)


def test_two_drivers_do_not_write_to_the_same_results(tmp_path: Path) -> None:
    process = start(write_sweep(tmp_path, SLOW))
    training(process)
    status, _, err = finish(start(tmp_path / "sweep_file.py"))
    assert (status, "another sweep is writing" in err) == (2, True)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 130


def test_asha_stops_trials_early_and_a_sweep_without_it_finishes_them(tmp_path: Path) -> None:
    rates = "lr=tune.grid_search([1e-3, 1e-6, 1e-5, 1e-7])"
    sweep = write_sweep(tmp_path, f"model='vit', {rates}, epochs=12, lr_gamma=1, scheduler='asha', {TINY}")
    assert finish(start(sweep))[0] == 0
    rows = attnsweep.load(tmp_path / "results", status=None)
    assert set(rows["status"]) == {"done", "stopped"}
    assert rows.loc[rows["lr"] == 1e-3, "status"].item() == "done"
    again = finish(start(sweep))
    assert "4 trials (0 new, 4 done)" in again[1]
    assert "new" in finish(start(sweep, "scheduler=none"))[1]
    assert set(attnsweep.load(tmp_path / "results", status=None)["status"]) == {"done"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 kB; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_the_sweep_with_a_sentence_and_loses_no_finished_row(
    tmp_path: Path, small_disk: Path
) -> None:
    sweep = write_sweep(tmp_path, f"model='vit', seed=tune.grid_search([0, 1, 2]), epochs=1, {TINY}")
    status, _, err = finish(start(sweep, "--results", str(small_disk / "results")))
    assert status == 1
    assert "No space left on device" in err and "Traceback" not in err
    before = raw_ids(small_disk)
    assert 1 <= len(before) < 3
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert finish(start(sweep, "--results", str(small_disk / "results")))[0] == 0
    assert len(raw_ids(small_disk)) == 3 and set(before) <= set(raw_ids(small_disk))
