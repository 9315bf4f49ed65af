"""Workers that are forked from a process that has imported torch are as Ray's own would be."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnsweep.engine import fork_server, forked_worker
from attnsweep.engine.fork_server import ADDRESS

from commands import PATIENCE_S, gone, wait_for

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="elsewhere nothing is forked")
WORKER = """
import atexit, json, os, signal, sys, time

def terminated(*_):
    time.sleep(0.2)
    sys.exit(5)

signal.signal(signal.SIGTERM, terminated)
atexit.register(print, "at exit")
print(json.dumps({
    "words": sys.argv[1:], "folder": os.getcwd(), "has": "colorsys" in sys.modules, "named": __name__,
    "group": os.getpgrp(), "parent": os.getppid(), "pid": os.getpid(), "word": os.environ["WORD"],
    "open": len(os.listdir("/proc/self/fd")),
    "blocked": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []),
}), flush=True)
time.sleep(float(sys.argv[1]))
raise SystemExit(7)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which Ray's own worker is the file above."""
    own = tmp_path / "ray/_private/workers/default_worker.py"
    own.parent.mkdir(parents=True)
    (tmp_path / "ray/__init__.py").touch()
    own.write_text(WORKER)
    return {**os.environ, "PYTHONPATH": str(tmp_path), "WORD": "é \udcff"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that has one module."""
    monkeypatch.setattr(fork_server, "GPUS", ())
    with fork_server.fork_server(["colorsys"]):
        yield os.environ[ADDRESS]
    assert ADDRESS not in os.environ


def asked(environment: dict[str, str], folder: Path, seconds: float = 0) -> "subprocess.Popen[bytes]":
    """What Ray would start, in a process group of its own with SIGINT blocked."""
    command = [sys.executable, forked_worker.__file__, str(seconds), "--node-id=a b"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, process_group=0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_worker_is_what_the_process_that_asked_for_it_would_be(
    environment: dict[str, str], server: str, tmp_path: Path
) -> None:
    found = {}
    for name, address in (("forked", server), ("own", str(tmp_path / "nowhere"))):
        process = asked({**environment, ADDRESS: address}, tmp_path)
        said, _ = process.communicate(timeout=PATIENCE_S)
        line, *later = said.splitlines()
        assert later == [b"at exit"], "what was registered for its end is done"
        found[name] = {**json.loads(line), "status": process.returncode, "asked": process.pid}
    for one in found.values():
        assert one["words"] == ["0", "--node-id=a b"] and one["folder"] == str(tmp_path)
        assert (one["word"], one["named"], one["status"]) == ("é \udcff", "__main__", 7)
        assert one["group"] == one["asked"] and one["blocked"]
    assert found["forked"]["has"] and not found["own"]["has"]
    assert found["own"]["pid"] == found["own"]["asked"], "without a server it becomes the worker"
    assert found["forked"]["open"] == found["own"]["open"], "no descriptor of the server's is left"


def test_worker_and_who_stands_for_it_end_together(
    environment: dict[str, str], server: str, tmp_path: Path
) -> None:
    workers = []
    for _ in range(3):
        process = asked({**environment, ADDRESS: server}, tmp_path, seconds=60)
        assert process.stdout
        workers.append((process, json.loads(process.stdout.readline())["pid"]))
    (one, pid), (other, its), (last, left) = workers
    os.kill(pid, signal.SIGKILL)
    assert one.wait(timeout=PATIENCE_S) != 0
    other.kill()
    other.wait()
    wait_for(lambda: gone(its))
    assert last.poll() is None and not gone(left)
    last.kill()
    last.wait()
    wait_for(lambda: gone(left))
    for process in (one, other, last):
        assert process.stdout
        process.stdout.close()


def test_a_worker_that_its_group_is_told_to_end_ends_in_order(
    environment: dict[str, str], server: str, tmp_path: Path
) -> None:
    process = asked({**environment, ADDRESS: server}, tmp_path, seconds=60)
    assert process.stdout
    process.stdout.readline()
    wait_for(lambda: ignores(process.pid, signal.SIGTERM))
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert (said, process.returncode) == (b"at exit\n", 5)


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether a process ignores a signal."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    return bool(int(status[status.index("SigIgn:") + 1], 16) >> (number - 1) & 1)


def test_a_descriptor_that_has_gone_to_another_child_ends_none() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    ours, theirs = socket.socketpair()
    with ours, theirs, selectors.DefaultSelector() as selector:
        another = fork_server.Child(process.pid, ours.fileno(), theirs)
        selector.register(ours.fileno(), selectors.EVENT_READ, another)
        fork_server.end(fork_server.Child(process.pid, ours.fileno(), theirs), selector)
        assert ours.fileno() in selector.get_map()


def test_where_processes_cannot_be_watched_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(AttributeError):
        fork_server.main(-1, ["a_module_that_is_not"])


def test_a_server_that_cannot_import_leaves_workers_to_ray(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "GPUS", ())
    with fork_server.fork_server(["a_module_that_is_not"]):
        process = asked({**environment, ADDRESS: os.environ[ADDRESS]}, tmp_path)
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert json.loads(said.splitlines()[0])["pid"] == process.pid and process.returncode == 7


KILLED = """
import os, signal
from attnsweep.engine import fork_server
fork_server.GPUS = ()
with fork_server.fork_server(["colorsys"]):
    print(os.environ[fork_server.ADDRESS], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_driver_that_is_killed_leaves_no_server_and_no_folder() -> None:
    environment = {key: value for key, value in os.environ.items() if key != ADDRESS}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    folder = Path(killed.stdout.strip()).parent
    assert folder.name.startswith("attnsweep-")
    wait_for(lambda: not folder.exists())


def test_there_is_one_server_and_none_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, "that of another")
    with fork_server.fork_server():
        assert os.environ[ADDRESS] == "that of another"
    monkeypatch.delenv(ADDRESS)
    monkeypatch.setattr(fork_server, "GPUS", ("/dev/null",))
    with fork_server.fork_server():
        assert ADDRESS not in os.environ
    monkeypatch.setattr(fork_server, "GPUS", ())
    with tempfile.TemporaryDirectory(prefix=100 * "a") as long:
        monkeypatch.setattr(tempfile, "tempdir", long)
        with fork_server.fork_server():
            assert ADDRESS not in os.environ
        assert not os.listdir(long)
