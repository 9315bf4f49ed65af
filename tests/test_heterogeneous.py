"""A cluster whose nodes differ: where trials go, what is refused, on what latency is measured, and how many
threads a trial has. Its nodes are processes of this machine; each has a CPU of another name.
"""

import contextlib
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import yaml
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import attnsweep
from attnsweep import Sweep, UserError
from attnsweep.core.deployment import Ask, Deployment, Deployments
from attnsweep.engine import cluster, latency, on_ray
from attnsweep.engine.engine import MachineInfo, Measured
from attnsweep.engine.on_ray import Kind, Node, RayCluster
from attnsweep.results.store import Store

SINGLE = Deployments(batch=(1,))

pytestmark = [pytest.mark.ray, pytest.mark.cluster]
NOTED = '''
import json, os, time
from pathlib import Path
import numpy as np
import torch
from threadpoolctl import threadpool_info
from torch import nn


class Noted(nn.Module):
    """Class scores by one linear layer, and a note of the threads that it is computed on."""

    def __init__(self, image_size, channels, num_classes, note=""):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, num_classes))
        if note and not self.layers[1].weight.is_meta:
            self.note(Path(note))

    def note(self, path):
        began, used = time.perf_counter(), time.process_time()
        for _ in range(10):
            torch.rand(600, 600) @ torch.rand(600, 600)
            np.ones((600, 600)) @ np.ones((600, 600))
        busy = (time.process_time() - used) / (time.perf_counter() - began)
        path.write_text(json.dumps({
            "torch": torch.get_num_threads(), "interop": torch.get_num_interop_threads(), "busy": busy,
            "pools": [pool["num_threads"] for pool in threadpool_info()],
            "omp": os.environ.get("OMP_NUM_THREADS"),
        }))

    def forward(self, images):
        return self.layers(images)
'''
PRETEND = """
import os
from pathlib import Path
import attnsweep.results.provenance
attnsweep.results.provenance.CPUINFO = Path(os.environ["CPUINFO"])
"""  # run by every Python process of a node as it starts


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without CPUs, a node with the CPU Alpha and two with the CPU Beta, one of them with a card; each
    is told by its user to compute on 16 threads.
    """
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "sitecustomize.py").write_text(PRETEND)
    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    small |= {"include_log_monitor": False, "no_monitor": True}  # as where a sweep starts one
    with pytest.MonkeyPatch.context() as environment_of_head:
        environment_of_head.setenv("RAY_NODE_TYPE_NAME", "head")  # as `ray up` does
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    for name, resources in (("Alpha", {"alpha": 1}), ("Beta", {"beta": 1, "card": 1}), ("Beta", {"beta": 1})):
        (folder / name).write_text(f"model name\t: {name}\n")
        environment = {"CPUINFO": str(folder / name), "PYTHONPATH": path, "OMP_NUM_THREADS": "16"}
        made.add_node(num_cpus=2, num_gpus=0, resources=resources, env_vars=environment, **small)
    with cluster.connected(made.address):
        yield made
    made.shutdown()


def ran(folder: Path, resources: dict[str, float]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of two trials of one architecture, and what the second has noted of its threads."""
    note = folder / "note.json"
    (folder / "noted.py").write_text(NOTED)
    model = dict(model=f"{folder}/noted.py:Noted", note=str(note), epochs=1, batch_size=2000)
    sweep = Sweep(model, seed={"grid_search": [0, 1]}, resources=resources)
    rows = attnsweep.run(sweep, results=folder / "results", latency=False)
    assert list(rows["status"]) == ["done"] * 2, rows["error"].tolist()
    return rows, json.loads(note.read_text())


def assert_threads(rows: pd.DataFrame, noted: dict[str, Any], threads: int) -> None:
    """Asserts that trials computed on so many threads, whatever the environment says: here 16."""
    assert (noted["torch"], noted["interop"], noted["omp"]) == (threads, 1, str(threads))
    assert set(noted["pools"]) == {threads}
    assert noted["busy"] < threads + 0.2, "processor time over wall clock"
    assert rows["device"][0].endswith(f", {threads} thread{'s' if threads > 1 else ''}")


