"""What grows with the number of trials, and with the number of nodes?

A sweep of ten trials hides what a sweep of ten thousand pays for: a plan that takes minutes to print, a
folder of ten thousand files, a driver that fills its machine's memory, and a scheduler that is slower with
every trial. So four parts, each measured on the real thing:

    plan     the whole command `--dry-run` of so many trials, before any has run and when all are done
    read     their rows in pandas, as a finished sweep leaves them: `attnsweep.load` and `pd.read_parquet` of
             the folder, in a process that has imported both already
    trials   real sweeps of 100 and of so many tiny trials (a ViT of one block and width 8, one step on the
             digits) on this machine's cores; the small one before and after the large one, which shares the
             noise of the machine between the two
    nodes    such trials of ten epochs on a Ray cluster of simulated nodes: a raylet, an object store and a
             worker with torch each, all on this machine, so that they share its cores; 0.4 GB per node

Each line of a part ends with what was measured over what it is compared with, and the last lines name the
targets. The columns of trials and nodes:

    ms/trial   wall clock per trial once all workers are busy (and after the first tenth), to the last end
    last 10 %  the same of the last tenth of the trials: what the driver pays when it has seen them all
    driver ms  processor time of the driver per trial, over the trials of ms/trial: unlike wall clock it
               hardly depends on what else the machine is doing
    start s    from the command to the first tenth, all workers included
    tail s     from the last trial's end to the end of the command: compaction, the workers' ends
    peak MB    the most memory the driver ever had (1e6 bytes; Linux only)
    nodes      those that ran a trial
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from overhead import Verdict, machine, memory_mb, shown

NO_DATA = "."  # the digits come with scikit-learn
TINY = dict(dataset="digits", epochs=1, batch_size=2000)
VIT = dict(model="vit", depth=1, dim=8, heads=1, dim_head=8, mlp_dim=8)
FEW, FEW_NODES = 100, 2
REPEATS = 3  # of a measurement of the parts plan and read; the median counts
MOST_PLAN_S, MOST_READ_S, MOST_GROWTH, MOST_PEAK_MB = 2, 0.2, 1.2, 1_000
SWEEP_FILE = """
from ray import tune
from attnsweep import Sweep
sweep = Sweep({point}, seed=tune.grid_search(range({trials})))
"""
PRETEND = """
import os, platform
platform.node = lambda: os.environ["NODE_NAME"]
"""  # run by every Python process of a simulated node as it starts
NODE_EPOCHS = 10  # longer than the trials of the part trials: the first workers leave some to the last ones
LINE = "{:<8}{:>7}{:>8}{:>10}{:>11}{:>11}{:>9}{:>8}{:>9}{:>7}"
HEADS = (
    "part",
    "nodes",
    "trials",
    "ms/trial",
    "last 10 %",
    "driver ms",
    "start s",
    "tail s",
    "peak MB",
    "ratio",
)


@dataclass(frozen=True)
class Report:
    """What one sweep leaves: when its command began and ended and each trial started and ended (seconds since
    1970), how many nodes were there and ran a trial, the driver's peak memory in MB, and its processor time
    now and then, as pairs of time and seconds.
    """

    began: float
    ended: float
    starts: list[float]
    ends: list[float]
    workers: int
    nodes: int
    nodes_used: int
    peak_mb: float
    cpu: list[tuple[float, float]]

    @property
    def skipped(self) -> int:
        """How many trials had ended when all workers were busy and a tenth was done."""
        busy = self.starts[min(self.workers, len(self.starts)) - 1]
        return max(len(self.ends) // 10, sum(end <= busy for end in self.ends))

    @property
    def ms(self) -> float:
        return self._ms_after(self.skipped)

    @property
    def last_ms(self) -> float:
        return self._ms_after(len(self.ends) - max(2, len(self.ends) // 10))

    @property
    def driver_ms(self) -> float:
        times, seconds = zip(*self.cpu, strict=True)
        first, last = (
            float(np.interp(at, times, seconds)) for at in (self.ends[self.skipped - 1], self.ends[-1])
        )
        return 1e3 * (last - first) / (len(self.ends) - self.skipped)

    def _ms_after(self, skipped: int) -> float:
        """Milliseconds per trial, of the trials after the first `skipped`."""
        counted = len(self.ends) - skipped
        return 1e3 * (self.ends[-1] - self.ends[skipped - 1]) / counted if counted > 0 else math.nan


# --- The parts plan and read ---


def plan_seconds(sweep: Path, results: Path) -> float:
    """Wall clock of a whole `--dry-run`."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "attnsweep", str(sweep), "--dry-run", "--results", str(results)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def fill(results: Path, trials: int) -> None:
    """The tables as a finished sweep of so many trials leaves them.

    One trial is trained; its row and curve stand for all, each under its own id, with its own numbers.
    """
    from attnsweep import provenance
    from attnsweep.recorder import BUNDLE, tidy
    from attnsweep.results import Store
    from attnsweep.spaces import resolve
    from attnsweep.sweep import make_trial
    from attnsweep.trial import Options, run

    several = [make_trial(resolve({**TINY, **VIT, "seed": seed}), Path(NO_DATA)) for seed in range(trials)]
    end, store, random = (
        list(run(several[0], Options(data_dir=NO_DATA))).pop(),
        Store(results),
        np.random.RandomState(0),
    )
    known = {**provenance.driver(), "sweep": "ten_thousand", "status": "done", "attempts": 1}
    for first in range(0, trials, BUNDLE):
        some = several[first : first + BUNDLE]
        rows = [jittered({**end["row"], **one.row(), **known}, random) for one in some]
        curves = [jittered({**end["curve"][0], "trial_id": one.trial_id}, random) for one in some]
        store.write("trials", rows, f"part-{first:012}")
        store.write("epochs", curves, f"part-{first:012}")
    tidy(store)


