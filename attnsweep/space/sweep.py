"""A sweep: a search space and how to run it, expanded into trials that are checked before any starts."""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attnsweep.core.deployment import Deployments
from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.results.schema import MEASURES
from attnsweep.space import grid as grids
from attnsweep.space.budget import Budget
from attnsweep.space.draws import draw
from attnsweep.space.grid import MOST_TRIALS, Point, grid, is_domain, is_function, is_grid
from attnsweep.tasks.own import scalar
from attnsweep.tasks.registry import AXES, BEFORE, is_open, takes

OPTIONS = (
    "name", "resources", "num_samples", "scheduler", "search", "objectives", "keep_weights", "trial_timeout",
    "latency", "budget",
)  # fmt: skip
OBJECTIVES = {  # in the words of Optuna
    name: {"higher": "maximize", "lower": "minimize"}[column.better]
    for name, column in MEASURES.items()
    if column.objective and column.better
}
LATENCY = "latency_ms_p50"
SKIP_UNREADABLE = {"unreadable": ("skip",)}  # what --skip-unreadable overrides


class Sweep:
    """A search space and how to run it.

    `space` is a dict, or a list of dicts whose union is swept. A value is a constant,
    `tune.grid_search([...])` or one of Ray Tune's domains. Further keywords apply to every dict; a dict's own
    value wins.

    - `resources`: what one trial takes, such as `{"cpu": 1, "gpu": 0.25}`. Default: one CPU, and a quarter of
      a GPU where there are GPUs.
    - `num_samples`: how often domains are drawn for each cell of the grid. Sample i of a key is the same in
      every cell and every run.
    - `scheduler="asha"` stops trials early: after 1, 4, 16 ... epochs those whose configuration is not in the
      best quarter of its model and data set. A configuration counts by the mean of its seeds; trials of this
      sweep that are in the results already count, too.
    - `keep_weights=True` leaves the weights of each trial's selected epoch in runs/TRIAL_ID/weights.pt, on
      the machine that trained it.
    - `trial_timeout`: seconds after its start at which a trial is ended. It counts as `failed`, its worker is
      replaced, and the same command tries it again from its last checkpoint. With --serial there is no worker
      to replace: a trial that hangs in C code hangs the command.
    - `latency`: what is measured after training, such as
      `{"runtime": ["eager", "onnxruntime"], "batch": [1, 32], "threads": [1, 2], "precision": ["bf16"]}`.
      Default: eager, at batch 1 and 256, on one thread, in each trial's own precision. The rows of trials
      show the first runtime and number of threads, at the smallest batch.
    - `budget`: limits on a trial's cost, some of `{"latency_ms": 2, "params": "2M", "macs": 1e8}`. A trial
      over a limit is never trained. Parameters and MACs are known to the plan; latency is measured before
      training, once per architecture, as the rows of trials show it. A cost that cannot be counted or
      measured is within every limit.
    - `search="optuna"`: Optuna chooses values from the domains, in each cell of the grid by itself, until the
      cell has `num_samples` trials. Suggestions over the `budget` do not count, but Optuna learns from them.
    - `objectives`: the columns of `trials` that the search optimises, several as a trade-off: accuracy is
      maximised; losses, parameters, MACs and `latency_ms_p50` are minimised.

    Raises UserError for an unknown key, an empty grid, or an option that is out of range.
    """

    def __init__(
        self,
        space: Mapping[str, Any] | Sequence[Mapping[str, Any]] = (),
        *,
        name: str = "",
        resources: Mapping[str, float] | None = None,
        num_samples: int = 1,
        scheduler: str | None = None,
        keep_weights: bool = False,
        search: str | None = None,
        objectives: str | Sequence[str] = ("val_acc", "params"),
        trial_timeout: float | None = None,
        latency: Mapping[str, Any] | Deployments | None = None,
        budget: Mapping[str, Any] | Budget | None = None,
        **shared: Any,
    ) -> None:
        parts: list[Any] = list(space) if isinstance(space, list | tuple) else [space]
        if not all(isinstance(part, Mapping) for part in parts):
            raise UserError(
                "the space of a Sweep is a dict, or a list of dicts: Sweep([dict(model='vit', depth=6), ...])"
            )
        everywhere, *own = map(grids.with_listed_grids, (shared, *(parts or [{}])))
        self.parts: tuple[Point, ...] = tuple(grids.with_shared(everywhere, own))
        self.name = "" if name is None else str(name)
        self.resources = checked_resources(resources)
        self.num_samples = scalar(num_samples)
        self.scheduler = scheduler
        self.keep_weights = keep_weights
        check_space(self.parts)
        self.trial_timeout = checked_timeout(trial_timeout)
        self.latency = latency if isinstance(latency, Deployments) else Deployments.of(latency)
        self.budget = Budget.of(budget)
        self.search = search
        self.objectives = tuple(objectives) if isinstance(objectives, list | tuple) else (objectives,)
        check_options(self)
        check_search(self)

    @property
    def size(self) -> int:
        """The number of points; several points may be the same trial."""
        return sum(grids.count_cells(part) for part in self.parts) * self.num_samples

    def points(self) -> Iterator[Point]:
        """Every cell of every part's grid, with its domains drawn, `num_samples` times."""
        if self.size > MOST_TRIALS:
            raise UserError(f"the sweep has {self.size:,} points; {MOST_TRIALS:,} is the most. Narrow a grid")
        for part in self.parts:
            for sample in range(self.num_samples):
                for cell in grids.cells_of(part):
                    yield draw(cell, sample)

    def cells(self) -> Iterator[Point]:
        """Every cell of every part's grid, with its domains undrawn."""
        return itertools.chain.from_iterable(map(grids.cells_of, self.parts))

    def unused(self) -> dict[str, list[str]]:
        """For each model the keys that its parts set and that it does not have: a CNN has no depth."""
        found: dict[str, list[str]] = {}
        for part in self.parts:
            for model in grid(part.get("model")):
                with contextlib.suppress(UserError):  # its points are invalid, and say why
                    known = takes(model)
                    foreign = [key for key in part if part[key] is not None and key not in known]
                    theirs = self._of_others(model, part)
                    found[model] = list(dict.fromkeys([*found.get(model, []), *foreign, *theirs]))
        return {model: keys for model, keys in found.items() if keys}

    def _of_others(self, model: str, part: Point) -> list[str]:
        """The axes that a later version gave the model, where this part sets them for other models only."""
        others = [other for other in self.parts if grids.models_of(other) != {model}]
        later = [key for key in BEFORE.get(model, {}) if any(key in other for other in others)]
        return later if part in others else [key for key in later if key not in part]

    def override(self, changes: Mapping[str, Sequence[Any]]) -> "Sweep":
        """A copy of the sweep with other values for some keys.

        A key whose values in the sweep include all the new ones is narrowed to these, and parts without any
        of them are dropped; any other key is set to the new values in every part.
        """
        shared: dict[str, Any] = {key: values for key, values in changes.items() if key in OPTIONS}
        for key in shared.keys() - {"objectives"}:
            if len(shared[key]) > 1:
                raise UserError(f"{key}= takes one value, not {len(shared[key])}: {shared[key]!r}")
            (shared[key],) = shared[key]
        parts = list(self.parts)
        for key, values in changes.items():
            if key not in OPTIONS:
                parts = grids.narrow(parts, key, values)
        options: dict[str, Any] = {option: getattr(self, option) for option in OPTIONS}
        return Sweep(parts, **{**options, **shared})

    @property
    def measures_first(self) -> bool:
        """Whether latency decides which trials are trained."""
        return self.budget.latency_ms is not None or (self.search is not None and LATENCY in self.objectives)

    def __repr__(self) -> str:
        return f"Sweep({', '.join(f'{dict(part)}' for part in self.parts)}, name={self.name!r})"


