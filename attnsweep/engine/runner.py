"""What one command does: plan, run what is not done yet, write its rows, measure latency, close.

Nothing of the driver's own state is kept. What is done stands in the tables and what was begun in
checkpoints, so the same command goes on from wherever it was cut off.
"""

import contextlib
import errno
import functools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from rich.console import Console

from attnsweep.answers import pareto
from attnsweep.core import files, tested, text
from attnsweep.core.deployment import Deployments, Subject
from attnsweep.core.errors import Interrupted, Unreachable, UserError, writing
from attnsweep.core.trial import Trial
from attnsweep.engine import console, deadline, meters, serial
from attnsweep.engine.deadline import Deadline
from attnsweep.engine.engine import Backend, Bench, Queue, Settings
from attnsweep.engine.halving import Halving
from attnsweep.engine.latency import Beforehand, Phase, Tally, at_lengths, subjects_of
from attnsweep.engine.loop import run_trials
from attnsweep.engine.recorder import RAY_LOG, Recorder, tidy
from attnsweep.engine.restored import restored
from attnsweep.results import lock, storage
from attnsweep.results.store import Store, load
from attnsweep.space.budget import LatencyOf, unknown
from attnsweep.space.files import read_sweep
from attnsweep.space.plan import (
    ASKED,
    OVER,
    Folders,
    Plan,
    at_chance,
    folders_of,
    known_latency,
    known_rows,
    refuse_invalid,
    refuse_unmet,
    wanted_data,
)
from attnsweep.space.search import Search, expand_sweep, plan_and_search
from attnsweep.space.sweep import SKIP_UNREADABLE, Sweep, refuse_unmeasured
from attnsweep.tasks.task import DataSet
from attnsweep.training import probe

if TYPE_CHECKING:
    import pandas as pd

SAY_S = 2.0  # of waiting, until that is said
PROBE_S, PROBE_SHARE = 60.0, 0.05  # for steps that say how long trials take, and of the time that there is
LEAST_S = 60.0  # of which steps beforehand would take too large a part
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
        try:
            rows = load(results, status=None)
        except UserError:
            if hours is None:
                raise
            import pandas as pd  # here: until rows are read nothing needs it

            return pd.DataFrame()  # time was up before anything had ended
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
    screen, store, began = text.screen(), Store(where.results), time.monotonic()
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
    console.show_closing(screen, outcome.counts, where.results, seconds, tasks=tasks, interrupted=interrupted)
    new = [trial for trial in unlearnt if trial not in plan.at_chance]
    console.show_at_chance(screen, new, outcome.trials)
    return outcome


def ensure(datasets: Iterable[DataSet], where: Folders, screen: Console) -> None:
    """Has the files of data sets there, and what follows from them."""
    for dataset in datasets:
        with console.counting(screen, f"reading {dataset.name}") as progress:
            dataset.ensure(where.data, progress)


@contextlib.contextmanager
def opened(
    screen: Console, where: Folders, *, in_process: bool, address: str | None
) -> Iterator[tuple[Backend, console.Waits]]:
    """Where a command works, this process or the Ray cluster at an address; and who says what it waits for.

    Raises UserError where Ray is wanted and cannot be imported.
    """
    waits = console.Waits(screen)
    with contextlib.ExitStack() as stack, screen.status("starting") as status:
        backend: Backend
        if in_process:
            backend = stack.enter_context(serial.opened())
        else:
            on_ray, log_file = ray_backends(), where.runs / RAY_LOG
            with waits.shown(status.update), waits.after(SAY_S, "Ray to start"):
                backend = stack.enter_context(on_ray.opened(address, log=log_file, report=waits.report))
        status.stop()
        yield backend, waits


def ray_backends() -> ModuleType:
    """The module of Ray's clusters. Raises UserError where Ray cannot be imported."""
    try:
        from attnsweep.engine import on_ray  # here: --serial does without Ray
    except ImportError as error:
        raise UserError(
            f"Ray cannot be imported ({error}); install it (pip install 'ray[tune]'), or run with --serial"
        ) from error
    return on_ray


