"""The plan of a sweep: which of its trials are new or done, which points are invalid, and why."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnsweep.core.errors import UserError
from attnsweep.core.files import expanded
from attnsweep.core.trial import Invalid, Trial
from attnsweep.results import latencies
from attnsweep.results.schema import FINAL
from attnsweep.results.store import Row, Store
from attnsweep.space.budget import Excess, LatencyOf, unknown
from attnsweep.space.estimate import Speed
from attnsweep.space.grid import Point
from attnsweep.space.labels import label, varying
from attnsweep.space.sweep import Sweep
from attnsweep.tasks.registry import TASKS, dataset_of
from attnsweep.tasks.task import DataSet

# all columns of ten thousand rows would take half a second to read
ASKED = ["trial_id", "status", "train_s", "val_acc"]
OVER = "over budget"
Expansion = tuple[Sequence[Trial], Sequence[Invalid]]


@dataclass(frozen=True)
class Folders:
    """The folders of a sweep: tables of results, checkpoints and logs, data."""

    results: str
    runs: Path
    data: Path

    @property
    def checkpoints(self) -> str:
        """The folder of checkpoints and weights: `runs`, on each node's own disk; or, if the results are at a
        URI, a folder next to them, so that another node can go on from it.
        """
        if "://" not in self.results:
            return str(self.runs)
        where, mark, query = self.results.partition("?")
        scheme, _, path = where.partition("://")
        above, slash, name = path.rstrip("/").rpartition("/")
        runs = f"{above}/{runs_name(name)}" if slash else f"{name}/runs"
        return f"{scheme}://{runs}{mark}{query}"


def folders_of(results: str | Path = "results", data: str | Path | None = None) -> Folders:
    """The folders of a sweep. `data` defaults to $ATTNSWEEP_DATA, else ~/.cache/attnsweep; `runs` is next to
    `results`, or in the working directory if those are at a URI.
    """
    if "://" in str(results):
        parent, name = Path.cwd(), str(results).partition("?")[0].rstrip("/").rsplit("/", 1)[-1]
    else:
        place = expanded(results).absolute()
        place = place.resolve() if place.name == ".." else place  # what its own name is
        parent, name = place.parent, place.name
    folder = data or os.environ.get("ATTNSWEEP_DATA") or default_data(parent)
    return Folders(str(results), parent / runs_name(name), expanded(folder).absolute())


def default_data(parent: Path) -> Path:
    """~/.cache/attnsweep, or for a user without a home directory, `data` next to the results."""
    try:
        return Path("~/.cache/attnsweep").expanduser()
    except RuntimeError:
        return parent / "data"


def runs_name(name: str) -> str:
    """The name of the folder of checkpoints and logs next to results of that name."""
    return "runs" if name == "results" else f"{name}-runs"


@dataclass(frozen=True)
class Plan:
    """A sweep's distinct trials, the state of each (`new`, `done`, `over budget`), and its invalid points.

    For a search: `trials` are the finished ones, `open` has the constants of each trial that is still to be
    suggested, and `samples` are trials that might be suggested.
    """

    name: str
    trials: tuple[Trial, ...]
    invalid: tuple[Invalid, ...]
    state: Mapping[str, str]
    speed: Speed
    unused: Mapping[str, Sequence[str]]  # for each model the keys of the sweep that it does not have
    repeated: int = 0  # points that are the same trial as an earlier one
    open: tuple[Point, ...] = ()
    samples: tuple[Trial, ...] = ()
    at_chance: tuple[Trial, ...] = ()  # done trials that are no better than chance
    over: Mapping[str, Excess] = field(default_factory=dict)  # by id, of `typical` trials that are not done
    undecided: int = 0  # architectures of new trials whose latency has a limit and is not known

    @property
    def new(self) -> list[Trial]:
        return [trial for trial in self.trials if self.state[trial.trial_id] == "new"]

    @property
    def typical(self) -> tuple[Trial, ...]:
        """The plan's trials; for a search, samples of what it may suggest."""
        return self.samples or self.trials

    @property
    def seconds(self) -> float:
        """Estimated seconds of the unfinished trials, run one after another."""
        return self.speed.estimate(self.new) + len(self.open) * self.seconds_of_open

    @property
    def unmeasured(self) -> int:
        """The number of architectures of unfinished trials, whose latency will be measured."""
        return len({trial.arch_id for trial in self.new if trial.params}) + len(self.open)

    @property
    def seconds_of_open(self) -> float:
        """Estimated seconds of a trial that is still to be suggested: the mean over `samples`."""
        return self.speed.estimate(self.samples) / max(1, len(self.samples))


def known_rows(store: Store, sweep: Sweep) -> list[Row]:
    """The rows of `trials`, with the columns that a plan needs; a search learns from all columns."""
    table = store.read("trials")
    return (table if sweep.search else table.select(ASKED)).to_pylist()


