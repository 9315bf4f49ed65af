"""Attaching to clusters that `ray start --head` began, with Ray's tokens and without."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import ray
import yaml

from attnsweep.engine import cluster

from commands import PATIENCE_S

pytestmark = pytest.mark.ray
SWEEP = """from attnsweep import Sweep
sweep = Sweep(model="vit", depth=1, dim=16, heads=2, dim_head=8, mlp_dim=16, epochs=1,
              resources={"cpu": 1, "only_there": 1})
"""  # it cannot run on a cluster that the driver starts for itself
LOOPBACK = "127.0.0.2"  # in place of 127.0.0.1 `ray start` would take the machine's own address
TOKEN, OTHER = "a" * 64, "b" * 64


@dataclass(frozen=True)
class Home:
    """A user's home, and where Ray keeps its state: short, for its sockets."""

    folder: Path
    address: str

    def environment(self, **more: str) -> dict[str, str]:
        """That of a user who has set nothing of Ray's."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        return {**kept, "HOME": str(self.folder), "RAY_TMPDIR": f"{self.folder}/t", **more}

    def put_token(self, token: str) -> None:
        (self.folder / ".ray").mkdir(exist_ok=True)
        (self.folder / ".ray/auth_token").write_text(token)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def head(token: str | None) -> Iterator[Home]:
    """A cluster on loopback, begun by a user with a token in the home folder or without one."""
    home = Home(Path(tempfile.mkdtemp(prefix="h", dir="/tmp")), f"{LOOPBACK}:{free_port()}")
    if token:
        home.put_token(token)
    ports = [f"--port={home.address.rpartition(':')[2]}", f"--ray-client-server-port={free_port()}"]
    agent = f"--dashboard-agent-listen-port={free_port()}"
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        f"--node-ip-address={LOOPBACK}",
        *ports, agent, "--include-dashboard=false", "--num-cpus=1", "--object-store-memory=80000000",
        '--resources={"only_there": 1}', "--disable-usage-stats",
    ]  # fmt: skip
    said = open(home.folder / "said", "w+")
    process = subprocess.Popen(
        command, env=home.environment(), stdout=said, stderr=said, start_new_session=True
    )
    try:
        until = time.monotonic() + PATIENCE_S
        while not (home.folder / "t/ray/ray_current_cluster").exists():
            assert time.monotonic() < until and process.poll() is None, (home.folder / "said").read_text()
            time.sleep(0.1)
        yield home
    finally:
        process.terminate()  # it ends the cluster's processes
        process.wait(timeout=PATIENCE_S)
        end_what_is_left(process.pid)
        said.close()
        shutil.rmtree(home.folder, ignore_errors=True)


def end_what_is_left(session: int) -> None:
    """Kills processes of the cluster's session that outlived it."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue


@pytest.fixture(scope="module")
def closed() -> Iterator[Home]:
    """Wants a token: there was one when it began."""
    with head(TOKEN) as home:
        yield home


@pytest.fixture(scope="module")
def open_() -> Iterator[Home]:
    """Wants none: there was none when it began. A later `ray.init`, for itself, has left one since."""
    with head(None) as home:
        home.put_token(TOKEN)
        yield home