def refuse_unmeasured(sweep: Sweep, *, latency: bool) -> None:
    """Raises UserError where latency decides which trials are trained, but measuring is off."""
    if sweep.measures_first and not latency:
        what = "budget: latency_ms" if sweep.budget.latency_ms is not None else f"objectives: {LATENCY}"
        raise UserError(
            f"{what} needs latency to be measured before training; leave --no-latency (latency=False) out"
        )


def check_space(parts: Sequence[Point]) -> None:
    """Raises UserError for an unknown key, an empty grid, or a plain list where a grid was meant."""
    if not any(is_open(model) for part in parts for model in grid(part.get("model"))):
        settable = {axis.name for axis in AXES.values() if axis.settable}
        for key in itertools.chain(*parts):
            if key not in settable:
                known = sorted({*settable, *OPTIONS} - {key})
                hint = did_you_mean(key, known) or f"; known are {', '.join(known)}"
                raise UserError(f"{key!r} is not a key of a sweep{hint}")
    for key, value in itertools.chain.from_iterable(part.items() for part in parts):
        if is_grid(value) and not list(grid(value)):
            raise UserError(f"{key}: the grid is empty; name at least one value")
        if isinstance(value, list | tuple | set | range):
            raise UserError(
                f"{key}={value!r} is a {type(value).__name__}; write tune.grid_search({list(value)!r})"
            )