def jittered(row: dict[str, Any], random: Any) -> dict[str, Any]:
    """The row with its measurements moved a little, so that they do not compress to nothing."""
    measured = {
        key for key, value in row.items() if key.endswith(("_acc", "_loss", "_s", "_best", "_mb")) and value
    }
    return {key: value * random.uniform(0.9, 1) if key in measured else value for key, value in row.items()}


READING = """
import sys, time
import pandas as pd
import pyarrow.parquet, attnsweep, attnsweep.results
readers = {"load": attnsweep.load, "pandas": lambda folder: pd.read_parquet(folder + "/trials")}
for name, read in readers.items():
    began = time.perf_counter()
    rows = read(sys.argv[1])
    print(name, time.perf_counter() - began, len(rows))
"""


def read_seconds(results: Path, trials: int) -> dict[str, float]:
    """Seconds per reader, in a new process that has imported everything and read nothing."""
    done = subprocess.run(
        [sys.executable, "-c", READING, str(results)], check=True, capture_output=True, text=True
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert all(int(rows) == trials for _, _, rows in lines), done.stdout
    return {name: float(seconds) for name, seconds, _ in lines}


def plan_and_read(trials: int, parts: Sequence[str]) -> Iterator[Verdict]:
    """Measures both parts, prints their lines and yields their targets."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        sweep, results = Path(folder) / "ten_thousand.py", Path(folder) / "results"
        sweep.write_text(SWEEP_FILE.format(point={**TINY, **VIT}, trials=trials))
        seconds: dict[str, list[float]] = {}
        if "plan" in parts:
            seconds["plan, nothing done"] = [plan_seconds(sweep, results) for _ in range(REPEATS)]
        fill(results, trials)
        if "plan" in parts:
            seconds["plan, all done"] = [plan_seconds(sweep, results) for _ in range(REPEATS)]
        if "read" in parts:
            read = [read_seconds(results, trials) for _ in range(REPEATS)]
            seconds |= {f"read, {name}": [one[name] for one in read] for name in read[0]}
    for name, several in seconds.items():
        most = MOST_PLAN_S if name.startswith("plan") else MOST_READ_S
        median = statistics.median(several)
        print(f"{name:<20}{trials:>9,} trials{median:>9.3f} s  {median / most:>6.2f} of {most} s", flush=True)
        yield median < most, f"{name}, of {trials:,} trials: less than {most} s", f"{median:.3f} s"


# --- The parts trials and nodes ---


def on_this_machine(trials: int, nodes: int) -> Report:
    """A sweep on a new local cluster with a worker per core."""
    del nodes
    return swept({**TINY, **VIT}, trials, address="local", nodes=1)


def on_simulated_nodes(trials: int, nodes: int) -> Report:
    """A sweep on a cluster of nodes with one CPU each, after a head that runs no trial."""
    from ray.cluster_utils import Cluster

    small: dict[str, Any] = {"object_store_memory": 80_000_000, "include_dashboard": False}
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        (Path(folder) / "sitecustomize.py").write_text(PRETEND)
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        try:
            for number in range(nodes):
                cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path, "NODE_NAME": f"{number}"}, **small)
            return swept({**TINY, **VIT, "epochs": NODE_EPOCHS}, trials, address=cluster.address, nodes=nodes)
        finally:
            cluster.shutdown()


def swept(point: dict[str, Any], trials: int, *, address: str, nodes: int) -> Report:
    """Runs a sweep over seeds and reports on it."""
    from ray import tune

    import attnsweep
    from attnsweep import cluster

    resources = {"cpu": 1, "gpu": 0}
    sweep = attnsweep.Sweep({**point, "seed": tune.grid_search(range(trials))}, resources=resources)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, cluster.connected(address):
        workers, began, cpu = cluster.slots(resources), time.time(), processor_time()
        rows = attnsweep.run(sweep, results=f"{folder}/results", latency=False)
        ended, peak_mb = time.time(), memory_mb("VmHWM")
    assert len(rows) == trials, f"{len(rows)} rows of {trials} trials"
    assert (rows["status"] == "done").all(), f"trials failed: {rows['error'].dropna().unique()}"
    starts, ends = (sorted(time.timestamp() for time in rows[key]) for key in ("started_at", "finished_at"))
    return Report(began, ended, starts, ends, workers, nodes, rows["host"].nunique(), peak_mb, cpu)


def processor_time() -> list[tuple[float, float]]:
    """A list to which a thread of this process adds the time and the processor time so far, as long as it
    lives.
    """
    seen = [(time.time(), time.process_time())]

    def watch() -> None:
        while True:
            time.sleep(0.2)
            seen.append((time.time(), time.process_time()))

    threading.Thread(target=watch, daemon=True).start()
    return seen


PLACES: dict[str, Callable[[int, int], Report]] = {"trials": on_this_machine, "nodes": on_simulated_nodes}


def in_process_of_its_own(place: str, trials: int, nodes: int) -> Report:
    """Runs this file for one sweep. Exits with what the process printed where it fails."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        path = Path(folder) / "report.json"
        numbers = ["--trials", str(trials), "--nodes", str(nodes)]
        command = [sys.executable, __file__, "--sweep-on", place, *numbers, "--report", str(path)]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"{place} with {trials} trials failed:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
        return Report(**json.loads(path.read_text()))


def line(place: str, one: Report, compared: float) -> str:
    """A line of the table; `compared` are the ms per trial that its own are set against."""
    values = (
        one.ms,
        one.last_ms,
        one.driver_ms,
        one.ends[one.skipped - 1] - one.began,
        one.ended - one.ends[-1],
    )
    ratio = shown(one.ms / compared, 2)
    nodes = f"{one.nodes_used}/{one.nodes}"
    return LINE.format(place, nodes, len(one.ends), *map(shown, values), shown(one.peak_mb, 0), ratio)


def compared(place: str, sizes: Sequence[tuple[int, int]]) -> Iterator[Verdict]:
    """Sweeps of (trials, nodes): the first size, the second, the first again; prints a line for each."""
    print(f"\n{LINE.format(*HEADS)}", flush=True)
    small, large = sizes
    reports = []
    for size in (small, large, small):
        reports.append(in_process_of_its_own(place, *size))
        print(line(place, reports[-1], reports[0].ms), flush=True)
    before, many, after = reports
    few_ms = statistics.fmean([before.ms, after.ms])
    what = f"{large[0]:,} trials" if place == "trials" else f"{large[1]} nodes"
    than = f"{small[0]} trials" if place == "trials" else f"{small[1]} nodes"
    growth = f"{many.ms / few_ms:.2f} times ({many.ms:.1f} ms / {few_ms:.1f} ms)"
    yield (
        many.ms <= MOST_GROWTH * few_ms,
        f"{what}: time per trial at most {MOST_GROWTH} times that of {than}",
        growth,
    )
    cpu_ms = statistics.fmean([before.driver_ms, after.driver_ms])
    cpu = f"{many.driver_ms / cpu_ms:.2f} times ({many.driver_ms:.1f} ms / {cpu_ms:.1f} ms)"
    yield many.driver_ms <= MOST_GROWTH * cpu_ms, f"{what}: the driver's processor time, too", cpu
    tail = f"{many.last_ms / few_ms:.2f} times"
    yield many.last_ms <= MOST_GROWTH * few_ms, f"{what}: the last tenth of them, too", tail
    yield many.peak_mb < MOST_PEAK_MB, f"{what}: driver below {MOST_PEAK_MB:,} MB", f"{many.peak_mb:,.0f} MB"
    yield many.nodes_used == many.nodes, f"{what}: trials on all nodes", f"{many.nodes_used} of {many.nodes}"


# --- The command ---


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("parts", nargs="*", default=["plan", "read", "trials"], help="some of plan, read, trials, nodes")
    add("--trials", type=int, default=10_000, help="of the parts plan, read and trials")
    add("--nodes", type=int, default=50, help="simulated nodes of the part nodes")
    add("--trials-per-node", type=int, default=20, help="of the part nodes")
    add("--sweep-on", choices=PLACES, help="only one sweep of the part, and write --report")
    add("--report", type=Path, help="the JSON file for --sweep-on")
    options = parser.parse_args()
    if strange := {*options.parts} - {"plan", "read", *PLACES}:
        parser.error(f"there is no part {', '.join(sorted(strange))}; use some of plan, read, trials, nodes")
    return options


def main() -> None:
    options = arguments()
    if options.sweep_on:
        report = PLACES[options.sweep_on](options.trials, options.nodes)
        options.report.write_text(json.dumps(asdict(report)))
        return
    print(f"{machine()}\n", flush=True)
    verdicts = (
        list(plan_and_read(options.trials, options.parts)) if {"plan", "read"} & {*options.parts} else []
    )
    if "trials" in options.parts:
        verdicts += compared("trials", [(FEW, 1), (options.trials, 1)])
    if "nodes" in options.parts:
        trials = options.nodes * options.trials_per_node
        verdicts += compared("nodes", [(trials, FEW_NODES), (trials, options.nodes)])
    print()
    for met, wanted, reached in verdicts:
        print(f"{'met   ' if met else 'MISSED'}  {wanted}: {reached}")


if __name__ == "__main__":
    main()
