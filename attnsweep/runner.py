"""What one command does: plan, run what is not done yet, write its rows, measure latency, close.

Nothing of the driver's own state is kept. What is done stands in the tables and what was begun in
checkpoints, so the same command goes on from wherever it was cut off.
"""

import fcntl
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from attnsweep import cluster, console, datasets
from attnsweep.errors import UserError
from attnsweep.latency import measure_all
from attnsweep.plan import Place, Plan, make_plan, place, refuse_invalid
from attnsweep.recorder import Recorder, tidy
from attnsweep.results import Store, load
from attnsweep.spread import Queue, spread
from attnsweep.sweep import Sweep, Trial, expand, read_sweep

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("attnsweep")


@dataclass(frozen=True)
class Outcome:
    """The trials of a sweep, how many ended how, and whether it was cut off."""

    trials: tuple[Trial, ...]
    counts: Mapping[str, int]
    interrupted: bool = False

    @property
    def exit_status(self) -> int:
        """0: all are done; 1: some failed or were not finished; 130: cut off by Ctrl-C."""
        if self.interrupted:
            return 130
        return 0 if self.counts["failed"] == self.counts["new"] == 0 else 1


def run(
    sweep: Sweep | str | Path,
    results: str | Path = "results",
    *,
    data: str | Path | None = None,
    address: str | None = None,
    latency: bool = True,
) -> "pd.DataFrame":
    """Runs the trials of a sweep that are not done yet; returns the sweep's rows of `trials`, of any status.

    `sweep` is a Sweep or the path of a sweep file; the other arguments are those of the command line.
    Raises UserError where the sweep cannot start, KeyboardInterrupt where it was cut off.
    """
    sweep = sweep if isinstance(sweep, Sweep) else read_sweep(sweep)
    outcome = execute(sweep, place(results, data), address=address, latency=latency)
    if outcome.interrupted:
        raise KeyboardInterrupt
    rows = load(results, status=None)
    return rows[rows["trial_id"].isin([trial.trial_id for trial in outcome.trials])].reset_index(drop=True)


def execute(sweep: Sweep, where: Place, *, address: str | None, latency: bool) -> Outcome:
    """Runs what is not done yet, then measures latency; prints plan, progress and closing line."""
    screen, store, began = console.screen(), Store(where.results), time.monotonic()
    expanded = expand(sweep.points(), where.data)
    refuse_invalid(expanded[1])
    with sole_writer(store, where.runs):
        plan = make_plan(sweep, expanded, store.read("trials").to_pylist())
        for name in dict.fromkeys(trial.config["dataset"] for trial in plan.new):
            datasets.ensure(datasets.find(name), where.data)
        console.show_plan(screen, plan)
        interrupted = False
        try:
            work(sweep, plan, store, where, address=address, latency=latency, screen=screen)
        except KeyboardInterrupt:
            interrupted = True
        tidy(store)
        outcome = Outcome(plan.trials, count(plan, store), interrupted)
    console.show_closing(
        screen, outcome.counts, where.results, time.monotonic() - began, interrupted=interrupted
    )
    return outcome


def work(
    sweep: Sweep,
    plan: Plan,
    store: Store,
    where: Place,
    *,
    address: str | None,
    latency: bool,
    screen: Console,
) -> None:
    """Trains what is new and measures what was not measured yet, on the cluster."""
    if not plan.new and not latency:
        return
    with cluster.connected(address):
        asked = cluster.request(sweep.resources)
        if plan.new:
            train(sweep, plan, store, where, asked=asked, screen=screen)
        if latency:
            ids = [trial.trial_id for trial in plan.trials]
            measure_latency(store, ids, gpus=asked["gpu"] > 0, screen=screen)


def train(
    sweep: Sweep, plan: Plan, store: Store, where: Place, *, asked: dict[str, float], screen: Console
) -> None:
    """Trains the new trials, spread over the cluster."""
    slots = cluster.slots(asked)
    if asked["gpu"] == 0 and (sweep.resources or {}).get("gpu"):
        screen.print("  there is no GPU here: trials run on CPUs")
    console.show_time(screen, plan, slots)
    options = {
        "data_dir": str(where.data),
        "runs_dir": str(where.runs),
        "cpu": asked["cpu"],
        "gpu": asked["gpu"],
    }
    with console.Live(screen, plan.new, slots=slots, speed=plan.speed) as live:
        recorder = Recorder(plan.name, store, where.runs, live)
        spread(
            Queue(plan.new), recorder, options=options, asked=asked, slots=slots, scheduler=sweep.scheduler
        )


def measure_latency(store: Store, trial_ids: Sequence[str] | None, *, gpus: bool, screen: Console) -> None:
    """The latency phase, for these trials' architectures (None: for all in the results)."""
    with screen.status("latency") as status:
        told = status.update if screen.is_terminal else screen.print
        measure_all(store, trial_ids, gpus=gpus, told=told)


def measure(results: str | Path, *, address: str | None) -> int:
    """Measures latency of every architecture in the results on this hardware; returns the exit status."""
    screen, store, where = console.screen(), Store(results), place(results)
    done = load(results)
    if done.empty:
        raise UserError(f"no finished trial in {results}; run a sweep first")
    with sole_writer(store, where.runs), cluster.connected(address):
        measure_latency(store, None, gpus=cluster.request(None)["gpu"] > 0, screen=screen)
        tidy(store)
    screen.print(
        f"measured {done['arch_id'].nunique()} architectures; rows in {where.results}/latency",
        highlight=False,
    )
    return 0


def count(plan: Plan, store: Store) -> Counter[str]:
    """How many trials ended how; `new` are those that have not ended."""
    rows = store.read("trials")
    ended = dict(zip(rows["trial_id"].to_pylist(), rows["status"].to_pylist(), strict=True))
    return Counter(ended.get(trial.trial_id, "new") for trial in plan.trials)


@contextmanager
def sole_writer(store: Store, runs: Path) -> Iterator[None]:
    """Holds the lock on the results, and mends what an earlier driver may have left.

    Raises UserError while another driver holds it, or where the folder cannot be written.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        lock = open(runs / "lock", "a")
    except OSError as error:
        raise UserError(
            f"results={store.root!r}: cannot write beside it ({error}); choose another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another sweep is writing to {store.root}; wait for it, or name another --results"
            ) from None
        store.clear_scratch()
        for path in store.set_aside_unreadable(runs / "unreadable"):
            log.warning("%s is not a readable Parquet file; it was moved to %s", path, runs / "unreadable")
        yield
