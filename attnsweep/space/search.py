"""Adaptive search: Optuna (https://arxiv.org/abs/1907.10902) suggests the points of a sweep, one after
another, going by what the finished ones gave.

Grids are crossed as ever: each of their cells is searched for itself, over its domains, until it has
`num_samples` trials. What counts is what stands in the results: their finished trials that lie in the cell
are told first, so that a search that was cut off goes on, and a finished one runs nothing. A point that
cannot be a trial, or is one already, takes no place.
"""

import json
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core.errors import UserError, reason
from attnsweep.core.trial import Trial
from attnsweep.results.schema import FINAL
from attnsweep.results.store import Row
from attnsweep.space.draws import draw, seed_of
from attnsweep.space.grid import Point, is_domain, is_function
from attnsweep.space.plan import Expansion, Plan, make_plan
from attnsweep.space.sweep import OBJECTIVES, Sweep
from attnsweep.space.trials import expand, make_trial
from attnsweep.tasks.registry import forget, resolve

if TYPE_CHECKING:
    import optuna

PATIENCE = 100  # suggestions without a new trial among them, until a cell counts as searched through
STUCK = 10  # such suggestions, until chance takes over
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
        """For each trial that is still to be suggested: what is fixed of it."""
        return tuple(cell.constants for cell in self.cells for _ in range(cell.wanted))

    @property
    def exhausted(self) -> bool:
        return not any(cell.wanted for cell in self.cells)

    def take(self, *, last: bool = False) -> Trial | None:
        """The next trial, of the cells in turn: no other is known. None where none has another."""
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


class Cell:
    """The search in one cell of the grids: an Optuna study over the cell's domains."""

    def __init__(self, cell: Point, sweep: Sweep, known: Mapping[str, Row | None], data_dir: Path) -> None:
        self.constants = {key: value for key, value in cell.items() if not is_domain(value)}
        self.domains = {key: value for key, value in cell.items() if searched(value)}
        self.space = {key: distribution(key, domain) for key, domain in self.domains.items()}
        self.others = {key: value for key, value in cell.items() if key not in self.space}
        self.objectives, self.known, self.data_dir = sweep.objectives, known, data_dir
        self.samples = sweep.num_samples if self.space else 1
        self.counted: set[str] = set()  # trials of this cell
        self.waiting: dict[str, optuna.Trial] = {}  # those that have not ended
        self.spent = False

    @property
    def wanted(self) -> int:
        """How many trials are still to be suggested."""
        return 0 if self.spent else max(0, self.samples - len(self.counted))

    def recall(self, rows: Sequence[Row]) -> dict[str, Trial]:
        """Tells Optuna what stands in the results; returns the finished trials. Failed ones come first in the
        search.
        """
        found = {trial.trial_id: (trial, row) for row in rows if (trial := self._trial_of(row))}
        done = {key: trial for key, (trial, row) in found.items() if row["status"] in FINAL}
        self.samplers = samplers(seed=len(done))
        self.study = imported().create_study(directions=[OBJECTIVES[key] for key in self.objectives])
        self.counted |= done.keys()
        for trial, row in found.values():
            if trial.trial_id in done:
                self.study.add_trial(self._finished(self._params(row), row))
            elif row["status"] == "failed":
                self.study.enqueue_trial(self._params(row))
        return done

    def suggest(self) -> Trial | None:
        """A trial that is not known yet; None where the cell has enough, or no further one was found."""
        repeats = 0
        while self.wanted > 0 and repeats < PATIENCE:
            self.study.sampler = self.samplers[repeats >= STUCK]
            asked, repeats = self.study.ask(self.space), repeats + 1
            trial = self._trial(asked.params)
            if trial is None:
                self._tell(asked, {"status": "invalid"})
            elif trial.trial_id in self.waiting:
                self._tell(asked, {"status": "doubled"})
            elif trial.trial_id in self.known:
                repeats *= trial.trial_id in self.counted
                self._note(asked, trial)
            else:
                self._note(asked, trial)
                return trial
        if repeats >= PATIENCE:
            self.spent = True
            few = len(self.counted), self.samples, f" of {self.constants}" if self.constants else ""
            log.warning("the search found %d of %d trials%s: its space has no more, or few", *few)
        return None

    def ended(self, trial_id: str) -> None:
        """Tells Optuna of a trial that this cell waits for."""
        if asked := self.waiting.pop(trial_id, None):
            self._tell(asked, self.known[trial_id] or {"status": "failed"})

    def _note(self, asked: "optuna.Trial", trial: Trial) -> None:
        """Counts the trial; tells its values where they are known, later where they are not."""
        self.counted.add(trial.trial_id)
        self.waiting[trial.trial_id] = asked
        if self.known.get(trial.trial_id):
            self.ended(trial.trial_id)

    def _tell(self, asked: "optuna.Trial", row: Row) -> None:
        values = self._values(row)
        self.study.tell(asked, values, state=state(values, row))

    def _finished(self, params: Point, row: Row) -> "optuna.trial.FrozenTrial":
        """A row as Optuna keeps it."""
        from optuna.trial import create_trial

        values = self._values(row)
        return create_trial(state=state(values, row), params=params, distributions=self.space, values=values)

    def _values(self, row: Row) -> list[float] | None:
        """The objectives; None where a trial has none, as where it has failed or diverged."""
        if row["status"] != "done":
            return None
        values = [math.nan if row.get(key) is None else float(row[key]) for key in self.objectives]
        return values if all(map(math.isfinite, values)) else None

    def _params(self, row: Row) -> Point:
        known = {**row, **json.loads(row.get("model_args") or "{}")}
        found = {key: stand_in(kind, known.get(key)) for key, kind in self.space.items()}
        return {
            key: multiple(value, getattr(self.space[key], "step", None))
            if isinstance(value, float)
            else value
            for key, value in found.items()
        }

    def _trial(self, params: Mapping[str, Any]) -> Trial | None:
        """The trial at a point, at which functions draw anew; None where the point is invalid."""
        point = {key: as_drawn(self.domains[key], value) for key, value in params.items()}
        sample = seed_of(repr(sorted(point.items())))
        try:
            return make_trial(resolve(draw({**self.others, **point}, sample)), self.data_dir)
        except UserError:
            return None

    def _trial_of(self, row: Row) -> Trial | None:
        """The trial of a row; None where the row does not lie in the cell."""
        params = self._params(row)
        if row["model"] != self.constants.get("model", row["model"]) or not contains(self.space, params):
            return None
        trial = self._trial(params)
        return trial if trial and trial.trial_id == row["trial_id"] else None


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
    """The plan, given what `look` found and the rows of `trials` so far; and the search, where it is one."""
    if sweep.search is None:
        return make_plan(sweep, expansion, rows), None
    search = Search(sweep, rows, data_dir)
    plan = make_plan(sweep, (list(search.done.values()), expansion[1]), rows)
    return replace(plan, open=search.open, samples=tuple(expansion[0])), search


