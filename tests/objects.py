"""A real S3 server, moto's, as a process on loopback, behind a line of our own that can be cut."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyarrow import fs

from commands import PATIENCE_S

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Line:
    """Passes bytes between a port of its own and the server's, unless it is cut: then it hangs up."""

    server: int
    port: int = field(default_factory=free_port)
    is_cut: bool = False

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        if self.is_cut:
            client.close()
            return
        with client, socket.create_connection(("127.0.0.1", self.server)) as server:
            other = {client: server, server: client}
            with contextlib.suppress(OSError):
                while not self.is_cut:
                    for ready in select.select([client, server], [], [], 0.1)[0]:
                        if not (some := ready.recv(65536)):
                            return
                        other[ready].sendall(some)


@dataclass(frozen=True)
class Objects:
    """A bucket, and the line to it."""

    bucket: str
    line: Line

    def uri(self, path: str) -> str:
        return f"s3://{self.bucket}/{path}"

    def below(self, path: str) -> list[str]:
        """The names of the objects below a prefix; folders, which an object store has not, left out."""
        files, base = fs.FileSystem.from_uri(self.uri(path))
        infos = files.get_file_info(fs.FileSelector(base, allow_not_found=True, recursive=True))
        return sorted(info.path.removeprefix(f"{base}/") for info in infos if info.is_file)


@contextlib.contextmanager
def served() -> Iterator[Objects]:
    """A server with one empty bucket, named in this process's environment and so in its children's."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before, line = dict(os.environ), Line(port)
    try:
        until = time.monotonic() + PATIENCE_S
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < until and process.poll() is None, "moto's server does not start"
            time.sleep(0.1)
        os.environ.update(KEYS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{line.port}")
        files, _ = fs.FileSystem.from_uri("s3://bucket?allow_bucket_creation=true")
        files.create_dir("bucket")
        yield Objects("bucket", line)
    finally:
        line.listener.close()
        process.kill()
        process.wait()
        os.environ.clear()
        os.environ.update(before)
