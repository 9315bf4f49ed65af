"""What one command does: plan, run the trials that are not done yet, write rows, measure latency, close.

The driver keeps no state of its own: finished work is in the tables and unfinished work in checkpoints, so
the same command goes on from wherever it was cut off.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep.core import collection, terminal, tested
from attnsweep.core.deployment import Deployments
from attnsweep.core.errors import Interrupted, Unreachable, UserError
from attnsweep.core.trial import Trial
from attnsweep.engine import console, deadline
from attnsweep.engine.command import Command, ensure, measure_latency, opened
from attnsweep.engine.latency import at_lengths, subjects_of
from attnsweep.engine.recorder import tidy
from attnsweep.engine.restored import restored
from attnsweep.engine.writer import sole_writer
from attnsweep.results.loading import load
from attnsweep.results.store import Store
from attnsweep.space.files import read_sweep
from attnsweep.space.plan import (
    ASKED,
    Folders,
    at_chance,
    folders_of,
    known_latency,
    known_rows,
    refuse_invalid,
    wanted_data,
)
from attnsweep.space.search import expand_sweep, plan_and_search
from attnsweep.space.sweep import SKIP_UNREADABLE, Sweep, refuse_unmeasured

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """The trials of a sweep, their number by status, and whether it was cut off."""

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
    serial: bool = False,
    skip_unreadable: bool = False,
    hours: float | None = None,
) -> "pd.DataFrame":
    """Runs the trials of a sweep that are not done yet; returns the sweep's rows of `trials`, of any status.

    - `sweep`: a Sweep, or the path of a sweep file.
    - `results`, `data`: folders, or for results a URI; `data` defaults to $ATTNSWEEP_DATA, else
      ~/.cache/attnsweep.
    - `address`: a Ray cluster; by default $RAY_ADDRESS, else one on this machine, else a new one.
    - `latency=False` skips the latency phase.
    - `serial=True` runs one trial after another in this process, without Ray: for a debugger, or where Ray
      does not run.
    - `skip_unreadable=True` leaves out images that cannot be read.
    - `hours`: after that time running trials end with their next epoch. The same call goes on with the rest.
      It returns no rows if no trial has ended.

    Loggers, signal handlers, random generators and the like are restored afterwards. Raises UserError where
    the sweep cannot start, KeyboardInterrupt where it was cut off.
    """
    with restored():
        sweep = sweep if isinstance(sweep, Sweep) else read_sweep(sweep)
        sweep = sweep.override(SKIP_UNREADABLE) if skip_unreadable else sweep
        outcome = execute(
            sweep, folders_of(results, data),
            address=address, latency=latency, in_process=serial, hours=hours,
        )  # fmt: skip
        if outcome.interrupted:
            raise KeyboardInterrupt
        if hours is not None and Store(results).is_empty:  # time was up before anything had ended
            import pandas as pd  # here: until rows are read nothing needs it

            return pd.DataFrame()
        rows = load(results, status=None)
    ours = [trial.trial_id for trial in outcome.trials]
    return rows if rows.empty else rows[rows["trial_id"].isin(ours)].reset_index(drop=True)


def execute(
    sweep: Sweep,
    where: Folders,
    *,
    address: str | None,
    latency: bool,
    in_process: bool = False,
    hours: float | None = None,
) -> Outcome:
    """Runs the trials that are not done yet, then measures latency; prints plan, progress and closing line.
    After `hours` running trials end with their next epoch, and measuring with the next measurement.
    """
    until = deadline.after(hours)
    tested.warn_of_newer()
    refuse_unmeasured(sweep, latency=latency)
    screen, store, began = terminal.screen(), Store(where.results), time.monotonic()
    expansion = expand_sweep(sweep, where.data)
    refuse_invalid(expansion[1])
    with sole_writer(store, where.runs) as held:
        planned = functools.partial(plan_and_search, sweep, expansion, known_rows(store, sweep), where.data)
        plan, search = planned(known_latency(store, sweep))
        ensure(wanted_data(plan), where, screen)
        console.show_plan(screen, plan)
        command, interrupted = Command(sweep, plan, search, store, where, screen, planned, until), False
        try:
            command.work(address=address, latency=latency, in_process=in_process)
        except KeyboardInterrupt:
            if held:
                held.check()
            interrupted = True
        except Unreachable as error:
            raise Interrupted(f"{error}; finished rows are intact, the same command goes on") from error
        tidy(store)
        outcome = Outcome(command.trials, command.count(), interrupted)
        unlearnt = at_chance(command.trials, store.read("trials").select(ASKED).to_pylist())
    close(command, outcome, time.monotonic() - began, unlearnt)
    return outcome


def close(command: Command, outcome: Outcome, seconds: float, at_chance: Sequence[Trial]) -> None:
    """Prints how the sweep ended, and which of its trials are now no better than chance."""
    console.show_closing(
        command.screen, outcome.counts, command.where.results, seconds,
        tasks={trial.config["task"] for trial in outcome.trials}, interrupted=outcome.interrupted,
        unkept=console.unkept(command.until, command.plan),
    )  # fmt: skip
    new = [trial for trial in at_chance if trial not in command.plan.at_chance]
    console.show_at_chance(command.screen, new, outcome.trials)


def measure(
    results: str | Path,
    asked: Deployments,
    *,
    where: str | None = None,
    lengths: Sequence[int] | None = None,
    again: bool = False,
    address: str | None = None,
    in_process: bool = False,
) -> int:
    """Measures, on this hardware, the latency of every architecture in the results, or of the trials for
    which the pandas query `where` holds: what is not known yet, or with `again` all of it. With `lengths` it
    measures models of sequences at these numbers of tokens. Returns the exit status, 1 where anything asked
    for has no figure.
    """
    screen, store, folders = terminal.screen(), Store(results), folders_of(results)
    wanted = {*to_measure(results, where)["arch_id"]}
    with sole_writer(store, folders.runs):
        subjects = subjects_of(store, None, chosen=wanted)
        lost = wanted.difference(arch_id for arch_id, _ in subjects)  # why was said of each
        if not subjects:
            return 1
        if lengths is not None:
            subjects = at_lengths(subjects, lengths)
        with opened(screen, folders, in_process=in_process, address=address) as (backend, waits):
            gpus = backend.request(None)["gpu"] > 0
            collection.go_on()
            tally = measure_latency(store, backend, waits, subjects, asked, folders, gpus=gpus, again=again)
        tidy(store)
    if tally.measured or tally.known:
        screen.print(f"rows in {folders.results}/latency", highlight=False)
    return 0 if tally.is_whole and not lost else 1


def to_measure(results: str | Path, where: str | None) -> "pd.DataFrame":
    """The done trials for which the query holds, of models that have a latency. Raises UserError where there
    are none.
    """
    from attnsweep.answers import pareto, selection  # here: a sweep does not wait for pandas

    rows = load(results, status=None, all_columns=True)
    done = rows[rows["status"] == "done"]
    if done.empty:
        raise UserError(f"{results} has no done trial; {selection.instead(rows)}")
    done = selection.where(done, where)
    if not pareto.has_latency(done):
        raise UserError(f"no latency to measure in {results}: models without parameters have none")
    return done[done["params"] > 0]
