"""Adaptive search: Optuna (https://arxiv.org/abs/1907.10902) suggests points, one after another, based on the
finished trials.

Each cell of the grids is searched by itself, over its domains, until it has `num_samples` trials. The results
are the search's only memory: Optuna is first given their finished trials of the cell, so that an interrupted
search goes on and a finished one runs nothing. Points that are invalid or already known do not count; nor do
points over the budget, which are not trained, but Optuna learns by how much they exceed it.
"""

import json
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.results.schema import FINAL
from attnsweep.results.store import Row
from attnsweep.space import optuna_study
from attnsweep.space.budget import Excess, LatencyOf, unknown, worst
from attnsweep.space.draws import draw, seed_of
from attnsweep.space.grid import Point, is_domain, is_function
from attnsweep.space.plan import Expansion, Plan, make_plan, over_budget, unmet
from attnsweep.space.sweep import LATENCY, OBJECTIVES, Sweep
from attnsweep.space.trials import expand, trial_at
from attnsweep.tasks.registry import forget

if TYPE_CHECKING:
    import optuna

PATIENCE = 100  # suggestions in a row without a new trial, until a cell counts as exhausted
STUCK = 10  # such suggestions in a row, until random search takes over
PROBES = 100  # points drawn from each cell to check it, and to estimate the cost of its trials
log = logging.getLogger("attnsweep")


class Search:
    """A source of trials (see `engine.TrialSource`) that Optuna suggests.

    Raises UserError where Optuna is missing, or a domain is of a kind that it does not know.
    """

    ahead = 1  # so that no worker idles; more would be suggested with less knowledge

    def __init__(
        self, sweep: Sweep, rows: Sequence[Row], data_dir: Path, latency_of: LatencyOf = unknown
    ) -> None:
        self.taken: dict[str, Trial] = {}
        self.known: dict[str, Row | None] = {row["trial_id"]: row for row in rows if row["status"] in FINAL}
        self.cells = deque(Cell(cell, sweep, self.known, data_dir, latency_of) for cell in sweep.cells())
        self.done: dict[str, Trial] = {}  # the finished trials of the results in the search space
        for cell in self.cells:
            self.done |= cell.recall(rows)

    @property
    def open(self) -> tuple[Point, ...]:
        """For each trial that is still to be suggested, the constants of its cell."""
        return tuple(cell.domains.constants for cell in self.cells for _ in range(cell.wanted))

    @property
    def over(self) -> dict[str, tuple[Trial, Excess]]:
        """The suggestions that exceed the budget, with their excess."""
        return {trial_id: one for cell in self.cells for trial_id, one in cell.over.items()}

    def refuse_unmet(self) -> None:
        """Raises UserError, naming the nearest suggestion, where all exceed the budget."""
        if self.over and not self.taken and not self.done:
            trial, excess = min(self.over.values(), key=lambda one: one[1].share)
            raise UserError(unmet(trial, excess, [one for one, _ in self.over.values()]))

    @property
    def exhausted(self) -> bool:
        return not any(cell.wanted for cell in self.cells)

    def take(self, *, last: bool = False) -> Trial | None:
        """The next trial, from the cells in turn; None where no cell has another."""
        for _ in range(len(self.cells)):
            self.cells.rotate(-1)
            if trial := self.cells[-1].suggest():
                self.taken[trial.trial_id], self.known[trial.trial_id] = trial, None
                return trial
        return None

    def ended(self, trial: Trial, status: str, row: Row) -> None:
        """Tells Optuna how a trial ended."""
        self.known[trial.trial_id] = {**row, "status": status}
        for cell in self.cells:
            cell.ended(trial.trial_id)


