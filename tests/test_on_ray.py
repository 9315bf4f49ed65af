"""Sweeps of one process on a Ray of this machine's, through `attnsweep.run`: one cluster for all of them."""

import contextlib
import functools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from PIL import Image
from ray import tune
from ray._private import worker

import attnsweep
from attnsweep import Sweep
from attnsweep.core.errors import UserError
from attnsweep.engine import cluster, ray_private, tokens
from attnsweep.engine.on_ray import Node, RayWorkers
from attnsweep.tasks.driving.records import presets, recorded, scenes
from attnsweep.tasks.driving.world.cast import Crowd

from commands import descendants

pytestmark = pytest.mark.ray
TINY = dict(depth=1, heads=1, dim=8, dim_head=8, mlp_dim=8, batch_size=1000)
ALONE = {"cpu": 2}  # a sweep's trials come one after another, on one worker where this machine has few CPUs


@pytest.fixture(scope="module", autouse=True)
def connected() -> Iterator[None]:
    """A Ray of this process's, in which what runs here finds itself."""
    before = signal.getsignal(signal.SIGTERM)
    with cluster.connected("local"):
        assert signal.getsignal(signal.SIGTERM) is before, "a polite kill is ours, and not Ray's"
        yield


def test_a_local_cluster_on_a_head_waits_for_no_autoscaler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"worker": {"resources": {"CPU": 4, "GPU": 2}, "max_workers": 3}}
    monkeypatch.setattr(cluster, "BOOTSTRAP", str(tmp_path / "ray_bootstrap_config.yaml"))
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump({"available_node_types": kinds}))
    assert cluster.to_come() == [] and cluster.request(None) == {"cpu": 1, "gpu": 0}


def test_its_processes_are_those_that_a_sweep_needs() -> None:
    lines = descendants(os.getpid()).values()
    assert any("raylet" in line for line in lines)
    assert not any("log_monitor.py" in line or "/monitor.py" in line for line in lines)


def test_a_node_that_measures_again_starts_no_other_worker() -> None:
    """All nodes measure one architecture, then each its share: a worker takes seconds to start."""
    (there,) = ray.nodes()
    node = Node(there["NodeID"], 1.0, 0.0)
    workers = {ray.get(node.task(lambda: os.getpid(), 1.0).remote()) for _ in range(12)}
    assert len(workers) <= there["Resources"]["CPU"]


def test_it_is_found_by_no_other_driver() -> None:
    assert tokens.running() is None


def test_run_gives_a_notebook_the_rows_of_the_data_that_is_there_each_time(tmp_path: Path) -> None:
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


OWN = """
import ctypes, os
from torch import nn

class Net(nn.Sequential):
    def __init__(self, *, image_size: int, num_classes: int, ill: str = "") -> None:
        super().__init__(nn.Flatten(), nn.Linear(image_size**2, num_classes))
        self.ill = ill

    def forward(self, images):
        if self.training and len(images) == 64:  # the plan tries a step on two
            if self.ill == "hangs":
                ctypes.PyDLL(None).sleep(600)  # it holds Python's lock
            if self.ill == "breaks":
                raise ValueError("too many")
            assert os.nice(0) == 0, "as RAY_worker_niceness asks"
        return super().forward(images)
"""


def test_a_trial_that_hangs_or_fails_stops_no_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In C code that holds Python's lock, where nothing but the end of the process helps."""
    (tmp_path / "net.py").write_text(OWN)
    ill = {"grid_search": ["hangs", "breaks", ""]}
    sweep = Sweep(model=f"{tmp_path}/net.py:Net", ill=ill, epochs=1, trial_timeout=60, resources=ALONE)
    rows = attnsweep.run(sweep, tmp_path / "results", latency=False)
    found = {json.loads(row["model_args"])["ill"]: row for row in rows.to_dict("records")}
    assert {key: row["status"] for key, row in found.items()} == {
        "hangs": "failed", "breaks": "failed", "": "done"
    }  # fmt: skip
    assert found["hangs"]["error"].startswith("it took longer than trial_timeout=60 s")
    assert "too many" in found["breaks"]["error"]
    assert set(rows["attempts"]) == {1}, "each found a worker of its own"
    assert capfd.readouterr().err == ""


