"""Sweeps in which real processes are killed, against one that nothing disturbs: no row is lost, none is there
twice, no number is another one, and at most what was not checkpointed is trained again.

`make test-faults` runs the long ones, too, and writes what was measured into docs/faults.md.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

import attnsweep
from attnsweep.results.store import Store

import dying
from commands import (
    PATIENCE_S,
    SLOW,
    SLOW_EPOCHS,
    descendants,
    finish,
    gone,
    napping,
    raw_ids,
    start,
    steps_trained,
    training,
    wait_for,
    write_sweep,
)  # fmt: skip
from disturbed import Fault, Moment, Reference, undisturbed_sweep
from naps import NAP_S
from objects import Objects, served

pytestmark = pytest.mark.ray
# Epochs of a trial that has checkpoints: a second of them, one under way, one while a checkpoint is written
UNSAVED = round(1 / NAP_S) + 3
QUICK = napping(epochs=2)


def ends_well(process: "subprocess.Popen[str]") -> str:
    """Waits for a command to end with all trials done; returns what it said on standard error."""
    status, _, err = finish(process)
    assert status == 0, err
    return err


def begun(process: "subprocess.Popen[str]", folder: Path) -> datetime:
    """When the first trial of a command began."""
    wait_for(lambda: (folder / "runs/starts.log").exists() or process.poll() is not None)
    return datetime.now(UTC)


def trained_again(folder: Path) -> int:
    """How many epochs of the sweep SLOW were trained more than once, or begun and lost."""
    return steps_trained(folder) - 3 * SLOW_EPOCHS


@pytest.mark.faults
def test_a_worker_that_is_killed_costs_no_row_and_changes_no_number(
    tmp_path: Path, undisturbed: Reference, faults: list[Fault]
) -> None:
    process = start(write_sweep(tmp_path, SLOW))
    began, workers = begun(process, tmp_path), training(process, tmp_path / "runs")
    os.kill(workers[0], signal.SIGKILL)
    moment = Moment(tmp_path / "results", began)
    ends_well(process)
    fault = moment.judge("a worker is killed", undisturbed, commands=1)
    faults.append(fault)
    assert trained_again(tmp_path) <= UNSAVED
    assert sorted(attnsweep.load(tmp_path / "results")["attempts"]) == [1, 1, 2]


@pytest.mark.parametrize("engine", [["--serial"], pytest.param([], marks=pytest.mark.faults)])
def test_a_driver_that_is_killed_goes_on_with_the_same_command(
    tmp_path: Path, undisturbed: Reference, faults: list[Fault], engine: list[str]
) -> None:
    sweep, running = write_sweep(tmp_path, SLOW), 1 if engine else 2
    process = start(sweep, *engine)
    began, workers = begun(process, tmp_path), training(process, tmp_path / "runs", trials=running)
    time.sleep(2)  # of training that would have to be done again without the checkpoints
    process.kill()
    moment = Moment(tmp_path / "results", began)
    process.wait()
    wait_for(lambda: all(gone(pid) for pid in workers))
    ends_well(start(sweep, *engine))
    fault = moment.judge("the driver is killed while trials run", undisturbed, commands=2)
    if not engine:  # the table is of sweeps on Ray
        faults.append(fault)
    assert trained_again(tmp_path) <= running * UNSAVED


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system for two trials; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=130k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """What the sweep QUICK finds out where nothing disturbs it."""
    return undisturbed_sweep(write_sweep(tmp_path_factory.mktemp("quick"), QUICK))


@pytest.mark.faults
@pytest.mark.parametrize("engine", [["--serial"], []])
def test_a_full_disk_ends_the_sweep_with_a_sentence_and_loses_no_finished_row(
    tmp_path: Path, small_disk: Path, quick: Reference, faults: list[Fault], engine: list[str]
) -> None:
    sweep, results = write_sweep(tmp_path, QUICK), small_disk / "results"
    process = start(sweep, "--results", str(results), *engine)
    began = begun(process, small_disk)
    status, _, err = finish(process)
    moment = Moment(results, began)
    assert status == 1
    assert "No space left on device" in err and "Traceback" not in err
    assert 1 <= len(raw_ids(results)) < 3
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    ends_well(start(sweep, "--results", str(results), *engine))
    fault = moment.judge("the disk is full while a row is written", quick, commands=2)
    if not engine:  # the table is of sweeps on Ray
        faults.append(fault)


@pytest.mark.faults
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("point", ["half-written", "before-rename", "after-rename"])
def test_a_driver_that_dies_while_it_writes_a_row_loses_none_that_was_finished(
    tmp_path: Path, quick: Reference, faults: list[Fault], point: str, number: int
) -> None:
    sweep = write_sweep(tmp_path, QUICK)
    process = start(sweep, program=(dying.__file__, point, str(number)))
    began = begun(process, tmp_path)
    assert process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    moment = Moment(tmp_path / "results", began)
    assert len(moment.finished) == number - (point != "after-rename")
    ends_well(start(sweep))
    faults.append(moment.judge("the driver dies in the middle of writing a row", quick, commands=2))


@pytest.mark.faults
def test_a_driver_that_dies_while_it_compacts_loses_and_doubles_nothing(
    tmp_path: Path, quick: Reference, faults: list[Fault]
) -> None:
    sweep = write_sweep(tmp_path, QUICK)
    process = start(sweep, program=(dying.__file__, "compacted", "2"))
    began = begun(process, tmp_path)
    assert process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    moment = Moment(tmp_path / "results", began)
    assert len(moment.finished) == 3
    ends_well(start(sweep))
    faults.append(moment.judge("the driver dies while it compacts the tables", quick, commands=2))


@pytest.mark.faults
def test_a_lost_head_ends_the_command_with_a_sentence_and_the_same_command_goes_on(
    tmp_path: Path, undisturbed: Reference, faults: list[Fault]
) -> None:
    sweep = write_sweep(tmp_path, SLOW)
    process = start(sweep)
    began, workers = begun(process, tmp_path), training(process, tmp_path / "runs")
    (head,) = (pid for pid, line in descendants(process.pid).items() if "gcs_server" in line)
    os.kill(head, signal.SIGKILL)
    moment = Moment(tmp_path / "results", began)
    status, _, err = finish(process)
    assert (status, "the head of the Ray cluster was lost" in err) == (1, True), err
    assert "Traceback" not in err
    wait_for(lambda: all(gone(pid) for pid in workers))
    ends_well(start(sweep))
    faults.append(moment.judge("the cluster's head (gcs) is killed", undisturbed, commands=2))


# Trials that take their worker with them

MODEL = """
import ctypes, os, time
from pathlib import Path
import torch
from torch import nn

