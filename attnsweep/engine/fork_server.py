"""Workers that need not import torch: one process does it, while the sweep is read and Ray starts, and is
forked for each of them.

By itself a worker imports torch when its first trial begins, which takes seconds, on all cores at once, and
has its own copy. Ray cannot be imported before the fork: its core crashes as such a worker begins. Where
there is a GPU, workers are Ray's own: its driver has not been tried in forks.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from attnsweep.core import collection
from attnsweep.core.child_process import environment_with_package
from attnsweep.engine.forked_worker import ADDRESS

MODULES = ("torch", "pandas", "attnsweep.training.trial")  # what each worker would import
GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, of AMD, of Windows
FIRST_TO_GO = 1000  # where memory runs out, as Ray has it for the processes that it starts as workers
PATIENCE_S = 10.0  # with a request that has begun


@contextlib.contextmanager
def fork_server(modules: Sequence[str] = MODULES) -> Iterator[None]:
    """A server that `forked_worker` finds by the environment; it ends with the context, or with this process.
    None where there is one already, or can be none.
    """
    if ADDRESS in os.environ or sys.platform != "linux" or any(os.path.exists(gpu) for gpu in GPUS):
        yield
        return
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="attnsweep-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # where the path of the temporary folder is too long for a socket
            address = os.path.join(folder, "socket")
            process = stack.enter_context(started(address, modules))
            stack.callback(process.kill)
            stack.callback(os.environ.pop, ADDRESS, None)
            os.environ[ADDRESS] = address
        yield


def started(address: str, modules: Sequence[str]) -> "subprocess.Popen[bytes]":
    """The process of a server; requests to its address wait until it answers. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(1024)
        number = listening.fileno()
        serving = f"from attnsweep.engine import fork_server; fork_server.main({number}, {modules!r})"
        return subprocess.Popen(
            [sys.executable, "-P", "-c", serving], pass_fds=[number], process_group=0,
            env=environment_with_package(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip


# --- In the server ---


@dataclass(frozen=True)
class Child:
    """A worker that was forked, a descriptor that can be read when it has ended, and who asked for it."""

    pid: int
    ended: int
    client: socket.socket


def main(descriptor: int, modules: Sequence[str]) -> None:
    """Imports the modules, then forks a child for each request until standard input ends."""
    os.close(os.pidfd_open(os.getpid()))  # where the system or this Python has none, there is no server
    with collection.paused():
        for module in modules:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # so that no child copies what it only looks through
    with selectors.DefaultSelector() as selector:
        listening = socket.socket(fileno=descriptor)
        selector.register(listening, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while ready := [key for key, _ in selector.select()]:
            for key in ready:
                if key.fileobj == 0:  # whoever started it is gone
                    shutil.rmtree(os.path.dirname(listening.getsockname()), ignore_errors=True)
                    return
                if key.data:
                    end(key.data, selector)
                else:
                    with contextlib.suppress(OSError, ValueError):  # who asked is gone: Ray asks again
                        fork(*request_on(listening), selector)


def request_on(listening: socket.socket) -> tuple[socket.socket, list[int], dict[str, Any]]:
    """The next connection, with the standard streams and the request that came by it."""
    client, _ = listening.accept()
    client.settimeout(PATIENCE_S)
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile("rb") as lines:
        return client, streams, json.loads(lines.readline())


def fork(
    client: socket.socket,
    streams: Sequence[int],
    request: Mapping[str, Any],
    selector: selectors.BaseSelector,
) -> None:
    """Forks a child for a request, and tells who asked."""
    pid = os.fork()
    if pid == 0:
        become(streams, request, [client, selector, *(key.fileobj for key in selector.get_map().values())])
    for stream in streams:
        os.close(stream)
    child = Child(pid, os.pidfd_open(pid), client)
    selector.register(child.ended, selectors.EVENT_READ, child)
    selector.register(client, selectors.EVENT_READ, child)
    client.sendall(b".")


def become(streams: Sequence[int], request: Mapping[str, Any], opened: Sequence[Any]) -> NoReturn:
    """In the child: runs what was asked for as the process that asked would, and ends as that does."""
    try:
        for one in opened:
            os.close(one) if isinstance(one, int) else one.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        with contextlib.suppress(OSError):
            os.setpgid(0, request["group"])
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO))
        signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.argv[:] = request["words"]
        runpy.run_path(sys.argv[0], run_name="__main__")
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit()


def end(child: Child, selector: selectors.BaseSelector) -> None:
    """Ends a child whose client is gone, or that has ended, and tells its status."""
    key = selector.get_map().get(child.ended)
    if key is None or key.data is not child:
        return  # both came at once; by now the descriptor may be that of another
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    _, status = os.waitpid(child.pid, 0)
    for one in (child.ended, child.client):
        selector.unregister(one)
    os.close(child.ended)
    with contextlib.suppress(OSError), child.client:
        child.client.sendall(str(os.waitstatus_to_exitcode(status) & 255).encode())
