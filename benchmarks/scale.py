"""What grows with the number of trials, and with the number of nodes?

A sweep of ten trials hides what a sweep of ten thousand pays for: a plan that takes minutes to print, a
folder of ten thousand files, a driver that fills its machine's memory, and a scheduler that is slower with
every trial. So four parts:

    plan     the whole command `--dry-run` of so many trials, before any has run and when all are done
    read     their rows in pandas, as a finished sweep leaves them: `attnsweep.load` and `pd.read_parquet` of
             the folder, in a process that has imported both already
    trials   real sweeps of 100 and of so many tiny trials (a ViT of one block and width 8, one step on the
             digits) on this machine's cores; the small one before and after the large one, which shares the
             noise of the machine between the two
    nodes    whether one driver keeps so many nodes busy, on a Ray cluster of simulated ones: a raylet, an
             object store and a worker each, all on this machine. Nodes that trained would wait for its cores
             and not for the driver, and 50 with torch need 26 GB; so here a trial is a nap in a real worker,
             and all else is as ever. 0.25 GB per node; fifty take 8 min

Each line of trials ends with its ms/trial over those that it is compared with, each of nodes with the share
of the time that the nodes were busy, and the last lines name the targets. The columns of trials and nodes:

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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from overhead import Verdict, machine, memory_mb, shown

NO_DATA = "."  # the digits come with scikit-learn
TINY = dict(dataset="digits", epochs=1, batch_size=2000)
VIT = dict(model="vit", depth=1, dim=8, heads=1, dim_head=8, mlp_dim=8)
FEW, FEW_NODES = 100, 2
REPEATS = 3  # of a measurement of the parts plan and read; the median counts
MOST_PLAN, MOST_READ, MOST_GROWTH = 3, 0.2, 1.2  # times the plan of one trial; times the few trials' figure
MOST_PEAK_MB = 1_000
SWEEP_FILE = """
from ray import tune
from attnsweep import Sweep
sweep = Sweep({point}, seed=tune.grid_search(range({trials})))
"""
NAP_S = 2.0  # a trial of the part nodes: at 50 nodes the driver has 40 ms for each
LEAST_BUSY = 0.95  # of the time of all nodes
NODE_NAME = "ATTNSWEEP_NODE"  # of a simulated one, in the environment of its processes
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
)


@dataclass(frozen=True)
class Report:
    """What one sweep leaves: when its command began and ended and each trial started and ended (seconds since
    1970), how many nodes were there and ran a trial, the driver's peak memory in MB, its processor time now
    and then, as pairs of time and seconds, and when the last node came to its first trial.
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
    last_node_at: float

    @property
    def skipped(self) -> int:
        """How many trials had ended when all workers were busy and a tenth was done."""
        full = max(self.last_node_at, self.starts[min(self.workers, len(self.starts)) - 1])
        return max(len(self.ends) // 10, sum(end <= full for end in self.ends))

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

    @property
    def busy(self) -> float:
        """The share of the nodes' time that trials took, while all nodes were there and trials were left."""
        first, last = self.last_node_at, self.starts[-1]
        taken = sum(min(end, last) - max(end - NAP_S, first) for end in self.ends if end > first)
        return taken / (self.nodes * (last - first))

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
    from attnsweep.engine.recorder import BUNDLE, tidy
    from attnsweep.results import provenance
    from attnsweep.results.store import Store
    from attnsweep.space.trials import make_trial
    from attnsweep.tasks.registry import resolve
    from attnsweep.training.trial import Options, run

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
import pyarrow.parquet, attnsweep, attnsweep.results.store
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
        one, sweep, results = (Path(folder) / name for name in ("one.py", "ten_thousand.py", "results"))
        one.write_text(SWEEP_FILE.format(point={**TINY, **VIT}, trials=1))
        sweep.write_text(SWEEP_FILE.format(point={**TINY, **VIT}, trials=trials))
        least = statistics.median(plan_seconds(one, results) for _ in range(REPEATS))
        print(f"{'plan of one trial':<20}{1:>9,} trials{least:>9.3f} s", flush=True)
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
        most = MOST_PLAN if name.startswith("plan") else MOST_READ
        median = statistics.median(several)
        print(f"{name:<20}{trials:>9,} trials{median:>9.3f} s  {median / least:>6.2f} times one", flush=True)
        wanted = f"{name}, of {trials:,} trials: less than {most} times what the plan of one takes"
        yield median < most * least, wanted, f"{median / least:.2f} times"


# --- The parts trials and nodes ---


def on_this_machine(trials: int, nodes: int) -> Report:
    """A sweep on a new local cluster with a worker per core."""
    del nodes
    return swept({**TINY, **VIT}, trials, address="local", nodes=1)


def on_simulated_nodes(trials: int, nodes: int) -> Report:
    """A sweep of naps on a cluster of nodes with one CPU each, after a head that runs no trial."""
    from ray.cluster_utils import Cluster

    from attnsweep.engine import tune as spread

    spread.Worker = napper()  # type: ignore[misc]
    small: dict[str, Any] = {"object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for number in range(nodes):
            cluster.add_node(num_cpus=1, env_vars={NODE_NAME: f"{number}"}, **small)
        return swept({**TINY, **VIT}, trials, address=cluster.address, nodes=nodes)
    finally:
        cluster.shutdown()


def napper() -> Any:
    """Our worker class, whose trials nap instead of training."""
    from attnsweep.core.trial import Trial
    from attnsweep.engine.trainable import Worker

    def naps(trial: Trial) -> Iterator[dict[str, Any]]:
        began = datetime.now(UTC)
        time.sleep(NAP_S)
        known = {"host": os.environ[NODE_NAME], "started_at": began, "finished_at": datetime.now(UTC)}
        yield {"status": "done", "row": {**trial.row(), **known}, "curve": []}

    class Napper(Worker):
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.events = naps(new_config["trial"])
            return True

    return Napper


def swept(point: dict[str, Any], trials: int, *, address: str, nodes: int) -> Report:
    """Runs a sweep over seeds and reports on it."""
    from ray import tune

    import attnsweep
    from attnsweep.engine import cluster

    resources = {"cpu": 1, "gpu": 0}
    sweep = attnsweep.Sweep({**point, "seed": tune.grid_search(range(trials))}, resources=resources)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, cluster.connected(address):
        workers, began, cpu = cluster.slots(resources), time.time(), processor_time()
        rows = attnsweep.run(sweep, results=f"{folder}/results", latency=False)
        ended, peak_mb = time.time(), memory_mb("VmHWM")
    assert len(rows) == trials, f"{len(rows)} rows of {trials} trials"
    assert (rows["status"] == "done").all(), f"trials failed: {rows['error'].dropna().unique()}"
    starts, ends = (sorted(time.timestamp() for time in rows[key]) for key in ("started_at", "finished_at"))
    first = rows.groupby("host")["started_at"].min()
    last_node_at = first.max().timestamp()
    return Report(began, ended, starts, ends, workers, nodes, len(first), peak_mb, cpu, last_node_at)


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


def line(place: str, one: Report, last: float) -> str:
    """A line of the table, which ends with `last`."""
    first_s, last_s = one.ends[one.skipped - 1] - one.began, one.ended - one.ends[-1]
    values = map(shown, (one.ms, one.last_ms, one.driver_ms, first_s, last_s))
    nodes, peak = f"{one.nodes_used}/{one.nodes}", shown(one.peak_mb, 0)
    return LINE.format(place, nodes, len(one.ends), *values, peak, shown(last, 2))


def few_many_few(
    place: str, sizes: Sequence[tuple[int, int]], head: str, last: Callable[[Report, Report], float]
) -> list[Report]:
    """Sweeps of two sizes (trials, nodes), the small one before and after the large one. Prints a line for
    each, which ends with the `last` of its own report and of the first.
    """
    print(f"\n{LINE.format(*HEADS, head)}", flush=True)
    few, many = sizes
    reports: list[Report] = []
    for size in (few, many, few):
        reports.append(in_process_of_its_own(place, *size))
        print(line(place, reports[-1], last(reports[-1], reports[0])), flush=True)
    return reports


def growth(few: Sequence[float], many: float, what: str) -> Verdict:
    """Whether a time per trial has grown by too much."""
    usual = statistics.fmean(few)
    reached = f"{many / usual:.2f} times ({many:.1f} ms / {usual:.1f} ms)"
    return many <= MOST_GROWTH * usual, f"{what} at most {MOST_GROWTH} times", reached


def memory(many: Report, what: str) -> Verdict:
    reached = f"{many.peak_mb:,.0f} MB"
    return many.peak_mb < MOST_PEAK_MB, f"{what}: driver below {MOST_PEAK_MB:,} MB", reached


def many_trials(trials: int) -> Iterator[Verdict]:
    """The part trials."""
    reports = few_many_few("trials", [(FEW, 1), (trials, 1)], "ratio", lambda one, first: one.ms / first.ms)
    before, many, after = reports
    few, what = (before, after), f"{trials:,} trials, against {FEW}"
    yield growth([one.ms for one in few], many.ms, f"{what}: time per trial")
    yield growth([one.driver_ms for one in few], many.driver_ms, f"{what}: the driver's processor time")
    yield growth([one.ms for one in few], many.last_ms, f"{what}: the last tenth")
    yield memory(many, f"{trials:,} trials")


def many_nodes(nodes: int, each: int) -> Iterator[Verdict]:
    """The part nodes."""
    sizes = [(each * count, count) for count in (FEW_NODES, nodes)]
    before, many, after = few_many_few("nodes", sizes, "busy", lambda one, _: one.busy)
    yield many.busy >= LEAST_BUSY, f"{nodes} nodes: busy {LEAST_BUSY:.0%} of the time", f"{many.busy:.1%}"
    few, what = [before.driver_ms, after.driver_ms], f"{nodes} nodes, against {FEW_NODES}"
    yield growth(few, many.driver_ms, f"{what}: the driver's processor time per trial")
    yield memory(many, f"{nodes} nodes")
    yield many.nodes_used == many.nodes, f"{nodes} nodes: trials on all", f"{many.nodes_used} of {many.nodes}"


# --- The command ---


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("parts", nargs="*", default=["plan", "read", "trials"], help="some of plan, read, trials, nodes")
    add("--trials", type=int, default=10_000, help="of the parts plan, read and trials")
    add("--nodes", type=int, default=50, help="simulated nodes of the part nodes")
    add("--trials-per-node", type=int, default=40, help="of the part nodes")
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
        verdicts += many_trials(options.trials)
    if "nodes" in options.parts:
        verdicts += many_nodes(options.nodes, options.trials_per_node)
    print()
    for met, wanted, reached in verdicts:
        print(f"{'met   ' if met else 'MISSED'}  {wanted}: {reached}")


if __name__ == "__main__":
    main()
