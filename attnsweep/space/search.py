"""Adaptive search: Optuna (https://arxiv.org/abs/1907.10902) suggests the points of a sweep, one after
another, going by the values of the finished ones.

Grids are crossed as ever: each of their cells is searched for itself, over its domains, until it has
`num_samples` trials. The results are the search's only memory: Optuna is given their finished trials that lie
in the cell first, so that a search that was cut off goes on, and a finished one runs nothing. A point that
cannot be a trial, or is one already, does not count.
"""

import json
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.results.schema import FINAL
from attnsweep.results.store import Row
from attnsweep.space.draws import draw, seed_of
from attnsweep.space.grid import Point, is_domain, is_function
from attnsweep.space.optuna_study import (
    as_drawn,
    contains,
    distribution,
    ended_trial,
    imported,
    multiple,
    plausible,
    samplers,
    state,
)  # fmt: skip
from attnsweep.space.plan import Expansion, Plan, make_plan
from attnsweep.space.sweep import OBJECTIVES, Sweep
from attnsweep.space.trials import expand, make_trial
from attnsweep.tasks.registry import forget, resolve

if TYPE_CHECKING:
    import optuna

PATIENCE = 100  # suggestions without a new trial among them, until a cell counts as searched through
STUCK = 10  # such suggestions, until random search takes over
PROBES = 100  # points drawn from each cell to check it, and to state what its trials may cost
log = logging.getLogger("attnsweep")


class Search:
    """A source of trials (see `engine.TrialSource`) that Optuna suggests.

    Raises UserError where Optuna is missing, or a domain is of a kind that it does not know.
    """

    ahead = 1  # taken before a worker is free, so that none waits; more would be suggested in ignorance

    def __init__(self, sweep: Sweep, rows: Sequence[Row], data_dir: Path) -> None:
        self.taken: dict[str, Trial] = {}
        self.known: dict[str, Row | None] = {row["trial_id"]: row for row in rows if row["status"] in FINAL}
        self.cells = deque(Cell(cell, sweep, self.known, data_dir) for cell in sweep.cells())
        self.done: dict[str, Trial] = {}  # the finished trials of the results that lie in the space
        for cell in self.cells:
            self.done |= cell.recall(rows)

    @property
    def open(self) -> tuple[Point, ...]:
        """The constants of the cell of each trial that is still to be suggested."""
        return tuple(cell.domains.constants for cell in self.cells for _ in range(cell.wanted))

    @property
    def exhausted(self) -> bool:
        return not any(cell.wanted for cell in self.cells)

    def take(self, *, last: bool = False) -> Trial | None:
        """The next trial, suggested by the cells in turn; None where no cell has another."""
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


@dataclass(frozen=True)
class Domains:
    """The domains of a cell of the grids: from the values that Optuna chooses in them to trials, and from
    rows back to values.
    """

    constants: Point  # keys with one value
    domains: Mapping[str, Any]  # keys whose value Optuna chooses, to Ray Tune's domains
    functions: Point  # all other keys, functions of the chosen values among them
    space: Mapping[str, Any]  # the domains as Optuna's distributions
    data_dir: Path

    @classmethod
    def of(cls, cell: Point, data_dir: Path) -> "Domains":
        """Raises UserError for a domain of a kind that Optuna does not know."""
        domains = {key: value for key, value in cell.items() if is_domain(value) and not is_function(value)}
        return cls(
            constants={key: value for key, value in cell.items() if not is_domain(value)},
            domains=domains,
            functions={key: value for key, value in cell.items() if key not in domains},
            space={key: distribution(key, domain) for key, domain in domains.items()},
            data_dir=data_dir,
        )

    def params_of(self, row: Row) -> Point:
        """The values that Optuna has, or would have, chosen for the trial of a row."""
        values = {**row, **json.loads(row.get("model_args") or "{}")}
        found = {key: plausible(kind, values.get(key)) for key, kind in self.space.items()}
        return {
            key: multiple(value, getattr(self.space[key], "step", None))
            if isinstance(value, float)
            else value
            for key, value in found.items()
        }

    def trial_at(self, params: Mapping[str, Any]) -> Trial | None:
        """The trial at chosen values, at which functions draw anew; None where the point is invalid."""
        point = {key: as_drawn(self.domains[key], value) for key, value in params.items()}
        sample = seed_of(repr(sorted(point.items())))
        try:
            return make_trial(resolve(draw({**self.functions, **point}, sample)), self.data_dir)
        except UserError:
            return None

    def trial_of(self, row: Row) -> Trial | None:
        """The trial of a row; None where the row does not lie in the cell."""
        params = self.params_of(row)
        if row["model"] != self.constants.get("model", row["model"]) or not contains(self.space, params):
            return None
        trial = self.trial_at(params)
        return trial if trial and trial.trial_id == row["trial_id"] else None