def attnsweep(home: Home, folder: Path, *words: str, **environment: str) -> tuple[int, str, str]:
    (folder / "s.py").write_text(SWEEP)
    done = subprocess.run(
        [sys.executable, "-m", "attnsweep", "s.py", "--no-latency", *words],
        cwd=folder, env=home.environment(**environment), capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("kind", ["closed", "open_"])
def test_a_sweep_attaches_to_a_cluster_that_asks_for_tokens_and_to_one_that_does_not(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    status, out, err = attnsweep(request.getfixturevalue(kind), tmp_path)
    assert (status, err) == (0, ""), out + err
    assert pd.read_parquet(tmp_path / "results/trials")["status"].tolist() == ["done"]


@pytest.mark.parametrize(
    ("kind", "way"), [("closed", "named"), ("closed", "RAY_ADDRESS"), ("open_", "named")]
)
def test_a_cluster_may_be_named_in_words_or_in_the_environment(
    kind: str, way: str, request: pytest.FixtureRequest
) -> None:
    home: Home = request.getfixturevalue(kind)
    environment = {"RAY_ADDRESS": home.address} if way == "RAY_ADDRESS" else {}
    asks = "import ray, sys; from attnsweep.engine import cluster\nwith cluster.connected(*sys.argv[1:]): "
    asks += "print('only_there' in ray.cluster_resources())"
    named = home.address if way == "named" else ""
    done = subprocess.run(
        [sys.executable, "-c", asks, named], env=home.environment(**environment), capture_output=True,
        text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize(
    ("kind", "environment", "sentence"),
    [
        ("closed", {"RAY_AUTH_TOKEN": OTHER}, "refuses the token"),
        ("closed", {"RAY_AUTH_MODE": "disabled"}, "asks for a token, but RAY_AUTH_MODE=disabled"),
        ("closed", {"HOME": "/nonexistent"}, "asks for a token and there is none here"),
        ("open_", {"RAY_AUTH_MODE": "token"}, "asks for no token, but RAY_AUTH_MODE=token"),
    ],
)
def test_where_driver_and_cluster_cannot_agree_a_sentence_says_so_and_no_other_cluster_is_started(
    kind: str, environment: dict[str, str], sentence: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home: Home = request.getfixturevalue(kind)
    status, _, err = attnsweep(home, tmp_path, **environment)
    assert status == 2 and sentence in err and home.address in err
    assert len(err.splitlines()) == 1 and TOKEN not in err and OTHER not in err


def test_a_private_cluster_of_another_driver_is_not_joined(tmp_path: Path) -> None:
    """It would end in the middle of the sweep, with that driver."""
    other = "import ray, sys; ray.init(address='local', num_cpus=1, _node_ip_address='127.0.0.1', "
    other += "include_dashboard=False); print('up', flush=True); sys.stdin.read()"
    home = Home(Path(tempfile.mkdtemp(prefix="h", dir="/tmp")), "")
    process = subprocess.Popen(
        [sys.executable, "-c", other], env=home.environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin and process.stdout
    try:
        assert process.stdout.readline() == "up\n"
        asks = "from attnsweep.engine import cluster\nwith cluster.connected(None): pass"
        mine = subprocess.run(
            [sys.executable, "-c", asks],
            env=home.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert mine.returncode == 0, mine.stderr
        assert len(list(home.folder.glob("t/ray/session_2*"))) == 2, "one for each"
    finally:
        process.stdin.close()
        process.wait(timeout=PATIENCE_S)
        shutil.rmtree(home.folder, ignore_errors=True)


def test_nodes_that_the_autoscaler_may_add_count_as_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {
        "head": {"resources": {"CPU": 0}, "node_config": {}},
        "worker": {"resources": {"CPU": 4, "GPU": 2}, "min_workers": 0, "max_workers": 3, "node_config": {}},
    }
    monkeypatch.setattr(cluster, "BOOTSTRAP", str(tmp_path / "ray_bootstrap_config.yaml"))
    monkeypatch.setenv("RAY_NODE_TYPE_NAME", "head")  # as `ray up` does
    with cluster.connected("local"):
        alone = int(ray.cluster_resources()["CPU"])
        assert cluster.request(None) == {"cpu": 1, "gpu": 0} and cluster.slots({"cpu": 1}) == alone
        (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump({"available_node_types": kinds}))
        assert cluster.request(None) == {"cpu": 1, "gpu": 0.25}
        assert cluster.slots({"cpu": 1, "gpu": 0.25}) == 3 * 4, "the head has no GPU"
        assert cluster.request({"gpu": 2}) == {"cpu": 1, "gpu": 2}
        with pytest.raises(cluster.UserError, match="more than any node"):
            cluster.request({"gpu": 3})
