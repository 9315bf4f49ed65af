"""Real sweeps on a real Ray of this machine's, through the command line and through `attnsweep.run`."""

import functools
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

import attnsweep
from attnsweep import Sweep
from attnsweep.core import text
from attnsweep.core.errors import UserError
from attnsweep.engine import cluster, console
from attnsweep.results.store import Store

from commands import (
    PATIENCE_S,
    SLOW,
    TINY,
    finish,
    gone,
    metrics,
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
HANGING = """
import re
from torch import nn

class Hanging(nn.Module):
    def __init__(self, *, image_size, channels, num_classes, hangs=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes))
        self.hangs = hangs

    def forward(self, x):
        if self.hangs and self.training and len(x) > 2:  # the plan tries a step on two
            re.match("(a+)+$", "a" * 60 + "b")
        return self.layers(x)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a sweep of two trials has run, with its latency phase."""
    folder = tmp_path_factory.mktemp("finished")
    sweep = write_sweep(folder, f"model=tune.grid_search(['vit', 'cnn']), epochs=2, {TINY}")
    command = [sys.executable, "-m", "attnsweep", str(sweep), "--address", "local"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    (folder / "out.txt").write_text(done.stdout)
    (folder / "err.txt").write_text(done.stderr)
    yield folder


def test_a_sweep_leaves_one_full_row_per_trial_that_pandas_alone_can_read(finished: Path) -> None:
    rows = pd.read_parquet(finished / "results/trials")
    assert sorted(rows["model"]) == ["cnn", "vit"]
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
    assert len(latency) == 4 and latency["arch_id"].nunique() == 2
    assert (latency["latency_ms_p50"] > 0).all() and set(latency["batch"]) == {1, 256}
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
    console.show_closing(text.screen(), counts, "results", 3.0, tasks={task}, interrupted=False)
    assert f"python -m attnsweep {command} results" in capsys.readouterr().out


def test_nothing_but_parquet_lies_in_the_results(finished: Path) -> None:
    files = [path for path in (finished / "results").rglob("*") if path.is_file()]
    assert files and {path.suffix for path in files} == {".parquet"}


def test_running_a_finished_sweep_again_runs_nothing(finished: Path) -> None:
    before = (finished / "runs/starts.log").read_text()
    status, out, _ = finish(start(finished / "sweep_file.py"))
    assert (status, "2 trials (0 new, 2 done)" in out) == (0, True)
    assert (finished / "runs/starts.log").read_text() == before


def test_widening_a_grid_runs_only_the_new_cells(finished: Path) -> None:
    status, out, _ = finish(start(finished / "sweep_file.py", "--serial", "seed=0,1"))
    assert (status, "4 trials (2 new, 2 done)" in out) == (0, True)
    assert len((finished / "runs/starts.log").read_text().split()) == 4


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
    assert finish(start(sweep))[0] == 0
    pd.testing.assert_frame_equal(metrics(tmp_path / "results"), undisturbed.metrics)


def test_a_trial_that_hangs_is_failed_and_its_worker_replaced(tmp_path: Path) -> None:
    """In C code that holds Python's lock, where nothing but the end of the process helps."""
    (tmp_path / "hanging.py").write_text(HANGING)
    space = "hangs=True, epochs=1, seed=tune.grid_search([0, 1]), resources={'cpu': 2}"
    sweep = write_sweep(tmp_path, f"model='hanging.py:Hanging', {space}, trial_timeout=5")
    status, _, err = finish(start(sweep))
    rows = attnsweep.load(tmp_path / "results", status=None)
    assert (status, err) == (1, "")
    assert list(rows["status"]) == ["failed"] * 2, "the second had a worker of its own"
    assert rows["error"].str.startswith("it took longer than trial_timeout=5 s").all()
    assert set(rows["attempts"]) == {1}


def test_two_drivers_do_not_write_to_the_same_results(tmp_path: Path) -> None:
    process = start(write_sweep(tmp_path, SLOW), "seed=0", "epochs=2000")  # not over before the other asks
    wait_for(lambda: workers_of(process) or process.poll() is not None)
    status, _, err = finish(start(tmp_path / "sweep_file.py"))
    assert (status, "another sweep is writing" in err) == (2, True)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 130


def test_asha_stops_trials_early_and_a_sweep_without_it_finishes_them(tmp_path: Path) -> None:
    """At the lowest rates nothing is learnt: 0.1 of the digits are right, of the first trial's 0.8."""
    rates = "lr=tune.grid_search([3e-3, 1e-7, 1e-8, 1e-9])"
    sweep = write_sweep(tmp_path, f"model='cnn', {rates}, epochs=4, lr_gamma=1, scheduler='asha'")
    assert finish(start(sweep))[0] == 0
    rows = attnsweep.load(tmp_path / "results", status=None)
    assert set(rows["status"]) == {"done", "stopped"}
    assert rows.loc[rows["lr"] == 3e-3, "status"].item() == "done"
    again = finish(start(sweep))
    assert "4 trials (0 new, 4 done)" in again[1]
    assert "new" in finish(start(sweep, "--serial", "scheduler=none"))[1]
    assert set(attnsweep.load(tmp_path / "results", status=None)["status"]) == {"done"}


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    """A Ray of this process's, in which what runs here finds itself."""
    with cluster.connected("local"):
        yield


def test_a_local_cluster_on_a_head_waits_for_no_autoscaler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: None
) -> None:
    kinds = {"worker": {"resources": {"CPU": 4, "GPU": 2}, "max_workers": 3}}
    monkeypatch.setattr(cluster, "BOOTSTRAP", str(tmp_path / "ray_bootstrap_config.yaml"))
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump({"available_node_types": kinds}))
    assert cluster.to_come() == [] and cluster.request(None) == {"cpu": 1, "gpu": 0}


