"""What is used of Ray's insides, and what happens where it is gone."""

import contextlib
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import parameter, ray_constants
from ray._private.node import Node
from ray.tune import registry
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from test_tune_engine import Driven, controller_of, one_of_tunes, ours

import attnsweep
from attnsweep.core import tested
from attnsweep.core.errors import UserError
from attnsweep.engine import cluster, fork_server, forked_worker, ray_private, tokens
from attnsweep.engine.tune import LatestFirst

from commands import PATIENCE_S

PACKAGE = Path(attnsweep.__file__).parent


def ended(seed: int, status: str = TuneTrial.TERMINATED) -> TuneTrial:
    record = one_of_tunes(ours(seed), status=status)
    record.update_last_result({"event": [], "val_acc": 0.5, "config": {"trial": ours(seed)}})
    return record


def test_nothing_else_in_the_package_imports_what_ray_keeps_to_itself() -> None:
    private = re.compile(
        r"(from|import) ray[\w.]*\._\w+|from ray[\w.]* import _\w+|\bray\._\w+|temporary_state"
    )
    found = {
        str(path.relative_to(PACKAGE)): match[0]
        for path in PACKAGE.rglob("*.py")
        if path.name != "ray_private.py" and (match := private.search(path.read_text()))
    }
    assert found == {}


# --- Records of trials ---


def test_what_tune_keeps_of_ended_trials_is_a_shell() -> None:
    trials = [ended(seed) for seed in range(3)]
    every = list(trials)
    ray_private.forget(trials)
    assert trials == every[-1:], "Tune cannot do without a last one"
    (state, result), (other_state, other_result), last = (one.get_json_state() for one in every)
    assert (state, other_state) == ("", "") and result is other_result
    assert "val_acc" in last[1] and "val_acc" not in result
    assert every[0].config == every[0].evaluated_params == {}


def test_trials_that_have_not_ended_are_left_as_they_are() -> None:
    statuses = (TuneTrial.RUNNING, TuneTrial.ERROR, TuneTrial.PENDING, TuneTrial.TERMINATED)
    trials = [ended(seed, status) for seed, status in enumerate(statuses)]
    ray_private.forget(trials)
    assert [one.status for one in trials] == [TuneTrial.RUNNING, TuneTrial.PENDING, TuneTrial.TERMINATED]
    assert [one.config["trial"].config["seed"] for one in trials] == [0, 2, 3]
    assert trials[0].last_result["val_acc"] == 0.5


@pytest.mark.parametrize(
    "private", ["_state_json", "_Trial__unresolved_config", "run_metadata", "experiment_tag"]
)
def test_a_tune_that_keeps_other_things_is_no_error(private: str) -> None:
    trials = [ended(seed) for seed in range(2)]
    is_finished = trials[0].is_finished()
    delattr(trials[0], private)
    ray_private.forget(trials)
    assert is_finished and len(trials) == 1


def test_without_a_sight_of_workers_tune_chooses_the_next_trial_itself() -> None:
    trials = [one_of_tunes(ours(seed), status=status) for seed, status in enumerate(["RUNNING", "PENDING"])]
    del trials[1].temporary_state.ray_actor
    assert ray_private.worker_of(trials[1]) is None
    tunes_choice = FIFOScheduler().choose_trial_to_run(controller := controller_of(trials))
    assert LatestFirst(Driven(0, slots=1).engine).choose_trial_to_run(controller) is tunes_choice


def test_tune_remembers_its_classes_for_as_long_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(type(registry._global_registry), "get", lambda self, *key: asked.append(key[1]) or 1)
    with ray_private.remembered_classes():
        assert [registry._global_registry.get("a", "b") for _ in range(3)] == [1, 1, 1]
    assert asked == ["b"]
    assert "get" not in vars(registry._global_registry)


def test_without_a_registry_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(registry, "_global_registry")
    with ray_private.remembered_classes():
        pass


# --- Messages ---