class Fatal(nn.Module):
    def __init__(self, *, image_size, channels, num_classes, how="", always=False, here="", odd=0):
        super().__init__()
        self.out = nn.Linear(image_size * image_size * channels, num_classes)
        self.how, self.always, self.calls = how, always, 0
        self.mark = Path(here or "/nowhere") / f"died-{odd}"

    def forward(self, x):
        self.calls += self.training
        if self.how and self.calls == 60 and (self.always or not self.mark.exists()):
            self.mark.touch()
            if self.how == "segfault":
                ctypes.string_at(0)
            hoard = []
            for _ in range(60):  # 6 GB
                hoard.append(torch.ones(100 * 2**20 // 4))
                time.sleep(0.05)
            time.sleep(20)
        return self.out(x.flatten(1))
"""


def fatal_sweep(folder: Path, how: str, *, always: bool = False) -> Path:
    """Three trials, of which the second ends its worker in its third epoch: once, or always."""
    (folder / "fatal.py").write_text(MODEL)
    spaces = [
        f"dict(model='fatal.py:Fatal', odd={odd}, how={how if odd == 1 else ''!r}, always={always}, "
        f"here={str(folder)!r}, epochs=40)"
        for odd in range(3)
    ]
    return write_sweep(folder, f"[{', '.join(spaces)}], lr=1e-3, lr_gamma=1")


def without_the_fault(sweep: Path) -> Reference:
    """The same sweep where nobody dies, in results of its own."""
    (sweep.parent / "died-1").touch()
    ends_well(start(sweep, "--results", "calm"))
    (sweep.parent / "died-1").unlink()
    return Reference.of(sweep.parent / "calm")


@pytest.mark.faults
def test_a_trial_that_segfaults_once_is_begun_again(tmp_path: Path, faults: list[Fault]) -> None:
    sweep = fatal_sweep(tmp_path, "segfault")
    reference = without_the_fault(sweep)
    process = start(sweep)
    began = begun(process, tmp_path)
    wait_for((tmp_path / "died-1").exists)
    moment = Moment(tmp_path / "results", began)
    ends_well(process)
    faults.append(moment.judge("a worker segfaults", reference, commands=1))


@pytest.mark.faults
def test_a_trial_that_always_segfaults_is_a_failed_row_and_stops_no_other(tmp_path: Path) -> None:
    status, _, err = finish(start(fatal_sweep(tmp_path, "segfault", always=True)))
    rows = attnsweep.load(tmp_path / "results", status=None)
    assert status == 1, err
    assert sorted(rows["status"]) == ["done", "done", "failed"]
    assert "its worker" in rows.loc[rows["status"] == "failed", "error"].item()
    assert rows["trial_id"].is_unique


def memory_limited(monkeypatch: pytest.MonkeyPatch, more_gb: float) -> None:
    """Has Ray kill workers once this machine uses that much more memory than now."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    total, left = (
        int(next(one for one in lines if name in one).split()[1]) for name in ("MemTotal", "MemAvail")
    )
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(total - left + more_gb * 1e6) / total:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")


@pytest.mark.faults
def test_a_worker_that_is_killed_for_memory_costs_no_row(
    tmp_path: Path, faults: list[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = fatal_sweep(tmp_path, "memory")
    reference = without_the_fault(sweep)
    memory_limited(monkeypatch, 4)
    process = start(sweep)
    began = begun(process, tmp_path)
    wait_for((tmp_path / "died-1").exists)
    moment = Moment(tmp_path / "results", began)
    ends_well(process)
    faults.append(moment.judge("a worker is killed for memory", reference, commands=1))


@pytest.mark.faults
def test_a_trial_that_always_wants_too_much_memory_is_a_failed_row_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_limited(monkeypatch, 4)
    status, _, err = finish(start(fatal_sweep(tmp_path, "memory", always=True)))
    rows = attnsweep.load(tmp_path / "results", status=None)
    assert status == 1, err
    assert sorted(rows["status"]) == ["done", "done", "failed"]
    (failed,) = rows[rows["status"] == "failed"].to_dict("records")
    assert json.loads(failed["model_args"])["how"] == "memory" and "memory" in failed["error"]


# Nodes


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of two nodes with a CPU each, whose head soon notices that one is dead."""
    for key, value in {"initial_delay": "0", "period": "500", "timeout": "500"}.items():
        monkeypatch.setenv(f"RAY_health_check_{key}_ms", value)
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("DIARY", str(tmp_path / "diary"))  # the trials' environment is that of their node
    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def kill_node(cluster: Cluster) -> None:
    """Kills all processes of the second node."""
    (raylet,) = cluster.worker_nodes.copy().pop().all_processes["raylet"]
    for pid in (raylet.process.pid, *descendants(raylet.process.pid)):
        os.kill(pid, signal.SIGKILL)


def on_two_nodes(cluster: Cluster) -> bool:
    """Whether both nodes train."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
    return all(any(".train" in line for line in descendants(pid).values()) for pid in raylets)


@pytest.mark.faults
def test_a_trial_whose_node_died_with_its_disk_starts_over_on_another(
    tmp_path: Path, two_nodes: Cluster, undisturbed: Reference, faults: list[Fault]
) -> None:
    process = start(write_sweep(tmp_path, SLOW), address=two_nodes.address)
    began = begun(process, tmp_path)
    wait_for(lambda: on_two_nodes(two_nodes) or process.poll() is not None)
    training(process, tmp_path / "runs")
    kill_node(two_nodes)
    moment = Moment(tmp_path / "results", began)
    for checkpoint in (tmp_path / "runs").glob("*/checkpoint.pt"):
        shutil.rmtree(checkpoint.parent)  # the other trial writes its own anew
    ends_well(process)
    faults.append(moment.judge("a node is killed, and its disk is gone", undisturbed, commands=1))
    assert trained_again(tmp_path) >= round(1 / NAP_S), "there was nothing to go on from"


@pytest.fixture(scope="module")
def objects() -> Iterator[Objects]:
    with served() as server:
        yield server


@pytest.mark.faults
def test_a_trial_whose_node_died_goes_on_from_shared_storage(
    tmp_path: Path, objects: Objects, two_nodes: Cluster, undisturbed: Reference, faults: list[Fault]
) -> None:
    results = objects.uri("node/results")
    process = start(write_sweep(tmp_path, SLOW), "--results", results, address=two_nodes.address)
    began = begun(process, tmp_path)
    wait_for(lambda: on_two_nodes(two_nodes) or process.poll() is not None)
    wait_for(lambda: sum(name.endswith("checkpoint.pt") for name in objects.below("node/runs")) == 2)
    kill_node(two_nodes)
    moment = Moment(results, began)
    ends_well(process)
    faults.append(moment.judge("a node is killed; checkpoints lie on s3://", undisturbed, commands=1))
    assert trained_again(tmp_path) <= UNSAVED
    assert objects.below("node/runs") == [], "neither checkpoints nor the lock stay"


@pytest.mark.faults
def test_a_store_that_fails_for_40_s_delays_the_sweep_and_nothing_else(
    tmp_path: Path, objects: Objects, undisturbed: Reference, faults: list[Fault]
) -> None:
    results = objects.uri("cut/results")
    process = start(write_sweep(tmp_path, SLOW), "--results", results)
    began = begun(process, tmp_path)
    wait_for(lambda: Store(results).paths("trials"))
    objects.line.is_cut = True  # at once: a trial is left, whose row finds no store
    time.sleep(40)  # longer than its client tries again by itself, in silence
    objects.line.is_cut = False
    moment = Moment(results, began)
    err = ends_well(process)
    assert "the store does not answer" in err and "Traceback" not in err
    fault = moment.judge("s3:// fails for 40 s", undisturbed, commands=1)
    faults.append(fault)
    assert set(attnsweep.load(results)["attempts"]) == {1} and fault.seconds_lost == 0
