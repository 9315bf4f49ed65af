"""Who works on this machine: processes that train share it, one that measures latency wants it alone.

Each holds a lock on a file in the machine's temporary folder, which the system frees when the process ends,
however it ends. Sweeps of the same user see each other by it; other work shows in the use of the CPUs.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LET_MEASURE_S = 60.0  # training waits so long for a measurement, which takes some seconds
LOOK_S = 0.3  # for which the use of the CPUs is observed
TOLERATED = 0.25  # of the CPUs in use: a measurement beside that has a core of its own
STAT = Path("/proc/stat")


def at_work() -> IO[str] | None:
    """Says that this process trains, as long as the file that is returned is open; a measurement that is
    under way is waited for. None where the temporary folder cannot be written.
    """
    file = opened()
    if file:
        locked(file, fcntl.LOCK_SH, LET_MEASURE_S)
    return file


@contextlib.contextmanager
def alone(wait_s: float) -> Iterator[bool]:
    """Whether no other sweep of this user works on this machine, or none does any more after `wait_s`; until
    the end of the context none begins to.
    """
    file = opened()
    if file is None:
        yield True
        return
    with file:
        yield locked(file, fcntl.LOCK_EX, wait_s)


def opened() -> IO[str] | None:
    """The file that is locked: of this user alone, whatever others put into the temporary folder."""
    folder = Path(tempfile.gettempdir()) / f"attnsweep-{os.geteuid()}"
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        info = folder.lstat()
        if info.st_uid != os.geteuid() or info.st_mode & 0o077 or folder.is_symlink():
            return None
        return open(folder / "machine.lock", "a")
    except OSError:
        return None


def locked(file: IO[str], kind: int, wait_s: float) -> bool:
    """Whether the file could be locked within that time."""
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)


def other_work() -> str:
    """What other processes do to this machine at the moment, as a clause; empty where they leave it alone.

    To be called by a process that does nothing itself. Linux only.
    """
    before = cpu_times()
    time.sleep(LOOK_S)
    after = cpu_times()
    if before is None or after is None or after[1] <= before[1]:
        return ""
    cpus = os.cpu_count() or 1
    share = (after[0] - before[0]) / (after[1] - before[1])
    return f"other work takes {share * cpus:.1f} of its {cpus} CPUs" if share > TOLERATED else ""


def cpu_times() -> tuple[int, int] | None:
    """(in use, in all) of the time of all CPUs together since the machine was started, in ticks of its clock
    (man 5 proc_stat).
    """
    try:
        ticks = [int(word) for word in STAT.read_text().splitlines()[0].split()[1:9]]
        _, _, _, idle, waiting_for_disks, *_ = ticks
    except (OSError, ValueError, IndexError):
        return None
    return sum(ticks) - idle - waiting_for_disks, sum(ticks)