def known_latency(store: Store, sweep: Sweep) -> LatencyOf:
    """Known latency, on the device that was measured last, if latency decides which trials are trained."""
    if not sweep.measures_first:
        return unknown
    known = latencies.of_architectures(store.read("latency").to_pylist(), sweep.latency)
    return lambda trial: known.get((trial.arch_id, trial.config["precision"]))


def make_plan(
    sweep: Sweep, expanded: Expansion, rows: Sequence[Row], latency_of: LatencyOf = unknown
) -> Plan:
    """The plan, from a sweep's trials and invalid points, the rows of `trials` so far, and known latency."""
    trials, invalid = expanded
    state = state_of(trials, rows, scheduler=sweep.scheduler)
    new = [trial for trial in trials if state[trial.trial_id] == "new"]
    over = over_budget(sweep, new, latency_of)
    state |= dict.fromkeys(over, OVER)
    speed = speed_from(rows, trials)
    repeated = 0 if sweep.search else sweep.size - len(trials) - len(invalid)
    return Plan(
        sweep.name or "sweep", tuple(trials), tuple(invalid), state, speed, sweep.unused(), repeated,
        at_chance=tuple(at_chance(trials, rows)), over=over,
        undecided=undecided(sweep, [trial for trial in new if trial.trial_id not in over], latency_of),
    )  # fmt: skip


def state_of(trials: Sequence[Trial], rows: Sequence[Row], *, scheduler: str | None) -> dict[str, str]:
    """`done` or `new` for each trial; for a sweep with a scheduler, stopped trials are done."""
    final = {*FINAL, "stopped"} if scheduler else set(FINAL)
    done = {row["trial_id"] for row in rows if row["status"] in final}
    return {trial.trial_id: "done" if trial.trial_id in done else "new" for trial in trials}


def over_budget(sweep: Sweep, trials: Sequence[Trial], latency_of: LatencyOf) -> dict[str, Excess]:
    """The trials that exceed the sweep's budget, by id, with their excess."""
    if not sweep.budget.limits:
        return {}
    found = {trial.trial_id: sweep.budget.excess(trial, latency_of) for trial in trials}
    return {trial_id: excess for trial_id, excess in found.items() if excess}


def undecided(sweep: Sweep, trials: Sequence[Trial], latency_of: LatencyOf) -> int:
    """The number of architectures that are to be measured before training."""
    if not sweep.measures_first:
        return 0
    wanted = {(one.arch_id, one.config["precision"]): one for one in trials if one.params}
    return sum(latency_of(trial) is None for trial in wanted.values())


def refuse_unmet(plan: Plan) -> None:
    """Raises UserError, naming the nearest trial, where none is within the budget."""
    if plan.trials and set(plan.state.values()) == {OVER}:
        trial = min(plan.trials, key=lambda one: plan.over[one.trial_id].share)
        raise UserError(unmet(trial, plan.over[trial.trial_id], plan.trials))


def unmet(nearest: Trial, excess: Excess, among: Sequence[Trial]) -> str:
    """The error where no trial is within the budget."""
    name = label(nearest, varying(among))
    return f"no trial is within the budget; the nearest is {name}, whose {excess}: raise it, or shrink models"


def at_chance(trials: Sequence[Trial], rows: Sequence[Row]) -> list[Trial]:
    """The done trials whose accuracy on validation is at most two standard errors above chance."""
    accuracy = {row["trial_id"]: row.get("val_acc") for row in rows if row["status"] == "done"}
    found = []
    for trial in trials:
        by_chance, reached = TASKS[trial.config["task"]].chance, accuracy.get(trial.trial_id)
        if by_chance is None or reached is None:
            continue
        level, examples = by_chance(dict(trial.config))
        if reached <= level + 2 * math.sqrt(level * (1 - level) / examples):
            found.append(trial)
    return found


def wanted_data(plan: Plan) -> list[DataSet]:
    """The data sets of unfinished trials; a set that trials read in different ways counts for each."""
    found = (dataset_of(trial.config) for trial in (*plan.new, *plan.samples))
    return list(dict.fromkeys(found))


def speed_from(rows: Sequence[Row], trials: Sequence[Trial]) -> Speed:
    """The speed of each model, from the finished ones among `trials`."""
    speed = Speed()
    done = [row for row in rows if row["status"] == "done"]
    seconds = {row["trial_id"]: row["train_s"] for row in done if 0 < (row["train_s"] or 0) < math.inf}
    for trial in trials:
        if trial.trial_id in seconds:
            speed.observe(trial, seconds[trial.trial_id])
    return speed


def refuse_invalid(invalid: Sequence[Invalid]) -> None:
    """Raises UserError, with up to three reasons, if there are invalid points."""
    reasons = list(dict.fromkeys(point.reason for point in invalid))
    more = f" (and {len(reasons) - 3} more reasons: --dry-run lists them)" if len(reasons) > 3 else ""
    if reasons:
        raise UserError("; ".join(reasons[:3]) + more)