def check_options(sweep: Sweep) -> None:
    """Raises UserError where `num_samples`, `keep_weights` or `scheduler` is out of range."""
    samples = sweep.num_samples
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise UserError(f"num_samples={samples!r} is out of range; use a whole number from 1")
    if not isinstance(sweep.keep_weights, bool):
        raise UserError(f"keep_weights={sweep.keep_weights!r} is neither True nor False")
    if sweep.scheduler not in (None, "asha"):
        raise UserError(f"scheduler={sweep.scheduler!r} is unknown; use 'asha' or leave it out")


def check_search(sweep: Sweep) -> None:
    """Raises UserError where the options of a search are unknown or contradict others."""
    if sweep.search not in (None, "optuna"):
        raise UserError(f"search={sweep.search!r} is unknown; use 'optuna' or leave it out")
    for key in sweep.objectives:
        if key not in OBJECTIVES:
            hint = did_you_mean(key, OBJECTIVES)
            raise UserError(f"objectives: {key!r} is unknown{hint}; use some of {', '.join(OBJECTIVES)}")
    if not sweep.objectives or len(set(sweep.objectives)) < len(sweep.objectives):
        raise UserError(f"objectives={list(sweep.objectives)} is no set of columns; name each once")
    if sweep.search and sweep.scheduler:
        raise UserError("search='optuna' judges finished trials; leave scheduler='asha' out")
    values = [value for part in sweep.parts for value in part.values()]
    if sweep.search and not any(is_domain(value) and not is_function(value) for value in values):
        raise UserError(
            "search='optuna' has nothing to choose; write a domain, such as depth=tune.randint(1, 9)"
        )


def checked_timeout(seconds: float | None) -> float | None:
    """The most seconds of a trial; None: no limit. Raises UserError for anything but a positive number."""
    seconds = scalar(seconds)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise UserError(f"trial_timeout={seconds!r} is out of range; use a number of seconds above 0")
    return float(seconds)


def checked_resources(resources: Mapping[str, float] | None) -> dict[str, float] | None:
    """What one trial takes, as numbers.

    Raises UserError for anything but a dict of numbers that are not negative.
    """
    if resources is None:
        return None
    if not isinstance(resources, Mapping):
        raise UserError(f"resources={resources!r} is not a dict; write resources={{'cpu': 1, 'gpu': 0.25}}")
    resources = {key: scalar(amount) for key, amount in resources.items()}
    for key, amount in resources.items():
        if not isinstance(key, str):
            raise UserError(f"resources: {key!r} is no name of a resource; write resources={{'cpu': 1}}")
        if (right := key.lower().rstrip("s")) in ("cpu", "gpu") and key != right:
            raise UserError(f"resources: {key!r} is written {right!r}")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
            raise UserError(f"resources: {key}={amount!r} is out of range; use a number from 0")
        if key == "cpu" and amount == 0:
            raise UserError("resources: cpu=0 is out of range; every trial takes some, such as 0.5 or 1")
    return {"cpu": 1, **resources}
