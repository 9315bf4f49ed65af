"""What one command does: plan, run what is not done yet, write its rows, measure latency, close.

Nothing of the driver's own state is kept. What is done stands in the tables and what was begun in
checkpoints, so the same command goes on from wherever it was cut off.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep.core import terminal, tested
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
    serial: bool = False,
    skip_unreadable: bool = False,
    hours: float | None = None,
) -> "pd.DataFrame":
    """Runs the trials of a sweep that are not done yet; returns the sweep's rows of `trials`, of any status.

    `sweep` is a Sweep or the path of a sweep file; the other arguments are those of the command line. With
    `skip_unreadable` the images of a folder that cannot be read are left out. After so many `hours` trials
    under way end with their next epoch, and what has not run goes on when this is called again; where none
    has ended, no row is returned. With `serial` trials run one after another in this process, without Ray:
    for a debugger, or where Ray does not run. What the process has set, such as loggers, signal handlers and
    random numbers, is afterwards as it was.

    Raises UserError where the sweep cannot start, KeyboardInterrupt where it was cut off.
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
    """Runs what is not done yet, then measures latency; prints plan, progress and closing line. After so many
    hours trials under way end with their next epoch, and latency is not measured.
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
        plan = command.plan
        unlearnt = at_chance(command.trials, store.read("trials").select(ASKED).to_pylist())
    seconds, tasks = time.monotonic() - began, {trial.config["task"] for trial in outcome.trials}
    console.show_closing(
        screen, outcome.counts, where.results, seconds,
        tasks=tasks, interrupted=interrupted, unkept=console.unkept(until, plan),
    )  # fmt: skip
    new = [trial for trial in unlearnt if trial not in plan.at_chance]
    console.show_at_chance(screen, new, outcome.trials)
    return outcome


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
    """Measures latency of every architecture in the results on this hardware, or of those of the trials for
    which the pandas query `where` holds: what is not known yet, or all of it again. With `lengths` those of
    sequences, each as it would be for so many tokens. Returns the exit status, 1 where something that was
    asked for has no figure.
    """
    screen, store, folders = terminal.screen(), Store(results), folders_of(results)
    done = load(results, all_columns=True)
    if done.empty:
        raise UserError(f"no finished trial in {results}; run a sweep first")
    if where:
        from attnsweep.answers import selection  # here: until rows are chosen nothing needs pandas

        done = selection.where(done, where)
    chosen = {*done["arch_id"]}
    with sole_writer(store, folders.runs):
        subjects = {key: one for key, one in subjects_of(store, None).items() if key[0] in chosen}
        if lengths is not None:
            subjects = at_lengths(subjects, lengths)
        with opened(screen, folders, in_process=in_process, address=address) as (backend, waits):
            gpus = backend.request(None)["gpu"] > 0
            tally = measure_latency(store, backend, waits, subjects, asked, folders, gpus=gpus, again=again)
        tidy(store)
    console.show_tally(screen, tally)
    screen.print(f"rows in {folders.results}/latency", highlight=False)
    return 0 if tally.is_whole else 1