@dataclass
class Command:
    """One command under way: what to run, where its rows go, where a person reads of it; and what plans
    again, when more is known of latency.
    """

    sweep: Sweep
    plan: Plan
    search: Search | None
    store: Store
    where: Folders
    screen: Console
    planned: Callable[[LatencyOf], tuple[Plan, Search | None]]
    until: Deadline

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials of the sweep, as far as they are known."""
        return (*self.plan.trials, *(self.search.taken.values() if self.search else ()))

    @property
    def candidates(self) -> list[Trial]:
        """Trials that are not done and that are within the budget as far as it was counted."""
        left = [trial for trial in self.plan.trials if self.plan.state[trial.trial_id] != "done"]
        return [trial for trial in left if not self.sweep.budget.excess(trial, unknown)]

    def work(self, *, address: str | None, latency: bool, in_process: bool) -> None:
        """Trains what is not done and measures what was not measured yet."""
        to_train = bool(self.candidates or self.plan.open)
        if not to_train:
            refuse_unmet(self.plan)
            if not latency:
                return
        with opened(self.screen, self.where, in_process=in_process, address=address) as (backend, waits):
            asked = backend.request(self.sweep.resources)
            if to_train:
                self.train_within_budget(backend, waits, asked, latency=latency)
            if latency and not self.until.is_over:
                arch_ids = {trial.trial_id: trial.arch_id for trial in self.trials}
                subjects = subjects_of(self.store, arch_ids)
                tally = measure_latency(
                    self.store,
                    backend,
                    waits,
                    subjects,
                    self.sweep.latency,
                    self.where,
                    gpus=asked["gpu"] > 0,
                )
                console.show_tally(self.screen, tally)

    def train_within_budget(
        self, backend: Backend, waits: console.Waits, asked: dict[str, float], *, latency: bool
    ) -> None:
        """Trains what is not done, where latency decides after that is known. Raises UserError where nothing
        is within the budget.
        """
        with contextlib.ExitStack() as stack:
            if self.sweep.measures_first:
                self.plan_again(self.beforehand(backend, waits, asked, stack))
            if self.plan.new or self.plan.open:
                self.prepare(backend)
                self.train(backend, asked, latency=latency)
        if self.search:
            self.search.refuse_unmet()

    def plan_again(self, latency_of: LatencyOf) -> None:
        """Leaves out what exceeds the budget, now that latency is known. Raises UserError where all does."""
        before = self.plan
        self.plan, self.search = self.planned(latency_of)
        refuse_unmet(self.plan)
        there = wanted_data(before)
        ensure((one for one in wanted_data(self.plan) if one not in there), self.where, self.screen)
        if (before.over, before.undecided) != (self.plan.over, self.plan.undecided):
            console.show_budget(self.screen, self.plan)

    def beforehand(
        self, backend: Backend, waits: console.Waits, asked: Mapping[str, float], stack: contextlib.ExitStack
    ) -> LatencyOf:
        """The latency of trials that are not trained yet: of those that are known all is measured now, by
        machines that do nothing else; of a suggestion as it comes, on this machine, beside training.
        """
        first, on_gpu, tally = self.sweep.latency.first, asked["gpu"] > 0, Tally()
        with console.counting(waits.console, "latency") as progress:
            bench: Bench
            if self.search:
                bench = stack.enter_context(meters.beside_training(first, float(on_gpu)))
                wanted = list(self.search.done.values())
            else:
                bench, wanted = first_of(backend.benches(first, gpus=on_gpu)), self.candidates
            latency_of = Beforehand(Phase(self.store, first, progress, tally=tally), bench)
            latency_of.measure(wanted)
        if self.search:
            stack.callback(console.show_tally, self.screen, tally)  # more is to come
        else:
            console.show_tally(self.screen, tally)
        return latency_of.silent()

    def prepare(self, backend: Backend) -> None:
        """Computes what trials read and is not there yet: scenes are recorded."""
        for dataset in wanted_data(self.plan):
            with console.counting(self.screen, f"preparing {dataset.name}") as progress:
                dataset.prepare(self.where.data, workers=backend.workers, progress=progress)

    def train(self, backend: Backend, asked: dict[str, float], *, latency: bool) -> None:
        """Trains what is not done; `latency` is measured afterwards."""
        slots = backend.slots(asked)
        if asked["gpu"] == 0 and (self.sweep.resources or {}).get("gpu"):
            self.screen.print("  there is no GPU here: trials run on CPUs")
        self.probe()
        console.show_time(self.screen, self.plan, slots, latency=latency)
        if self.until.seconds < math.inf:
            console.show_deadline(self.screen, self.plan, slots, self.until.left_s)
        source = self.search or Queue(self.plan.new)
        engine = backend.engine(self.settings(asked, ahead=source.ahead), asked)
        with console.Live(self.screen, self.plan, slots=slots) as live:
            recorder = Recorder(
                self.plan.name, self.store, self.where.runs, live, checkpoints=self.where.checkpoints
            )
            run_trials(engine, source, recorder, self.halving(), self.until)

    def probe(self) -> None:
        """Where time decides what is trained, takes a few steps of each model that none has trained yet."""
        unseen = self.plan.speed.unseen(self.plan.new)
        if not unseen or not LEAST_S < self.until.seconds < math.inf:
            return
        budget_s = min(PROBE_S, self.until.left_s * PROBE_SHARE)
        with self.screen.status("timing a few steps of each model"):
            seconds = probe.seconds_of(unseen, str(self.where.data), budget_s=budget_s)
        for trial in unseen:
            if trial.trial_id in seconds:
                self.plan.speed.observe(trial, seconds[trial.trial_id])
                self.plan.speed.basis = "going by a few steps of each model"

    def settings(self, asked: Mapping[str, float], *, ahead: float) -> Settings:
        """How the trials of the sweep run."""
        options = {
            "data_dir": str(self.where.data),
            "runs_dir": self.where.checkpoints,
            "cpu": asked["cpu"],
            "gpu": asked["gpu"],
            "keep_weights": self.sweep.keep_weights,
        }
        return Settings(options, self.sweep.trial_timeout, ahead)

    def halving(self) -> Halving | None:
        """What stops trials early, going on from what earlier commands have left in the table `epochs`."""
        if self.sweep.scheduler != "asha":
            return None
        halving = Halving()
        halving.refill(self.plan.trials, self.store.read("epochs").to_pylist())
        return halving

    def count(self) -> Counter[str]:
        """How many trials ended how; `new` are those that have not ended."""
        rows = self.store.read("trials")
        ended = dict(zip(rows["trial_id"].to_pylist(), rows["status"].to_pylist(), strict=True))
        over = self.plan.over
        counts = Counter(
            OVER if trial.trial_id in over else ended.get(trial.trial_id, "new") for trial in self.trials
        )
        if self.search:
            counts["new"] += len(self.search.open)
            counts[OVER] += len(self.search.over)
        return counts


def first_of(benches: Sequence[Bench]) -> Bench:
    """The kind of device whose latency the rows of trials show. Raises UserError where there is none."""
    if not benches:
        raise UserError("latency decides what is trained, and no machine is there to measure it")
    return benches[0]


def measure_latency(
    store: Store,
    backend: Backend,
    waits: console.Waits,
    subjects: Mapping[tuple[str, str], Subject],
    asked: Deployments,
    folders: Folders,
    *,
    gpus: bool,
    again: bool = False,
) -> Tally:
    """The latency phase, for these architectures (see `latency.subjects_of`)."""
    if not subjects:
        return Tally()
    with console.counting_and_waiting(waits.console, "latency") as (progress, show), waits.shown(show):
        phase = Phase(store, asked, progress, again, folders)
        return phase.measure(subjects, backend.benches(asked, gpus=gpus))


def measure(
    results: str | Path,
    asked: Deployments,
    *,
    where: str | None = None,
    lengths: Sequence[int] = (),
    again: bool = False,
    address: str | None = None,
    in_process: bool = False,
) -> int:
    """Measures latency of every architecture in the results on this hardware, or of those of the trials for
    which the pandas query `where` holds: what is not known yet, or all of it again. With `lengths` those of
    sequences, each as it would be for so many tokens. Returns the exit status, 1 where something that was
    asked for has no figure.
    """
    screen, store, folders = text.screen(), Store(results), folders_of(results)
    done = load(results, all_columns=True)
    if done.empty:
        raise UserError(f"no finished trial in {results}; run a sweep first")
    chosen = {*(pareto.where(done, where) if where else done)["arch_id"]}
    with sole_writer(store, folders.runs):
        subjects = {key: one for key, one in subjects_of(store, None).items() if key[0] in chosen}
        if lengths:
            subjects = at_lengths(subjects, lengths)
        with opened(screen, folders, in_process=in_process, address=address) as (backend, waits):
            gpus = backend.request(None)["gpu"] > 0
            tally = measure_latency(store, backend, waits, subjects, asked, folders, gpus=gpus, again=again)
        tidy(store)
    console.show_tally(screen, tally)
    screen.print(f"rows in {folders.results}/latency", highlight=False)
    return 0 if tally.is_whole else 1


@contextlib.contextmanager
def sole_writer(store: Store, runs: Path) -> Iterator[lock.Lock | None]:
    """Holds the lock on the results, and mends what an earlier driver, or an earlier version, has left. Of a
    store that is not a disk it yields the lock, which can be lost.

    Raises UserError while another driver holds it, or where the folder cannot be written.
    """
    with contextlib.ExitStack() as locks:
        try:
            runs, held = files.make_folder(runs), None
            files.refuse_link_of_others(store.base if store.is_local else runs)
            locks.enter_context(lock.held_here(runs / "lock"))
            if not store.is_local:
                held = locks.enter_context(
                    lock.held(storage.below(folders_of(store.root).checkpoints, "lock"))
                )
        except lock.Held as error:
            raise UserError(
                f"another sweep is writing to {store.root} from {error}; "
                "wait for it, or name another --results"
            ) from None
        except Unreachable:
            raise
        except OSError as error:
            raise UserError(
                f"results={store.root!r}: {error.filename or runs} cannot be written "
                f"({error.strerror or error}); choose another folder{of_group(error)}"
            ) from error
        mend(store, runs)
        try:
            yield held
        except KeyboardInterrupt:
            if held:
                held.check()
            raise


def of_group(error: OSError) -> str:
    """What a group that shares a folder sets, where a file in it is another member's."""
    if error.errno != errno.EACCES:
        return ""
    return "; a group that shares one sets `chmod g+ws` on it, and each of its members `umask 002`"


def mend(store: Store, runs: Path) -> None:
    """Puts away what stops readers of the tables: scratch files, torn files, files of older versions."""
    with writing(store.root):
        store.clear_scratch()
        for path in store.set_aside_unreadable(runs / "unreadable"):
            log.warning("%s is not a readable Parquet file; it was moved to %s", path, runs / "unreadable")
        store.upgrade()