def samplers(*, seed: int) -> "tuple[optuna.samplers.BaseSampler, optuna.samplers.BaseSampler]":
    """Optuna's tree-structured Parzen estimator, which knows several objectives
    (https://doi.org/10.1145/3377930.3389817), and chance, for where it is stuck among known points.
    """
    kinds = imported().samplers
    clever = kinds.TPESampler(seed=seed, constant_liar=True)  # running trials count as bad ones: none twice
    return clever, kinds.RandomSampler(seed=seed)


def imported() -> Any:
    """Optuna, without its remarks. Raises UserError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "search='optuna' needs Optuna; install it: pip install 'attnsweep[optuna]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def state(values: Sequence[float] | None, row: Row) -> Any:
    """What Optuna learns of a trial: its values; that there are points better avoided; or nothing."""
    states = imported().trial.TrialState
    if values is not None:
        return states.COMPLETE
    return states.PRUNED if row["status"] in ("invalid", "diverged") else states.FAIL


def searched(value: object) -> bool:
    """Whether Optuna is to choose the value; a function of others (`tune.sample_from`) follows from them."""
    return is_domain(value) and not is_function(value)


def distribution(key: str, domain: Any) -> Any:
    """One of Ray Tune's domains as Optuna's distribution, over the same values (see `as_drawn`).

    Raises UserError where Optuna has none like it, or where it has no values.
    """
    from ray.tune.search import sample

    kinds, sampler = imported().distributions, domain.get_sampler()
    step = getattr(sampler, "q", None)
    shape = sampler.sampler if step else sampler
    log = isinstance(shape, sample.LogUniform)
    plain = isinstance(shape, sample.Uniform) or (log and step in (None, 1))
    if isinstance(domain, sample.Categorical):
        plain = plain and not any(map(is_domain, domain.categories))
    elif isinstance(domain, sample.Integer):
        plain = plain and step in (None, int(step or 1))
    if not plain:
        raise UserError(
            f"{key}: Optuna cannot search this domain of Ray Tune's; use tune.choice, uniform, quniform, "
            "loguniform, randint, qrandint or lograndint"
        )
    try:
        if isinstance(domain, sample.Categorical):
            return kinds.CategoricalDistribution(domain.categories)
        if isinstance(domain, sample.Float):
            low, high = (multiple(bound, step) for bound in (domain.lower, domain.upper))
            return kinds.FloatDistribution(low, high, log=log, step=step)
        low, high = whole_range(domain.lower, domain.upper, int(step or 1))
        return kinds.IntDistribution(low, high, log=log, step=int(step or 1))
    except ValueError as error:
        raise UserError(f"{key}: {reason(error)}") from error


def whole_range(lower: int, upper: int, step: int) -> tuple[int, int]:
    """The least and the greatest multiple of a step in Ray Tune's bounds, of step 1 below the upper one."""
    above = 1 if step == 1 else 0
    return -(-lower // step) * step, (upper - above) // step * step


def multiple(value: float, step: float | None) -> float:
    """The value as Optuna has it: the multiple of a step as it is written in decimals, 0.3 for 3 * 0.1."""
    if step is None:
        return value
    near = float(round(value / step) * Decimal(str(step)))
    return near if math.isclose(near, value) else value


def as_drawn(domain: Any, value: Any) -> Any:
    """A value of Optuna's as Ray Tune would draw it, to the last bit: 3 * 0.1 for 0.3."""
    step = getattr(domain.get_sampler(), "q", None)
    return round(value / step) * step if step and isinstance(value, float) else value


def stand_in(kind: Any, value: Any) -> Any:
    """A row's value as the point may have had it.

    Where the model has no such thing, any will do; where it was derived, from a None among the choices, that.
    """
    choices = getattr(kind, "choices", ())
    if value in choices or (value is not None and not choices):
        return value
    if choices:
        return None if None in choices else choices[0]
    return kind.low


def contains(space: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    """Whether a point lies in the space."""
    from optuna.trial import TrialState, create_trial

    try:
        create_trial(state=TrialState.FAIL, params=dict(params), distributions=dict(space))
    except (ValueError, TypeError):
        return False
    return True