def test_what_ray_prints_goes_to_a_logger(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray._private import worker

    before = worker.print_to_stdstream
    with ray_private.messages_to(logging.getLogger("test")):
        said = {"lines": ["advice", "more"], "pid": "raylet", "is_err": False}
        worker.print_to_stdstream(said, ignore_prefix=False)
    assert caplog.messages == ["(raylet) advice\nmore"] and capsys.readouterr().out == ""
    assert worker.print_to_stdstream is before


def test_where_ray_prints_by_other_means_that_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("ray._private.worker.print_to_stdstream")
    with ray_private.messages_to(logging.getLogger("test")):
        pass


# --- Clusters and tokens ---


def test_a_local_cluster_is_started_as_one_of_a_single_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def init(**options: Any) -> None:
        asked.append((options, ray_constants.ENABLE_RAY_CLUSTER))

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_private.start_on_loopback(init, {"address": "local"})
    assert asked == [({"address": "local"}, False)] and ray_constants.ENABLE_RAY_CLUSTER == before
    monkeypatch.delattr(ray_constants, "ENABLE_RAY_CLUSTER")
    ray_private.start_on_loopback(lambda **options: asked.append(options), {})
    assert asked[1:] == [{}]


def test_a_cluster_of_this_machine_has_no_process_that_adds_nodes_or_passes_on_what_workers_print(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    whole = parameter.RayParams
    ray_private.start_on_loopback(lambda **options: made.append(parameter.RayParams(num_cpus=1)), {})
    assert (made[0].include_log_monitor, made[0].no_monitor, made[0].num_cpus) == (False, True, 1)
    assert parameter.RayParams is whole
    monkeypatch.setattr(parameter, "RayParams", lambda *, num_cpus: num_cpus)
    ray_private.start_on_loopback(lambda **options: made.append(parameter.RayParams(num_cpus=1)), {})
    assert made[1] == 1, "of another version: all are started"


def test_workers_of_this_machine_run_a_file_of_ours_where_ray_lets_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    assert Path(forked_worker.worker_file()).is_file(), "Ray's own, which is forked"

    def init(**options: Any) -> None:
        made.append(parameter.RayParams(num_cpus=1))

    ray_private.start_on_loopback(init, {}, worker="/ours.py")
    ray_private.start_on_loopback(init, {})
    assert [params.worker_path for params in made] == ["/ours.py", None]
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(ray_private, "worker_file", lambda: "/nowhere.py")
        ray_private.start_on_loopback(init, {}, worker="/ours.py")
    with monkeypatch.context() as newer:
        newer.setitem(tested.NEWEST, "ray", (2, 0))
        ray_private.start_on_loopback(init, {}, worker="/ours.py")
    monkeypatch.setattr(parameter, "RayParams", lambda *, num_cpus: SimpleNamespace(worker_path=None))
    ray_private.start_on_loopback(init, {}, worker="/ours.py")
    assert [params.worker_path for params in made[2:]] == [None, None, None]


def test_a_cluster_of_this_machine_has_no_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Node, "start_api_server", lambda self, **options: asked.append(options))
    node = SimpleNamespace()
    ray_private.start_on_loopback(lambda **options: Node.start_api_server(node, include_dashboard=False), {})
    assert asked == [] and node._webui_url == ""
    Node.start_api_server(node, include_dashboard=False)
    assert asked == [{"include_dashboard": False}], "of clusters that others start it is left alone"
    monkeypatch.delattr(Node, "start_api_server")
    ray_private.start_on_loopback(lambda **options: asked.append(options), {"address": "local"})
    assert asked[1:] == [{"address": "local"}]


def test_tune_trains_in_the_workers_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "remote", lambda *kind, **options: (kind, options))
    for name in class_cache.ENV_VARS_TO_PROPAGATE:
        monkeypatch.delenv(name, raising=False)
    before = class_cache._ActorClassCache.get
    with ray_private.workers_as_they_are(of_driver=False):
        assert class_cache._ActorClassCache().get(int) == ((int,), {}), "without an environment of their own"
    assert class_cache._ActorClassCache.get is before
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "k")
    with ray_private.workers_as_they_are(of_driver=True):
        assert class_cache._ActorClassCache().get(int) == ((int,), {}), "which they have anyhow"
    with ray_private.workers_as_they_are(of_driver=False):
        assert class_cache._ActorClassCache.get is before, "workers elsewhere need the key"
    monkeypatch.delattr(class_cache, "_ActorClassCache")
    with ray_private.workers_as_they_are(of_driver=False):
        pass


