"""How much memory a model takes, and what a device says that has none left."""

import contextlib
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from attnsweep.results import provenance

SELF = Path("/proc/self")
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Failed to allocate",
    "bad_alloc",
)  # of any runtime


class PeakMemory:
    """Peak memory in MB (1e6 bytes) since this object was made: allocated by torch on CUDA, else resident.

    What is resident includes the interpreter and torch itself: several hundred MB. Where the system cannot
    reset the peak (Linux can), it is that of the whole life of the process.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak_resident()

    def mb(self) -> float:
        """The peak until now, in MB."""
        return (torch.cuda.max_memory_allocated() if self.device == "cuda" else peak_resident()) / 1e6


def reset_peak_resident() -> None:
    """Sets the peak back to what is resident now (man 5 proc_pid_clear_refs), where the system allows it."""
    with contextlib.suppress(OSError):
        (SELF / "clear_refs").write_text("5")


def peak_resident() -> int:
    """The most bytes of this process that were in memory at once."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", provenance.contents(SELF / "status"), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def explained_out_of_memory(batch: int, where: str) -> Iterator[None]:
    """Turns any way of running out of memory into a MemoryError that names batch and device."""
    try:
        yield
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        raise MemoryError(f"batch={batch} does not fit into the memory of {where}; not measured") from error


def ran_out_of_memory(error: Exception) -> bool:
    """Whether that is why a device, or a runtime, raised."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)