def test_resources_decide_where_trials_go_and_on_how_many_threads_they_compute(
    nodes: Cluster, tmp_path: Path
) -> None:
    """To the one node with a card; below, to the one with the CPU Alpha."""
    rows, noted = ran(tmp_path, {"cpu": 2, "card": 0.25})
    assert set(rows["cpu"]) == {"Beta"}
    assert_threads(rows, noted, 2)


class Heard(io.StringIO):
    """A standard output that makes a file once it has heard some words."""

    def __init__(self, words: str, file: Path) -> None:
        super().__init__()
        self.words, self.file = words, file

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.words in self.getvalue():
            self.file.touch()
        return written


@pytest.fixture(scope="module")
def on_alpha(nodes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Results of trials that had to wait for the node Alpha, and what a person could read meanwhile."""
    folder = tmp_path_factory.mktemp("alpha")
    out = Heard("waiting for room", folder / "said")
    with held({"CPU": 1, "alpha": 1}, until=folder / "said"), contextlib.redirect_stdout(out):
        rows, noted = ran(folder, {"cpu": 0.5, "alpha": 1})
    assert set(rows["cpu"]) == {"Alpha"}
    assert_threads(rows, noted, 1)
    return folder / "results", out.getvalue()


def test_trials_that_find_no_room_say_what_they_wait_for(on_alpha: tuple[Path, str]) -> None:
    _, out = on_alpha
    assert "waiting for room in the cluster: a trial takes cpu 0.5, alpha 1; free are cpu" in out
    assert "alpha 0 of 1" in out


def test_what_no_node_has_is_refused_with_what_the_cluster_has(nodes: Cluster) -> None:
    has = r"the cluster has 1 x \(nothing\), 1 x \(CPU: 2, alpha: 1\), 1 x \(CPU: 2, beta: 1\), 1 x"
    with pytest.raises(UserError, match=rf"cpu=3 is more than any node of the cluster has \(2\); {has}"):
        cluster.request({"cpu": 3})
    with pytest.raises(UserError, match=r"cards=1 is more than any node .* did you mean 'card'"):
        cluster.request({"cpu": 1, "cards": 1})
    with pytest.raises(UserError, match=rf"no node of the cluster has cpu=1, alpha=1, beta=1 at once; {has}"):
        cluster.request({"alpha": 1, "beta": 1})


def test_slots_are_counted_node_by_node(nodes: Cluster) -> None:
    wanted = {(1, 0): 6, (2, 0): 3, (1.5, 0): 3, (0.5, 0): 12, (1, 0.25): 2, (0.1, 0.25): 4}
    for (cpu, card), count in wanted.items():
        assert cluster.slots({"cpu": cpu, "gpu": 0, "card": card}) == count


def test_nodes_that_the_autoscaler_may_add_count_as_offered(
    nodes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {
        "head": {"resources": {"CPU": 0}, "node_config": {}},
        "worker": {"resources": {"CPU": 4, "GPU": 2}, "min_workers": 0, "max_workers": 3, "node_config": {}},
    }
    monkeypatch.setattr(cluster, "BOOTSTRAP", str(tmp_path / "ray_bootstrap_config.yaml"))
    alone = int(ray.cluster_resources()["CPU"])
    assert cluster.request(None) == {"cpu": 1, "gpu": 0} and cluster.slots({"cpu": 1}) == alone
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump({"available_node_types": kinds}))
    assert cluster.request(None) == {"cpu": 1, "gpu": 0.25}
    assert cluster.slots({"cpu": 1, "gpu": 0.25}) == 3 * 4, "the head has no GPU"
    assert cluster.request({"gpu": 2}) == {"cpu": 1, "gpu": 2}
    with pytest.raises(UserError, match="more than any node"):
        cluster.request({"gpu": 3})


@pytest.fixture(scope="module")
def benches(nodes: Cluster) -> tuple[list[Kind], list[str | None]]:
    """The kinds of devices in the cluster, and what they report."""
    reports = list[str | None]()
    return [*RayCluster(reports.append).benches(SINGLE, gpus=False)], reports


@pytest.fixture
def alpha(benches: tuple[list[Kind], list[str | None]]) -> tuple[Kind, list[str | None]]:
    """The node Alpha as a bench, and what it reports from now on."""
    kinds, reports = benches
    (one,) = (kind for kind in kinds if kind.machine.measured_on[1].startswith("Alpha"))
    reports.clear()
    return one, reports


def test_latency_is_measured_once_on_each_kind_of_device(
    on_alpha: tuple[Path, str], benches: tuple[list[Kind], list[str | None]]
) -> None:
    results, _ = on_alpha
    store, heard = Store(results), list[tuple[int, int]]()
    rows = attnsweep.load(results)
    subjects = latency.subjects_of(store, dict(zip(rows["trial_id"], rows["arch_id"], strict=True)))
    for _ in range(2):
        latency.Phase(store, SINGLE, lambda *now: heard.append(now)).measure(subjects, benches[0])
    assert heard == [(1, 1), (1, 1)]
    measured = store.read("latency").to_pandas()
    assert sorted(measured["measured_on"]) == ["Alpha, 1 thread", "Beta, 1 thread"]
    assert set(attnsweep.load(results)["measured_on"]) == {"Alpha, 1 thread"}


def test_a_measurement_waits_until_it_has_its_node_alone(alpha: tuple[Kind, list[str | None]]) -> None:
    one, reports = alpha
    where = NodeAffinitySchedulingStrategy(one.nodes[0].node_id, soft=False)

    @ray.remote(num_cpus=0.5, scheduling_strategy=where)
    def trial(started: str) -> float:
        Path(started).touch()
        time.sleep(1)
        return time.time()

    def now() -> float:
        return time.time()

    started = Path(f"/tmp/started-{os.getpid()}")
    training = trial.remote(str(started))
    while not started.exists():
        time.sleep(0.05)
    started.unlink()
    (node,) = one.nodes
    measuring = node.task(now, node.cpus).remote()
    assert ray.get(measuring) >= ray.get(training)
    assert reports == []


def test_a_measurement_that_waits_for_its_node_says_so(
    alpha: tuple[Kind, list[str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_and_say(asks: Sequence[Ask], *_: object) -> Iterator[Measured | None]:  # it travels by value
        yield None
        yield Measured(asks[0], None, "nothing")

    def report(reason: str | None) -> None:
        reports.append(reason)
        (tmp_path / "said").touch()

    monkeypatch.setattr(on_ray, "SAY_S", 0.3)
    monkeypatch.setattr(on_ray, "begin_and_measure", begin_and_say)
    one, reports = alpha
    with held({"CPU": 1, "alpha": 0.5}, until=tmp_path / "said"):
        (measured,) = replace(one, report=report).measure([Ask(Deployment())])
    assert measured.error == "nothing"
    assert reports[0].startswith("room to measure, where other work of the cluster runs; free are cpu")
    assert reports[-1] is None


@contextlib.contextmanager
def held(resources: dict[str, float], *, until: Path) -> Iterator[None]:
    """Other work, which has these resources until there is a file."""
    others = {key: amount for key, amount in resources.items() if key != "CPU"}
    ((name, amount),) = others.items()

    @ray.remote(num_cpus=resources["CPU"], resources=others)
    def work() -> None:  # a task gives back what it has when it ends, an actor when it dies
        while not until.exists():
            time.sleep(0.05)

    working = work.remote()
    while ray.available_resources().get(name, 0) > ray.cluster_resources()[name] - amount:
        time.sleep(0.05)
    yield
    ray.get(working)


def test_a_node_that_went_away_is_skipped(nodes: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    gone = Kind(
        MachineInfo({1: "Gone, 1 thread"}, {}, {}, cores=1), (Node("ab" * 28, 1.0, 0.0),), lambda reason: None
    )
    assert list(gone.measure([Ask(Deployment())])) == []
    assert "a node measures no more" in caplog.text