def test_asha_stops_trials_early_and_a_sweep_without_it_finishes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the lowest rates nothing is learnt: 0.1 of the digits are right, of the first trial's 0.8."""
    rates = {"grid_search": [3e-3, 1e-7, 1e-8, 1e-9]}
    common: dict[str, Any] = dict(model="cnn", dim=16, lr=rates, epochs=4, lr_gamma=1)
    run = functools.partial(attnsweep.run, results=tmp_path / "results", latency=False)
    rows = run(Sweep(**common, scheduler="asha"))
    assert set(rows["status"]) == {"done", "stopped"}
    assert rows.loc[rows["lr"] == 3e-3, "status"].item() == "done"
    capsys.readouterr()
    run(Sweep(**common, scheduler="asha"))
    assert "4 trials (0 new, 4 done)" in capsys.readouterr().out
    assert set(run(Sweep(**common), serial=True)["status"]) == {"done"}
    assert "new" in capsys.readouterr().out


def test_a_real_search_trains_its_number_and_goes_on_where_it_is_lengthened(tmp_path: Path) -> None:
    space: dict[str, Any] = {**TINY, "depth": tune.randint(1, 4), "lr": tune.loguniform(1e-4, 1e-2)}

    def ran(samples: int, **where: bool) -> list[str]:
        sweep = Sweep(**space, model="vit", epochs=1, search="optuna", num_samples=samples)
        rows = attnsweep.run(sweep, tmp_path / "results", latency=False, **where)
        assert set(rows["status"]) == {"done"} and set(rows["attempts"]) == {1}
        return list(rows["trial_id"])

    first, again, more = ran(4), ran(4), ran(6, serial=True)
    assert len(first) == 4 and sorted(again) == sorted(first)
    assert len(set(more)) == 6 and set(first) < set(more)
    assert len((tmp_path / "runs/starts.log").read_text().split()) == 6


def test_a_sweep_runs_without_what_ray_does_not_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(worker, "print_to_stdstream")
    monkeypatch.setattr(ray_private, "worker_of", lambda trial: None)
    monkeypatch.setattr(ray_private, "sees_workers", lambda trial: False)
    monkeypatch.setattr(ray_private, "forget", lambda trials: None)
    monkeypatch.setattr(ray_private, "remembered_classes", contextlib.nullcontext)
    sweep = Sweep(TINY, model="vit", seed={"grid_search": [*range(6)]}, epochs=1)
    rows = attnsweep.run(sweep, tmp_path / "results", latency=False)
    assert list(rows["status"]) == ["done"] * 6 and "6 done in" in capsys.readouterr().out


SCENES = presets.Preset("driving:tiny", 3, 1, 2, 8.0, Crowd(12, 3, 4), full=True)


def test_a_cluster_records_the_bytes_that_one_process_does(tmp_path: Path) -> None:
    told: list[int] = []
    places = there, here = tmp_path / "there", tmp_path / "here"
    scenes.ensure(SCENES, there, workers=RayWorkers(), on_scene=lambda done, _: told.append(done))
    scenes.ensure(SCENES, here, processes=1)
    assert told == [1, 2, 3, 4, 5, 6]
    manifests = [(scenes.folder(SCENES, place) / "manifest.json").read_text() for place in places]
    assert manifests[0] == manifests[1]


def test_a_recording_that_a_worker_cannot_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "one.xml").write_text("<commonRoad")
    with pytest.raises(UserError, match=r"one\.xml.* is not well-formed XML") as raised:
        scenes.ensure(recorded.find(f"commonroad:{tmp_path}"), tmp_path, workers=RayWorkers())
    assert str(raised.value).startswith(str(tmp_path)) and "\n" not in str(raised.value)
