"""A running command: the backend that it works on, training within the budget, measuring latency."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from rich.console import Console

from attnsweep.core import collection
from attnsweep.core.deployment import Deployments, Subject
from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.engine import console, live, meters, serial
from attnsweep.engine.deadline import Deadline
from attnsweep.engine.engine import Backend, Bench, Queue, Settings
from attnsweep.engine.halving import Halving
from attnsweep.engine.latency import LatencyOnDemand, Phase, Tally, subjects_of
from attnsweep.engine.loop import run_trials
from attnsweep.engine.recorder import RAY_LOG, Recorder
from attnsweep.results.store import Store
from attnsweep.space.budget import LatencyOf, unknown
from attnsweep.space.plan import OVER, Folders, Plan, refuse_unmet, wanted_data
from attnsweep.space.search import Search
from attnsweep.space.sweep import Sweep
from attnsweep.tasks.task import DataSet
from attnsweep.training import probe

SAY_S = 2.0  # of waiting, until the user is told
PROBE_S, PROBE_SHARE = 60.0, 0.05  # most seconds, and share of the whole time, for timing a few steps
LEAST_S = 60.0  # of a time limit: below, timing steps would take too large a part of it
LONG_S = 60.0  # guessed for the sweep without a limit: below, timing steps is not worth it


def ensure(datasets: Iterable[DataSet], where: Folders, screen: Console) -> None:
    """Downloads and decodes data sets where need be; see `DataSet.ensure`."""
    for dataset in datasets:
        with live.counting(screen, f"reading {dataset.name}") as progress:
            dataset.ensure(where.data, progress)


@contextlib.contextmanager
def opened(
    screen: Console, where: Folders, *, in_process: bool, address: str | None
) -> Iterator[tuple[Backend, live.Waits]]:
    """The backend of a command, this process or the Ray cluster at an address; and what shows what it waits
    for.

    Raises UserError where Ray is wanted and cannot be imported.
    """
    waits = live.Waits(screen)
    with contextlib.ExitStack() as stack, screen.status("starting") as status:
        backend: Backend
        if in_process:
            backend = serial.ThisProcess()
        else:
            on_ray, log_file = ray_backends(), where.runs / RAY_LOG
            with waits.shown(status.update), waits.after(SAY_S, "Ray to start"):
                backend = stack.enter_context(on_ray.opened(address, log=log_file, report=waits.report))
        status.stop()
        yield backend, waits


def ray_backends() -> ModuleType:
    """The module `on_ray`. Raises UserError where Ray cannot be imported."""
    try:
        from attnsweep.engine import on_ray  # here: --serial does without Ray
    except ImportError as error:
        raise UserError(
            f"Ray cannot be imported ({error}); install it (pip install 'ray[tune]'), or run with --serial"
        ) from error
    return on_ray


@dataclass
class Command:
    """A running command: what it runs, where its rows go, the screen; `planned` plans again, given
    latency.
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
        """All trials of the sweep that are known so far."""
        return (*self.plan.trials, *(self.search.taken.values() if self.search else ()))

    @property
    def candidates(self) -> list[Trial]:
        """Trials that are not done and whose parameters and MACs are within the budget."""
        left = [trial for trial in self.plan.trials if self.plan.state[trial.trial_id] != "done"]
        return [trial for trial in left if not self.sweep.budget.excess(trial, unknown)]

    def work(self, *, address: str | None, latency: bool, in_process: bool) -> None:
        """Trains the trials that are not done, then measures latency that is not known."""
        to_train = bool(self.candidates or self.plan.open)
        if not to_train:
            refuse_unmet(self.plan)
            if not latency:
                return
        with opened(self.screen, self.where, in_process=in_process, address=address) as (backend, waits):
            asked = backend.request(self.sweep.resources)
            collection.go_on()
            if to_train:
                self.train_within_budget(backend, waits, asked, latency=latency)
            if latency:
                arch_ids = {trial.trial_id: trial.arch_id for trial in self.trials}
                subjects = subjects_of(self.store, arch_ids)
                measure_latency(
                    self.store, backend, waits, subjects, self.sweep.latency,
                    self.where, gpus=asked["gpu"] > 0, until=self.until,
                )  # fmt: skip

    def train_within_budget(
        self, backend: Backend, waits: live.Waits, asked: dict[str, float], *, latency: bool
    ) -> None:
        """Trains the trials that are not done, after measuring latency where that decides which. Raises
        UserError where nothing is within the budget.
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
        """Drops trials that exceed the budget now that latency is known. Raises UserError if all do."""
        before = self.plan
        self.plan, self.search = self.planned(latency_of)
        refuse_unmet(self.plan)
        there = wanted_data(before)
        ensure((one for one in wanted_data(self.plan) if one not in there), self.where, self.screen)
        if (before.over, before.undecided) != (self.plan.over, self.plan.undecided):
            console.show_budget(self.screen, self.plan)

    def beforehand(
        self, backend: Backend, waits: live.Waits, asked: Mapping[str, float], stack: contextlib.ExitStack
    ) -> LatencyOf:
        """The latency of trials before training. Without a search, all are measured now, on idle machines;
        with one, each suggestion is measured as it comes, on this machine, while others train.
        """
        first, on_gpu, tally = self.sweep.latency.first, asked["gpu"] > 0, Tally()
        with live.counting(waits.console, "latency") as progress:
            bench: Bench
            if self.search:
                bench = stack.enter_context(meters.beside_training(first, float(on_gpu)))
                wanted = list(self.search.done.values())
            else:
                bench, wanted = first_of(backend.benches(first, gpus=on_gpu)), self.candidates
            phase = Phase(self.store, first, progress, tally=tally, until=self.until)
            latency_of = LatencyOnDemand(phase, bench)
            latency_of.measure(wanted)
        if self.search:
            stack.callback(console.show_tally, self.screen, tally)  # more is to come
        else:
            console.show_tally(self.screen, tally)
        return latency_of.silent()

    def prepare(self, backend: Backend) -> None:
        """Computes data that trials read and that is missing, such as recorded scenes."""
        for dataset in wanted_data(self.plan):
            with live.counting(self.screen, f"preparing {dataset.name}") as progress:
                dataset.prepare(self.where.data, workers=backend.workers, progress=progress)

    def train(self, backend: Backend, asked: dict[str, float], *, latency: bool) -> None:
        """Trains the trials that are not done; `latency` says whether it is measured afterwards."""
        slots = backend.slots(asked)
        if asked["gpu"] == 0 and (self.sweep.resources or {}).get("gpu"):
            self.screen.print("  there is no GPU here: trials run on CPUs")
        self.probe(slots, asked["gpu"])
        console.show_time(self.screen, self.plan, slots, latency=latency)
        if self.until.seconds < math.inf:
            console.show_deadline(self.screen, self.plan, slots, self.until.left_s)
        source = self.search or Queue(self.plan.new)
        engine = backend.engine(self.settings(asked, ahead=source.ahead), asked)
        with live.Live(self.screen, self.plan, slots=slots) as shown:
            recorder = Recorder(
                self.plan.name, self.store, self.where.runs, shown, checkpoints=self.where.checkpoints
            )
            run_trials(engine, source, recorder, self.halving(), self.until)

    def probe(self, slots: int, gpu: float) -> None:
        """Times a few steps of each model that no trial has trained yet, where a time limit decides what is
        trained, or the estimate is long and would be a guess.
        """
        unseen, limited = self.plan.speed.unseen(self.plan.new), self.until.seconds < math.inf
        time_s = self.until.left_s if limited else self.plan.seconds / max(1, slots)
        if not unseen or time_s < (LEAST_S if limited else LONG_S):
            return
        budget_s = min(PROBE_S, time_s * PROBE_SHARE)
        with self.screen.status("timing a few steps of each model"):
            seconds = probe.seconds_of(unseen, str(self.where.data), budget_s=budget_s, gpu=gpu)
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
        """What stops trials early, with the rungs that earlier commands have left in the table `epochs`."""
        if self.sweep.scheduler != "asha":
            return None
        halving = Halving()
        halving.refill(self.plan.trials, self.store.read("epochs").to_pylist())
        return halving

    def count(self) -> Counter[str]:
        """The number of trials by status; `new` are those that have not ended."""
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
    """The bench whose latency the rows of trials show. Raises UserError where there is none."""
    if not benches:
        raise UserError("latency decides what is trained, and no machine is there to measure it")
    return benches[0]


def measure_latency(
    store: Store,
    backend: Backend,
    waits: live.Waits,
    subjects: Mapping[tuple[str, str], Subject],
    asked: Deployments,
    folders: Folders,
    *,
    gpus: bool,
    again: bool = False,
    until: Deadline | None = None,
) -> Tally:
    """Runs the latency phase for these subjects (see `latency.subjects_of`), and prints how it ended, even if
    it is cut off.
    """
    tally = Tally()
    if not subjects:
        return tally
    try:
        with live.counting_and_waiting(waits.console, "latency") as (progress, show), waits.shown(show):
            phase = Phase(store, asked, progress, again, folders, tally, until or Deadline())
            return phase.measure(subjects, backend.benches(asked, gpus=gpus))
    finally:
        console.show_tally(waits.console, tally)
