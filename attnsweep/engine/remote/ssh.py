"""The way to a cluster's head, by Ray's own commands over SSH."""

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from attnsweep.core.errors import UserError
from attnsweep.engine import ray_private

DASHBOARD_PORT = 8265  # on the head's loopback
START_S = 60.0  # for a tunnel to open
TUNNEL = """
import os, signal, sys, threading
from attnsweep.engine.ray_private import run_command
pipe = os.dup(0)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
def watch():  # whoever opened the tunnel may be killed; ssh would stay
    os.read(pipe, 1)
    os.killpg(0, signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
run_command()
"""


class Dropped(Exception):
    """The connection to the cluster is gone; the job goes on."""


def require_head(cluster: Path) -> None:
    """Raises UserError where there is no such cluster, or it is not up."""
    if not cluster.is_file():
        raise UserError(f"there is no cluster file {cluster}")
    well, text = ray("get-head-ip", str(cluster))
    if not well:
        raise UserError(
            f"the cluster of {cluster} is not up ({last_line(text)}); start it with: ray up {cluster}"
        )


@contextlib.contextmanager
def tunnel(cluster: Path) -> Iterator[str]:
    """A way to the head's dashboard: a URL on this machine. Raises Dropped where it does not open.

    Ray's commands share one SSH connection per user name, and it keeps every port that was ever forwarded:
    tunnels get a name, and so a connection, of their own.
    """
    port = free_port()
    ends = ["dashboard", str(cluster), "--port", str(port), "--remote-port", str(DASHBOARD_PORT)]
    environment = {**os.environ, "LOGNAME": f"{getpass.getuser()}-tunnel"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", TUNNEL, *ends], env=environment,
            stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            until = time.monotonic() + START_S
            while not answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    output.seek(0)
                    raise Dropped(last_line(output.read()))
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def free_port() -> int:
    """A port of this machine's loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def ray(*words: str) -> tuple[bool, str]:
    """Whether one of Ray's commands succeeds, and what it prints."""
    command = [*ray_private.command(), *words]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.returncode == 0, done.stdout + done.stderr


def rsync_down(cluster: Path, source: str, folder: str) -> bool:
    """Copies a folder of the head's; False where there is none yet. Raises Dropped where that fails.

    What vanishes meanwhile was compacted there: its rows come the next time.
    """
    well, text = ray("rsync-down", str(cluster), source, folder)
    lines = [line for line in text.splitlines() if line.startswith("rsync")]
    if well or any("vanished" in line for line in lines):
        return True
    if any("No such file or directory (2)" in line for line in lines):
        return False
    raise Dropped(lines[0] if lines else last_line(text))


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no answer")
