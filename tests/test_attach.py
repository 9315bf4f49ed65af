"""Attaching to clusters that `ray start --head` began, with Ray's tokens and without."""

import contextlib
import json
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

from attnsweep.engine import cluster

from commands import PATIENCE_S

pytestmark = [pytest.mark.ray, pytest.mark.cluster]
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


def test_a_sweep_attaches_to_a_cluster_that_asks_for_tokens(closed: Home, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SWEEP)
    done = subprocess.run(
        [sys.executable, "-m", "attnsweep", "s.py", "--no-latency"],
        cwd=tmp_path, env=closed.environment(), capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert pd.read_parquet(tmp_path / "results/trials")["status"].tolist() == ["done"]


TRIES = """
import json, os, sys
import ray
from attnsweep.core.errors import UserError
from attnsweep.engine import cluster

@ray.remote(resources={"only_there": 1})
def there():
    return "there"

answers, before = [], dict(os.environ)
for address, environment in json.loads(sys.argv[1]):
    os.environ.update(environment)
    try:
        with cluster.connected(address):
            answers.append(ray.get(there.remote()))
    except UserError as error:
        answers.append(str(error))
    assert not ray.is_initialized()
    os.environ.clear()
    os.environ.update(before)
print(json.dumps(answers))
"""


def tried(home: Home, *tries: tuple[str | None, dict[str, str]]) -> list[str]:
    """What a driver of this user hears that tries addresses (None: what it finds) in environments, one
    after another: "there" from the cluster, or why it cannot attach to it; it starts no other.
    """
    done = subprocess.run(
        [sys.executable, "-c", TRIES, json.dumps(tries)], env=home.environment(), capture_output=True,
        text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers


def assert_refusal(home: Home, answer: str, sentence: str) -> None:
    assert sentence in answer and home.address in answer
    assert "\n" not in answer and TOKEN not in answer and OTHER not in answer


def test_a_cluster_that_asks_for_tokens_is_found_and_named_or_says_why_not(closed: Home) -> None:
    refusals = {
        "refuses the token": {"RAY_AUTH_TOKEN": OTHER},
        "asks for a token, but RAY_AUTH_MODE=disabled": {"RAY_AUTH_MODE": "disabled"},
        "asks for a token and there is none here": {"HOME": "/nonexistent"},
    }
    named, in_environment = (closed.address, {}), (None, {"RAY_ADDRESS": closed.address})
    answers = tried(closed, *((None, wrong) for wrong in refusals.values()), named, in_environment)
    assert answers[3:] == ["there", "there"]
    for sentence, answer in zip(refusals, answers, strict=False):
        assert_refusal(closed, answer, sentence)


def test_a_cluster_that_asks_for_none_is_found_and_named_or_says_why_not(open_: Home) -> None:
    refused, *answers = tried(open_, (None, {"RAY_AUTH_MODE": "token"}), (None, {}), (open_.address, {}))
    assert_refusal(open_, refused, "asks for no token, but RAY_AUTH_MODE=token")
    assert answers == ["there", "there"]


def test_where_nothing_is_found_a_cluster_of_its_own_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that of another driver, which is not found, is not joined: it would end in mid-sweep."""
    started: list[object] = []
    monkeypatch.setattr(cluster.tokens, "running", lambda: None)
    monkeypatch.setattr(cluster, "start_here", lambda options, servers: started.append(options))
    cluster.connect(None, contextlib.ExitStack())
    assert len(started) == 1