class Domains:
    """The domains of a cell: they map the values that Optuna chooses to trials, and rows back to values.

    `domains` are Ray Tune's, of the keys whose value Optuna chooses, and `space` are these as its own;
    `constants` have one value, and `functions` are all keys but the chosen ones, some of which may be
    functions of those. Raises UserError for a domain of a kind that Optuna does not know.
    """

    def __init__(self, cell: Point, data_dir: Path) -> None:
        domains = {key: value for key, value in cell.items() if is_domain(value) and not is_function(value)}
        self.domains, self.data_dir = domains, data_dir
        self.space = {key: optuna_study.distribution(key, domain) for key, domain in domains.items()}
        self.constants = {key: value for key, value in cell.items() if not is_domain(value)}
        self.functions = {key: value for key, value in cell.items() if key not in domains}

    def params_of(self, row: Row) -> Point:
        """The values that Optuna chose, or would have chosen, for the trial of a row."""
        values = {**row, **json.loads(row.get("model_args") or "{}")}
        found = {key: optuna_study.plausible(kind, values.get(key)) for key, kind in self.space.items()}
        steps = {key: getattr(kind, "step", None) for key, kind in self.space.items()}
        floats = {key: one for key, one in found.items() if isinstance(one, float)}
        return found | {key: optuna_study.multiple(one, steps[key]) for key, one in floats.items()}

    def trial_at(self, params: Mapping[str, Any]) -> Trial | None:
        """The trial at chosen values, with functions drawn anew; None where the point is invalid."""
        point = {key: optuna_study.as_drawn(self.domains[key], value) for key, value in params.items()}
        sample = seed_of(repr(sorted(point.items())))
        try:
            return trial_at(draw({**self.functions, **point}, sample), self.data_dir)
        except UserError:
            return None

    def trial_of(self, row: Row) -> Trial | None:
        """The trial of a row; None where it is not in the cell."""
        params = self.params_of(row)
        is_here = row["model"] == self.constants.get("model", row["model"])
        trial = self.trial_at(params) if is_here and optuna_study.contains(self.space, params) else None
        return trial if trial and trial.trial_id == row["trial_id"] else None


class Cell:
    """The search in one cell: an Optuna study over its domains."""

    def __init__(
        self,
        cell: Point,
        sweep: Sweep,
        known: Mapping[str, Row | None],
        data_dir: Path,
        latency_of: LatencyOf,
    ) -> None:
        self.domains = Domains(cell, data_dir)
        self.objectives, self.budget, self.known = sweep.objectives, sweep.budget, known
        self.latency_of = latency_of
        self.samples = sweep.num_samples if self.domains.space else 1
        self.counted: set[str] = set()  # trials of this cell
        self.pending: dict[str, tuple[Trial, optuna.Trial]] = {}  # of these, those that have not ended
        self.over: dict[str, tuple[Trial, Excess]] = {}  # suggestions that exceed the budget
        self.exhausted = False

    @property
    def wanted(self) -> int:
        """How many trials are still to be suggested."""
        return 0 if self.exhausted else max(0, self.samples - len(self.counted))

    def recall(self, rows: Sequence[Row]) -> dict[str, Trial]:
        """Gives Optuna the results; returns the finished trials within the budget. Failed ones come first."""
        known = {trial.trial_id: (trial, row) for row in rows if (trial := self.domains.trial_of(row))}
        final = {key: trial for key, (trial, row) in known.items() if row["status"] in FINAL}
        margins = {key: self.budget.margins(trial, self.latency_of) for key, trial in final.items()}
        done = {key: trial for key, trial in final.items() if not worst(margins[key])}
        self.samplers = optuna_study.samplers(seed=len(done), constrained=bool(self.budget.limits))
        directions = [OBJECTIVES[key] for key in self.objectives]
        self.study = optuna_study.imported().create_study(directions=directions)
        self.counted |= done.keys()
        for key, (trial, row) in known.items():
            params = self.domains.params_of(row)
            if key in final:
                values, space = self._values(trial, row), self.domains.space
                limits = constraints(margins[key])
                self.study.add_trial(optuna_study.ended_trial(space, params, values, row, limits))
            elif row["status"] == "failed":
                self.study.enqueue_trial(params)
        return done

    def suggest(self) -> Trial | None:
        """A new trial; None where the cell has enough, or none was found."""
        tried = stuck = 0
        while self.wanted > 0 and tried < PATIENCE:
            self.study.sampler = self.samplers[stuck >= STUCK]
            asked, tried, stuck = self.study.ask(self.domains.space), tried + 1, stuck + 1
            trial = self.domains.trial_at(asked.params)
            if trial is None:
                self._tell(asked, None, "invalid")
            elif trial.trial_id in self.pending:
                self._tell(asked, None, "doubled")
            elif excess := worst(self._constrain(asked, trial)):
                stuck -= trial.trial_id not in self.over  # something was learnt
                self.over[trial.trial_id] = trial, excess
                self._tell(asked, None, "over budget")
            elif self._aims_in_vain(trial):
                self._tell(asked, None, "invalid")
            elif trial.trial_id in self.known:
                if trial.trial_id not in self.counted:
                    tried = stuck = 0
                self._count(asked, trial)
            else:
                self._count(asked, trial)
                return trial
        if tried >= PATIENCE:
            self.exhausted = True
            self._warn_of_few()
        return None

    def ended(self, trial_id: str) -> None:
        """Tells Optuna the values of a trial that has ended, if it is pending in this cell."""
        if pending := self.pending.pop(trial_id, None):
            trial, asked = pending
            row = self.known[trial_id] or {"status": "failed"}
            self._tell(asked, self._values(trial, row), row["status"])

    def _constrain(self, asked: "optuna.Trial", trial: Trial) -> list[Excess]:
        """Tells Optuna the costs of a suggestion relative to the budget; returns them."""
        margins = self.budget.margins(trial, self.latency_of)
        optuna_study.constrain(asked, constraints(margins))
        return margins

    def _aims_in_vain(self, trial: Trial) -> bool:
        """Whether latency is an objective and cannot be measured."""
        ms = self.latency_of(trial) if LATENCY in self.objectives else None
        return ms is not None and math.isnan(ms)

    def _count(self, asked: "optuna.Trial", trial: Trial) -> None:
        """Counts the trial, as pending, or as ended where its values are known."""
        self.counted.add(trial.trial_id)
        self.pending[trial.trial_id] = trial, asked
        if self.known.get(trial.trial_id):
            self.ended(trial.trial_id)

    def _tell(self, asked: "optuna.Trial", values: list[float] | None, status: str) -> None:
        self.study.sampler = self.samplers[0]  # Optuna 4 has it note constraints, whichever has suggested
        self.study.tell(asked, values, state=optuna_study.state(values, {"status": status}))

    def _values(self, trial: Trial, row: Row) -> list[float] | None:
        """The objectives of a trial; None where it failed or diverged, or lacks one. Latency is that of the
        machine that the search measures on, not that of the row.
        """
        if row["status"] != "done":
            return None
        found = {**row, LATENCY: self.latency_of(trial)} if LATENCY in self.objectives else row
        values = [math.nan if found.get(key) is None else float(found[key]) for key in self.objectives]
        return values if all(map(math.isfinite, values)) else None

    def _warn_of_few(self) -> None:
        constants = self.domains.constants
        few = len(self.counted), self.samples, f" of {constants}" if constants else ""
        if self.over:
            log.warning(
                "the search found %d of %d trials%s: %d suggestions one after another were known, or exceed "
                "the budget, as %d distinct ones do; raise the budget, or narrow the space",
                *few, PATIENCE, len(self.over),
            )  # fmt: skip
        else:
            log.warning("the search found %d of %d trials%s: its space has no more, or few", *few)