class Cell:
    """The search in one cell of the grids: an Optuna study over the cell's domains."""

    def __init__(self, cell: Point, sweep: Sweep, known: Mapping[str, Row | None], data_dir: Path) -> None:
        self.domains = Domains.of(cell, data_dir)
        self.objectives, self.known = sweep.objectives, known
        self.samples = sweep.num_samples if self.domains.space else 1
        self.counted: set[str] = set()  # trials of this cell
        self.pending: dict[str, optuna.Trial] = {}  # those that have not ended
        self.exhausted = False

    @property
    def wanted(self) -> int:
        """How many trials are still to be suggested."""
        return 0 if self.exhausted else max(0, self.samples - len(self.counted))

    def recall(self, rows: Sequence[Row]) -> dict[str, Trial]:
        """Gives Optuna the trials in the results; returns the finished ones. Failed ones come first in the
        search.
        """
        found = {trial.trial_id: (trial, row) for row in rows if (trial := self.domains.trial_of(row))}
        done = {key: trial for key, (trial, row) in found.items() if row["status"] in FINAL}
        self.samplers = samplers(seed=len(done))
        self.study = imported().create_study(directions=[OBJECTIVES[key] for key in self.objectives])
        self.counted |= done.keys()
        for trial, row in found.values():
            params = self.domains.params_of(row)
            if trial.trial_id in done:
                self.study.add_trial(ended_trial(self.domains.space, params, self._values(row), row))
            elif row["status"] == "failed":
                self.study.enqueue_trial(params)
        return done

    def suggest(self) -> Trial | None:
        """A trial that is not known yet; None where the cell has enough, or no further one was found."""
        repeats = 0
        while self.wanted > 0 and repeats < PATIENCE:
            self.study.sampler = self.samplers[repeats >= STUCK]
            asked, repeats = self.study.ask(self.domains.space), repeats + 1
            trial = self.domains.trial_at(asked.params)
            if trial is None:
                self._tell(asked, {"status": "invalid"})
            elif trial.trial_id in self.pending:
                self._tell(asked, {"status": "doubled"})
            elif trial.trial_id in self.known:
                repeats *= trial.trial_id in self.counted
                self._count(asked, trial)
            else:
                self._count(asked, trial)
                return trial
        if repeats >= PATIENCE:
            self.exhausted = True
            constants = self.domains.constants
            few = len(self.counted), self.samples, f" of {constants}" if constants else ""
            log.warning("the search found %d of %d trials%s: its space has no more, or few", *few)
        return None

    def ended(self, trial_id: str) -> None:
        """Tells Optuna the values of a pending trial of this cell."""
        if asked := self.pending.pop(trial_id, None):
            self._tell(asked, self.known[trial_id] or {"status": "failed"})

    def _count(self, asked: "optuna.Trial", trial: Trial) -> None:
        """Counts the trial as pending, or as ended where its values are known."""
        self.counted.add(trial.trial_id)
        self.pending[trial.trial_id] = asked
        if self.known.get(trial.trial_id):
            self.ended(trial.trial_id)

    def _tell(self, asked: "optuna.Trial", row: Row) -> None:
        values = self._values(row)
        self.study.tell(asked, values, state=state(values, row))

    def _values(self, row: Row) -> list[float] | None:
        """The objectives; None where a trial has none, as where it has failed or diverged."""
        if row["status"] != "done":
            return None
        values = [math.nan if row.get(key) is None else float(row[key]) for key in self.objectives]
        return values if all(map(math.isfinite, values)) else None


def expand_sweep(sweep: Sweep, data_dir: Path) -> Expansion:
    """The sweep's trials and invalid points; of a search, trials at points drawn at random, and an invalid
    point of each cell in which none is valid. The files of data sets are read anew.
    """
    forget()
    if sweep.search is None:
        return expand(sweep.points(), data_dir)
    cells = [expand((draw(cell, i) for i in range(PROBES)), data_dir) for cell in sweep.cells()]
    trials = {trial.trial_id: trial for found, _ in cells for trial in found}
    return list(trials.values()), [refused[0] for found, refused in cells if not found]


def plan_and_search(
    sweep: Sweep, expansion: Expansion, rows: Sequence[Row], data_dir: Path
) -> tuple[Plan, Search | None]:
    """The plan, of an `expand_sweep` and the rows of `trials` so far; and the search, where it is one."""
    if sweep.search is None:
        return make_plan(sweep, expansion, rows), None
    search = Search(sweep, rows, data_dir)
    plan = make_plan(sweep, (list(search.done.values()), expansion[1]), rows)
    return replace(plan, open=search.open, samples=tuple(expansion[0])), search
