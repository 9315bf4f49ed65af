"""What Ray starts in place of a worker of its own: has the fork server fork one, and stands for it until it
ends.

Where no server answers it becomes Ray's own worker. Ray runs it as a file, with what starts in milliseconds.
"""

import json
import os
import signal
import socket
import sys
from importlib.util import find_spec

ADDRESS = "ATTNSWEEP_FORK_SERVER"  # the variable that says where the server listens


def worker_file() -> str:
    """The file that Ray's own workers run."""
    spec = find_spec("ray")
    return (
        os.path.join(os.path.dirname(spec.origin or ""), "_private/workers/default_worker.py") if spec else ""
    )


def main() -> None:
    """Ends as the worker does."""
    words = [worker_file(), *sys.argv[1:]]
    try:
        server = asked(words)
    except OSError:
        os.execv(sys.executable, [sys.executable, *words])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it goes to the group: the worker ends in order
    sys.exit(int(server.recv(8) or b"1"))


def asked(words: list[str]) -> socket.socket:
    """The connection to a server that has forked a worker with these words, which has this process's
    environment, folder, process group, standard streams and blocked signals. Raises OSError.
    """
    server = socket.socket(socket.AF_UNIX)
    server.connect(os.environ[ADDRESS])
    request = {
        "words": words, "environment": dict(os.environ), "folder": os.getcwd(), "group": os.getpgrp(),
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    }  # fmt: skip
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps(request).encode() + b"\n")
    if server.recv(1) != b".":
        raise ConnectionError("the server has ended")
    return server


if __name__ == "__main__":
    main()