def constraints(margins: Sequence[Excess]) -> dict[str, float]:
    """The constraints for Optuna: values above 0 exceed the budget."""
    return {one.key: one.share for one in margins}


def expand_sweep(sweep: Sweep, data_dir: Path) -> Expansion:
    """The sweep's trials and invalid points; for a search, trials at random points, and an invalid point of
    each cell without a valid one. Data sets' files are read anew.
    """
    forget(data_dir)
    if sweep.search is None:
        return expand(sweep.points(), data_dir)
    cells = [expand((draw(cell, i) for i in range(PROBES)), data_dir) for cell in sweep.cells()]
    trials = {trial.trial_id: trial for found, _ in cells for trial in found}
    return list(trials.values()), [refused[0] for found, refused in cells if not found]


def plan_and_search(
    sweep: Sweep, expansion: Expansion, rows: Sequence[Row], data_dir: Path, latency_of: LatencyOf = unknown
) -> tuple[Plan, Search | None]:
    """The plan, from an expansion, the rows of `trials` so far and known latency; and the search, if any."""
    if sweep.search is None:
        return make_plan(sweep, expansion, rows, latency_of), None
    search = Search(sweep, rows, data_dir, latency_of)
    plan = make_plan(sweep, (list(search.done.values()), expansion[1]), rows, latency_of)
    samples = tuple(expansion[0])
    over = over_budget(sweep, samples, unknown)  # none of them is measured
    return replace(plan, open=search.open, samples=samples, over=over), search