def test_run_gives_a_notebook_the_rows_of_the_data_that_is_there_each_time(
    tmp_path: Path, connected: None
) -> None:
    images = tmp_path / "images"
    for name in ("cats", "dogs"):
        (images / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (i * 20, 0, 0)).save(images / name / f"{i}.png")
    (images / "cats/3.png").write_bytes(b"torn")
    sweep = Sweep(model="cnn", dim=8, dataset=f"folder:{images}", image_size=8, epochs=1)
    run = functools.partial(attnsweep.run, sweep, tmp_path / "results", latency=False)
    with pytest.raises(UserError, match=r"1 of 20 images cannot be read: cats/3\.png"):
        run()
    skipped = run(skip_unreadable=True)
    Image.new("RGB", (8, 8)).save(images / "cats/3.png")
    whole = run()
    rows = attnsweep.load(tmp_path / "results", all_columns=True)
    assert set(skipped["status"]) == set(whole["status"]) == {"done"} and len(rows) == 2
    of_skipped = rows[rows["trial_id"] == skipped["trial_id"].item()]
    assert of_skipped[["unreadable", "images_skipped"]].to_numpy().tolist() == [["skip", 1]]
    assert rows[rows["trial_id"] == whole["trial_id"].item()]["images_skipped"].isna().all()
    assert rows["data_sha256"].nunique() == 2


BREAKS = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, *, image_size: int, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(image_size**2, num_classes))

    def forward(self, images):
        if self.training and len(images) == 64:
            raise ValueError("too many")
        return super().forward(images)
"""


def test_a_trial_that_fails_stops_no_other(tmp_path: Path, connected: None) -> None:
    (tmp_path / "net.py").write_text(BREAKS)
    sweep = Sweep(model={"grid_search": [f"{tmp_path}/net.py:Net", "cnn"]}, epochs=1)
    rows = attnsweep.run(sweep, tmp_path / "results", latency=False)
    assert sorted(rows["status"]) == ["done", "failed"]
    assert "too many" in rows.loc[rows["status"] == "failed", "error"].item()
