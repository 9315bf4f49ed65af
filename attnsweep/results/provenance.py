"""Where a row comes from: the provenance columns of `trials`, some known to the driver, some to the worker.

Versions, hashes and names of machines only: no path, no environment variable, no address.
"""

import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

from attnsweep.core.version import __version__, installed
from attnsweep.results import git
from attnsweep.results.git import output_of

PACKAGE = Path(__file__).parent.parent
CPUINFO = Path("/proc/cpuinfo")
SENT_GIT = "ATTNSWEEP_GIT"  # "COMMIT DIRTY", where this code was sent here from a working directory elsewhere


def driver() -> dict[str, Any]:
    """The columns that the driver knows: the state of the code, the versions of attnsweep, ray and python."""
    sha, dirty = git_state()
    return {
        "git_sha": sha,
        "git_dirty": dirty,
        "code_hash": code_hash(),
        "attnsweep": __version__,
        "ray": installed("ray"),
        "python": platform.python_version(),
    }


def worker(device: str, threads: int = 1) -> dict[str, Any]:
    """The columns that the worker knows: torch, cuda (null on other devices), device, cpu and host."""
    import torch

    return {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if device == "cuda" else None,
        "device": device_name(device, threads),
        "cpu": cpu_name(),
        "host": host(),
    }


def device_name(device: str, threads: int) -> str:
    """What computes: `NVIDIA H100 80GB HBM3`, `Apple M3, GPU` or `Intel(R) Xeon(R) Processor, 1 thread`."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    if device == "mps":
        return f"{cpu_name()}, GPU"
    return f"{cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def host() -> str:
    """The name of this machine."""
    return platform.node()


@functools.cache
def cpu_name() -> str:
    """The model name of this machine's CPU; where the system has none, its kind, such as `aarch64`."""
    if platform.system() == "Darwin":
        name = output_of("sysctl", "-n", "machdep.cpu.brand_string") or ""
    else:
        name = model_name(contents(CPUINFO))
    return name.strip() or platform.processor() or platform.machine()


def model_name(cpuinfo: str) -> str:
    """The first model name in the text of /proc/cpuinfo, or nothing: many ARM kernels do not give one."""
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    return next((value.strip() for key, _, value in pairs if key.strip() == "model name"), "")


def git_state() -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of the working directory; see `git.state`."""
    if sent := os.environ.get(SENT_GIT):
        sha, _, dirty = sent.partition(" ")
        return sha or None, dirty == "True" if sha else None
    return git.state()


@functools.cache
def code_hash() -> str:
    """12 hex digits of a SHA-256 over the names and contents of the package's source files."""
    return hash_sources(PACKAGE)


def hash_sources(folder: Path) -> str:
    """12 hex digits of a SHA-256 over all .py files below `folder`, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py")):
        content = (folder / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def contents(path: Path) -> str:
    """The text of a file, or nothing where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