def test_an_error_of_the_start_is_raised() -> None:
    def init(**options: Any) -> None:
        raise RuntimeError("no space left")

    before = ray_constants.ENABLE_RAY_CLUSTER
    with pytest.raises(RuntimeError, match="no space left"):
        ray_private.start_on_loopback(init, {})
    assert ray_constants.ENABLE_RAY_CLUSTER == before


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            Exception("The current node timed out during startup. This could happen because ..."),
            "Ray did not start within half a minute: .* or run with --serial",
        ),
        (
            UnicodeEncodeError("ascii", "/tmp/é", 5, 6, "ordinal not in range(128)"),
            "TMPDIR='/tmp/é' has letters that Ray does not take; set another, as TMPDIR=/tmp",
        ),
    ],
)
def test_where_ray_cannot_start_a_sentence_says_so(
    error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**options: Any) -> None:
        raise error

    monkeypatch.setenv("RAY_TMPDIR", "/tmp/é")
    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.tokens, "keep_private", lambda **options: None)
    monkeypatch.setattr(cluster, "fork_server", contextlib.nullcontext)
    with pytest.raises(UserError, match=sentence):
        cluster.start_here({}, contextlib.ExitStack())


LISTENERS = """
import os, subprocess, sys
from attnsweep.engine import cluster

def started() -> set[str]:
    table = subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True)
    parents = [line.split() for line in table.splitlines()]
    found = {str(os.getpid())}
    while more := {pid for pid, parent in parents if parent in found} - found:
        found |= more
    return found

with cluster.connected("local"):
    import ray

    @ray.remote
    class Worker:
        def has_torch(self): return "torch" in sys.modules

    print(ray.get(Worker.remote().has_torch.remote()))
    sockets, ours = subprocess.check_output(["ss", "-Hltnp"], text=True).splitlines(), started()
    print(*(line.split()[3] for line in sockets if any(f"pid={pid}," in line for pid in ours)))
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("ss") and shutil.which("ps")), reason="it looks with ss and ps")
def test_all_that_a_local_sweep_starts_listens_on_the_loopback_and_its_token_is_private(
    tmp_path: Path,
) -> None:
    """GCS, raylet, agents, workers and what watches them."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS], env=environment | {"HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    is_forked, *addresses = done.stdout.split()
    hosts = {address.rpartition(":")[0] for address in addresses}
    assert len(addresses) >= 6 and hosts <= {"127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"}, done.stderr
    assert is_forked == str(not any(map(os.path.exists, fork_server.GPUS))), (
        "a worker has torch before it is told to"
    )
    assert stat.S_IMODE((tmp_path / ".ray/auth_token").stat().st_mode) == 0o600


@pytest.mark.parametrize("create", [False, True])
def test_a_token_that_others_can_read_is_made_private(
    create: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray/auth_token"
    token.write_text("known")
    token.chmod(0o644)
    tokens.keep_private(create=create)
    assert (token.read_text(), stat.S_IMODE(token.stat().st_mode)) == ("known", 0o600)


@pytest.mark.parametrize("variable", ["", tokens.MODE, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_is_made_where_ray_would_make_one(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (tokens.MODE, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if variable:
        monkeypatch.setenv(variable, "disabled")
    token = tmp_path / ".ray/auth_token"
    tokens.keep_private()
    assert not token.exists()
    tokens.keep_private(create=True)
    assert token.exists() == (not variable)
    if not variable:
        assert len(token.read_text()) == 64 and stat.S_IMODE(token.stat().st_mode) == 0o600
        assert [path.name for path in token.parent.iterdir()] == ["auth_token"]


@pytest.fixture
def without_raylet_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AuthenticationTokenLoader", "Config", "GcsClient"):
        monkeypatch.delattr(f"ray._raylet.{name}")
    yield


@pytest.mark.usefixtures("without_raylet_names")
def test_without_rays_token_loader_ray_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tokens.MODE, "token")
    tokens.agree("127.0.0.1:1")
    assert tokens.os.environ[tokens.MODE] == "token"
    assert tokens.header() == {}


def test_without_its_services_a_cluster_on_this_machine_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("ray._private.services.find_bootstrap_address")
    assert tokens.running() is None


def test_without_a_sight_of_its_client_the_head_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ray_private.is_client()
    monkeypatch.delattr("ray.util.client.ray")
    assert ray_private.is_client()


@pytest.mark.slow
def test_rays_command_is_that_of_this_environment_or_else_of_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ray_private.command()[:3] == [sys.executable, "-P", "-m"]
    ended = subprocess.run([*ray_private.command(), "--version"], capture_output=True, text=True)
    assert "version 2." in ended.stdout
    monkeypatch.setitem(sys.modules, "ray.scripts.scripts", None)
    assert len(ray_private.command()) == 1 and ray_private.command()[0].endswith("ray")
