"""Commands as processes: sweeps that run, die and are run again, and what they leave."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import attnsweep

import naps

PATIENCE_S = 600  # with what is certain to happen, however busy the machine is
PLANTED = ("pandas", "numpy", "torch", "ray", "random", "typing", "rich", "yaml", "numexpr", "attnsweep_zoo")
TINY = "depth=1, heads=2, dim=16, dim_head=8, mlp_dim=16"
UNDISTURBED = ["trial_id", "val_acc", "test_acc", "test_acc_best", "best_epoch", "val_loss", "train_loss"]


def write_sweep(folder: Path, body: str) -> Path:
    """A sweep file, and beside it the model of `napping`."""
    shutil.copy(naps.__file__, folder)
    path = folder / "sweep_file.py"
    path.write_text(f"from ray import tune\nfrom attnsweep import Sweep\nsweep = Sweep({body})\n")
    return path


def plant(folder: Path) -> None:
    """Writes files into a folder that have the names of packages, and leave a mark when they are run."""
    (folder / "marks").mkdir()
    for name in PLANTED:
        mark = folder / "marks" / name
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w'); raise SystemExit({name!r})\n")


def start(
    sweep: Path, *arguments: str, program: tuple[str, ...] = ("-m", "attnsweep"), address: str = "local"
) -> subprocess.Popen[str]:
    """The command for a sweep file, under way; `program` is what runs it. No Ray where it says `--serial`."""
    where = () if "--serial" in arguments else ("--address", address)
    command = [sys.executable, *program, str(sweep), *where, "--no-latency", *arguments]
    environment = {**os.environ, "DIARY": str(sweep.parent / "diary")}
    return subprocess.Popen(
        command, cwd=sweep.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def metrics(results: Path | str) -> pd.DataFrame:
    """What training has found out, trial by trial."""
    rows = attnsweep.load(results, status=None)
    assert rows["trial_id"].is_unique
    return rows[UNDISTURBED].sort_values("trial_id").reset_index(drop=True)


def raw_ids(results: Path | str) -> list[str]:
    """The trial ids as pandas alone reads them."""
    return sorted(pd.read_parquet(f"{results}/trials")["trial_id"])


def descendants(pid: int) -> dict[int, str]:
    """The processes below `pid`, with their command lines."""
    parent, line = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            line[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError):
            continue
    below, grown = {pid}, True
    while grown:
        more = {child for child, above in parent.items() if above in below} - below
        below, grown = below | more, bool(more)
    return {child: line[child] for child in below - {pid}}


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Waits until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def napping(*, epochs: int) -> str:
    """Three trials on the digits, each epoch of which is one nap."""
    recipe = "batch_size=2000, lr=1e-2, lr_gamma=1"
    return f"model='naps.py:Naps', seed=tune.grid_search([0, 1, 2]), epochs={epochs}, {recipe}"


SLOW_EPOCHS = 24
SLOW = napping(epochs=SLOW_EPOCHS)


def steps_trained(folder: Path) -> int:
    """How many steps the trials of the sweep in a folder have begun, with those of lost attempts."""
    return len((folder / "diary").read_text().splitlines())


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that train."""
    return [
        pid for pid, line in descendants(process.pid).items() if line.startswith("ray::") and ".train" in line
    ]


def training(process: subprocess.Popen[str], checkpoints: Path, trials: int = 2) -> list[int]:
    """The workers of Ray, once so many trials have got so far that each has left a checkpoint."""
    wait_for(lambda: len([*checkpoints.glob("*/checkpoint.pt")]) == trials or process.poll() is not None)
    return workers_of(process)
