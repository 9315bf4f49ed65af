"""Machines for tests: Linux namespaces, each with its own network, processes, host name, home and `/tmp`,
joined by a switch that leads nowhere else.

Nothing is left behind: a machine's files lie in its memory and its processes end with it, and it ends when
whoever made it does.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands import PATIENCE_S

REPOSITORY = Path(__file__).parent.parent
NEEDED = {"sshd": "openssh-server", "rsync": "rsync", "ssh": "openssh-client", "ip": "iproute2"}
OWN = ("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
KEPT = "/mnt"  # covered first: what is to be seen again below a covered folder waits here
COVERED = ("/tmp", "/root", "/run", "/dev/shm")
INTERNET = "8.8.8.8"  # Ray takes the address from which it would speak to it; nothing answers here
BOOT = f"""
set -e
hostname "$0"
ip link set lo up
mount --make-rprivate /
mount -t tmpfs tmpfs {KEPT}
n=0
for path in "$@"; do mkdir {KEPT}/$n; mount --bind "$path" {KEPT}/$n; n=$((n + 1)); done
for folder in {" ".join(COVERED)}; do mount -t tmpfs -o mode=755 tmpfs $folder; done
chmod 1777 /tmp /dev/shm
chmod 700 /root
n=0
for path in "$@"; do mkdir -p "$path"; mount --bind {KEPT}/$n "$path"; n=$((n + 1)); done
mkdir -p /run/sshd /root/.ssh
if [ -e /etc/resolv.conf ]; then mount --bind /dev/null /etc/resolv.conf; fi
echo up
read -r _ || true
"""
SSHD = """
ListenAddress {address}
HostKey /run/host_key
PidFile none
PasswordAuthentication no
PermitRootLogin prohibit-password
UsePAM no
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Machine:
    """One machine: its host name, its address, and its first process as this machine's system sees it."""

    name: str
    address: str
    pid: int

    @property
    def root(self) -> Path:
        """Its files."""
        return Path(f"/proc/{self.pid}/root")

    def command(self, words: Sequence[str], *, folder: str = "/root", **environment: str) -> list[str]:
        """The command that runs `words` on it, as a log-in would: with little in the environment."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        variables = {"HOME": "/root", "USER": "root", "PATH": path, "LANG": "C.UTF-8", **environment}
        pairs = [f"{key}={value}" for key, value in variables.items()]
        enter = ["nsenter", "--target", str(self.pid), "--all", f"--wd=/proc/{self.pid}/root{folder}"]
        return [*enter, "env", "--ignore-environment", *pairs, *words]

    def run(
        self, *words: str, folder: str = "/root", timeout_s: float = PATIENCE_S, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on it to its end."""
        return subprocess.run(
            self.command(words, folder=folder, **environment),
            text=True, capture_output=True, timeout=timeout_s, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *words: str, folder: str = "/root", **environment: str) -> subprocess.Popen[str]:
        """Starts a command on it."""
        return subprocess.Popen(
            self.command(words, folder=folder, **environment),
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def write(self, path: str, text: str) -> None:
        """Writes a file of its."""
        target = self.root / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def require() -> None:
    """Skips the test, with the reason, where machines cannot be made. Installs what they need if it can."""
    if os.geteuid() != 0:
        pytest.skip("making test machines takes root")
    lacking = [
        package for program, package in NEEDED.items() if not shutil.which(program, path=search_path())
    ]
    if lacking and not (shutil.which("apt-get") and installed(lacking)):
        pytest.skip(f"needs {', '.join(lacking)}: apt-get install them")
    if subprocess.run(["unshare", *OWN, "true"], capture_output=True).returncode:
        pytest.skip("this system does not let root make namespaces")


def search_path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def installed(packages: Sequence[str]) -> bool:
    """Whether apt-get could install the packages."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    return subprocess.run(["apt-get", "install", "-y", "-qq", *packages], **quiet).returncode == 0


@contextmanager
def machines(*names: str) -> Iterator[list[Machine]]:
    """Machines of these names on one switch, which is in the first. Each lets the first in by SSH."""
    with ExitStack() as stack:
        made = [
            stack.enter_context(machine(name, f"10.77.0.{number}")) for number, name in enumerate(names, 1)
        ]
        first = made[0]
        checked(first, "ip", "link", "add", "switch", "type", "bridge")
        checked(first, "ip", "addr", "add", f"{first.address}/24", "dev", "switch")
        checked(first, "ip", "link", "set", "switch", "up")
        checked(first, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
        key = (first.root / "root/.ssh/id_ed25519.pub").read_text()
        for other in made[1:]:
            plug_in(other, first)
            let_in(other, key)
        yield made


@contextmanager
def machine(name: str, address: str) -> Iterator[Machine]:
    """A machine without a network."""
    keep = {str(REPOSITORY), sys.prefix, sys.base_prefix}
    hidden = sorted(path for path in keep if path.startswith(tuple(f"{folder}/" for folder in COVERED)))
    process = subprocess.Popen(
        ["unshare", *OWN, "bash", "-c", BOOT, name, *hidden],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    try:
        assert process.stdout.readline() == "up\n", f"{name} did not come up"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Machine(name, address, int(children[0]))
    finally:
        process.stdin.close()  # its first process reads from it, and the others end with the first
        process.wait(timeout=PATIENCE_S)


def plug_in(machine: Machine, first: Machine) -> None:
    """Joins a machine to the switch."""
    plug = f"to-{machine.name}"
    ends = ["eth0", "netns", str(machine.pid), "type", "veth", "peer", "name", plug, "netns", str(first.pid)]
    subprocess.run(["ip", "link", "add", *ends], check=True)
    checked(first, "ip", "link", "set", plug, "master", "switch", "up")
    checked(machine, "ip", "addr", "add", f"{machine.address}/24", "dev", "eth0")
    checked(machine, "ip", "link", "set", "eth0", "up")
    checked(machine, "ip", "route", "add", INTERNET, "via", first.address)


def let_in(machine: Machine, key: str) -> None:
    """Starts the machine's SSH server for the holder of a key."""
    machine.write("/root/.ssh/authorized_keys", key)
    machine.write("/run/sshd_config", SSHD.format(address=machine.address))
    checked(machine, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/run/host_key")
    checked(machine, "/usr/sbin/sshd", "-f", "/run/sshd_config")


def checked(machine: Machine, *words: str) -> None:
    done = machine.run(*words)
    assert done.returncode == 0, f"{words} on {machine.name}: {done.stdout}{done.stderr}"
