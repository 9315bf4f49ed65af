"""What to run: a sweep is a search space and a budget; it expands into trials, which are checked and named
before any starts.

The space is written in Ray Tune's words. They are recognised by their shape (`tune.grid_search` gives a plain
dict, domains have `sample`), so that reading and checking a sweep needs neither Ray nor torch.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import math
import runpy
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core.axes import AXES, DERIVED, NOT_ARCHITECTURE, Config, Value, fewest, model_name
from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.tasks.cost import CLOSED_FORMS, Cost, cost
from attnsweep.tasks.images import datasets, own
from attnsweep.tasks.resolve import resolve, takes

if TYPE_CHECKING:
    import numpy as np

NUMERICS = (
    2  # raised when a change to the package changes what a trial computes: finished trials then run again
)
SINCE = {  # axes that came later, and what all trials had before: they change no id
    "attention": "explicit",
    "sensor": "lidar",
}
MOST_TRIALS = 100_000
OPTIONS = ("name", "resources", "num_samples", "scheduler", "search", "objectives", "keep_weights")
OBJECTIVES = {"val_acc": "maximize", "val_loss": "minimize", "params": "minimize", "macs": "minimize"}
WORDS = {"none": None, "null": None, "true": True, "false": False}  # of the command line
Point = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One fully specified point. Two trials with one `trial_id` have one result."""

    trial_id: str
    arch_id: str
    config: Config
    data_sha256: str
    params: int
    macs: int
    source: str | None = None  # the text of the file of one's own model, for workers that have no such file

    def __deepcopy__(self, memo: dict[int, Any]) -> "Trial":
        """Itself: it does not change, and Tune copies it several times."""
        return self

    def row(self) -> dict[str, Any]:
        """What the trials table says of it before it has run."""
        ids = {"trial_id": self.trial_id, "arch_id": self.arch_id}
        return {
            **ids,
            **self.config,
            "params": self.params,
            "macs": self.macs,
            "data_sha256": self.data_sha256,
        }


@dataclass(frozen=True)
class Invalid:
    """A point that cannot be a trial, and why."""

    point: Point
    reason: str


class Sweep:
    """A search space and how to run it.

    `space` is a dict, or a list of dicts whose union is swept; a value is a constant,
    `tune.grid_search([...])` or one of Ray Tune's domains. Further keywords hold for every part of the union;
    a part's own value wins.

    `resources` is what one trial takes, such as `{"cpu": 1, "gpu": 0.25}`. By default one CPU, and a quarter
    of a GPU where there are GPUs. `num_samples` is how often domains are drawn for each cell of the grid:
    sample i of a key is the same in every cell and every run. `scheduler="asha"` stops trials early,
    comparing those of one model and data set only. `keep_weights=True` leaves the weights of each trial's
    selected epoch in runs/TRIAL_ID/weights.pt, on the machine that trained it.

    `search="optuna"` has Optuna choose in the domains, for each cell of the grid by itself, until it has
    `num_samples` trials that are good in the `objectives`: columns of `trials`, of which accuracy is to be
    high and losses, parameters and MACs are to be low; of several, the trade-off is searched.

    Raises UserError where a key is unknown, a grid is empty or an option is out of range.
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
        **shared: Any,
    ) -> None:
        parts: list[Any] = list(space) if isinstance(space, list | tuple) else [space]
        if not all(isinstance(part, Mapping) for part in parts):
            raise UserError(
                "the space of a Sweep is a dict, or a list of dicts: Sweep([dict(model='vit', depth=6), ...])"
            )
        self.parts: tuple[Point, ...] = tuple(fixed({**shared, **part}) for part in parts or [{}])
        self.name = "" if name is None else str(name)
        self.resources = checked_resources(resources)
        self.num_samples = num_samples
        self.scheduler = scheduler
        self.keep_weights = keep_weights
        if not any(own.is_own(model) for part in self.parts for model in grid(part.get("model"))):
            for key in dict.fromkeys(itertools.chain(*self.parts)):
                check_key(key)
        for part in self.parts:
            for key, value in part.items():
                check_value(key, value)
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
            raise UserError(f"num_samples={num_samples!r} is out of range; use a whole number from 1")
        if not isinstance(keep_weights, bool):
            raise UserError(f"keep_weights={keep_weights!r} is neither True nor False")
        if scheduler not in (None, "asha"):
            raise UserError(f"scheduler={scheduler!r} is unknown; use 'asha' or leave it out")
        self.search = search
        self.objectives = (objectives,) if isinstance(objectives, str) else tuple(objectives)
        check_search(self)

    def points(self) -> Iterator[Point]:
        """Every cell of every part's grid, `num_samples` times, with the domains drawn."""
        total = sum(cells(part) for part in self.parts) * self.num_samples
        if total > MOST_TRIALS:
            raise UserError(f"the sweep has {total:,} points; {MOST_TRIALS:,} is the most. Narrow a grid")
        for part in self.parts:
            for sample in range(self.num_samples):
                for cell in crossed(part):
                    yield draw(cell, sample)

    def cells(self) -> Iterator[Point]:
        """Every cell of every part's grid, its domains as they are."""
        return itertools.chain.from_iterable(map(crossed, self.parts))

    def unused(self) -> dict[str, list[str]]:
        """For each model the keys that stand beside it and mean nothing to it: a CNN has no depth."""
        found: dict[str, list[str]] = {}
        for part in self.parts:
            for model in grid(part.get("model")):
                with contextlib.suppress(UserError):  # its points are invalid, and say why
                    known = takes(model)
                    strangers = [key for key in part if part[key] is not None and key not in known]
                    found[model] = list(dict.fromkeys([*found.get(model, []), *strangers]))
        return {model: keys for model, keys in found.items() if keys}

    def override(self, changes: Mapping[str, Sequence[Any]]) -> "Sweep":
        """The sweep with other values for some keys.

        Where the sweep's own values of a key include all that are named, its parts are narrowed to them (and
        parts that have none of them are dropped); otherwise the key is set to them everywhere.
        """
        shared = {key: values[-1] for key, values in changes.items() if key in OPTIONS}
        if "objectives" in changes:
            shared["objectives"] = changes["objectives"]
        parts = list(self.parts)
        for key, values in changes.items():
            if key not in OPTIONS:
                parts = narrow(parts, key, values)
        options: dict[str, Any] = {option: getattr(self, option) for option in OPTIONS}
        return Sweep(parts, **{**options, **shared})

    def __repr__(self) -> str:
        return f"Sweep({', '.join(f'{dict(part)}' for part in self.parts)}, name={self.name!r})"


def check_key(key: str) -> None:
    """Raises UserError for a key that no trial has."""
    if key not in AXES or key in DERIVED:
        known = sorted({*AXES, *OPTIONS} - {*DERIVED, key})
        hint = did_you_mean(key, known) or f"; known are {', '.join(known)}"
        raise UserError(f"{key!r} is not a key of a sweep{hint}")


def check_value(key: str, value: object) -> None:
    """Raises UserError for an empty grid, or a plain list where a grid was meant."""
    if is_grid(value) and not list(grid(value)):
        raise UserError(f"{key}: the grid is empty; name at least one value")
    if isinstance(value, list | tuple | set | range):
        raise UserError(
            f"{key}={value!r} is a {type(value).__name__}; write tune.grid_search({list(value)!r})"
        )


def check_search(sweep: Sweep) -> None:
    """Raises UserError where the options of a search are unknown, or do not fit the others."""
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
    if sweep.search and not any(is_domain(value) for part in sweep.parts for value in part.values()):
        raise UserError(
            "search='optuna' has nothing to choose; write a domain, such as depth=tune.randint(1, 9)"
        )


def checked_resources(resources: Mapping[str, float] | None) -> dict[str, float] | None:
    """What one trial takes, as numbers.

    Raises UserError for anything but a dict of numbers that are not negative.
    """
    if resources is None:
        return None
    if not isinstance(resources, Mapping):
        raise UserError(f"resources={resources!r} is not a dict; write resources={{'cpu': 1, 'gpu': 0.25}}")
    for key, amount in resources.items():
        if (right := key.lower().rstrip("s")) in ("cpu", "gpu") and key != right:
            raise UserError(f"resources: {key!r} is written {right!r}")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
            raise UserError(f"resources: {key}={amount!r} is out of range; use a number from 0")
    return {"cpu": 1, **resources}


def fixed(part: Mapping[str, Any]) -> Point:
    """The part with each grid as a list: `tune.grid_search` takes an iterator too, which can be read once."""
    return {key: {"grid_search": grid(value)} if is_grid(value) else value for key, value in part.items()}


def is_grid(value: object) -> bool:
    """Whether `value` was made by `tune.grid_search`."""
    return isinstance(value, Mapping) and set(value) == {"grid_search"}


def is_domain(value: object) -> bool:
    """Whether `value` is one of Ray Tune's domains (`tune.choice`, `tune.loguniform`, ...)."""
    return hasattr(value, "sample")


def grid(value: Any) -> list[Any]:
    """The values to go through: those of a grid, else the one."""
    return list(value["grid_search"]) if is_grid(value) else [value]


def cells(part: Point) -> int:
    """The number of cells in the grid of one part."""
    return functools.reduce(lambda product, value: product * len(grid(value)), part.values(), 1)


def crossed(part: Point) -> Iterator[Point]:
    """Every cell of one part's grid."""
    for values in itertools.product(*(grid(value) for value in part.values())):
        yield dict(zip(part, values, strict=True))


def draw(cell: Point, sample: int) -> Point:
    """The cell with its domains drawn; functions of the others (`tune.sample_from`) come last."""
    domains = sorted(
        (key for key in cell if is_domain(cell[key])), key=lambda key: hasattr(cell[key], "func")
    )
    drawn = {key: value for key, value in cell.items() if key not in domains}
    for key in domains:
        seed = int.from_bytes(hashlib.sha256(f"{key}:{sample}".encode()).digest()[:4])
        drawn[key] = cell[key].sample(config=dict(drawn), random_state=seeded(seed))
    return drawn


@functools.cache
def generator() -> "np.random.RandomState":
    """One for all draws: making one takes 80 us, seeding it 1 us."""
    import numpy as np

    return np.random.RandomState()


def seeded(seed: int) -> "np.random.RandomState":
    """The generator at the beginning of the stream of a seed."""
    generator().seed(seed)
    return generator()


def narrow(parts: Sequence[Point], key: str, values: Sequence[Any]) -> list[Point]:
    """The parts with `key` narrowed to `values`, or set to them; see `Sweep.override`."""
    own = [value for part in parts if key in part and not is_domain(part[key]) for value in grid(part[key])]
    if not all(value in own for value in values):
        return [{**part, key: {"grid_search": list(values)}} for part in parts]
    kept = []
    for part in parts:
        if key in part and is_domain(part[key]):
            kept.append({**part, key: {"grid_search": list(values)}})
        elif key in part:
            left = [value for value in grid(part[key]) if value in values]
            kept += [{**part, key: {"grid_search": left}}] if left else []
        else:
            kept.append(part)
    return kept


def expand(points: Iterable[Point], data_dir: Path) -> tuple[list[Trial], list[Invalid]]:
    """The distinct trials among the points, in their order, and the points that are invalid."""
    trials: dict[str, Trial] = {}
    invalid: list[Invalid] = []
    for point in points:
        try:
            trial = make_trial(resolve(point), data_dir)
        except UserError as error:
            invalid.append(Invalid(point, str(error)))
        else:
            trials.setdefault(trial.trial_id, trial)
    return list(trials.values()), invalid


def make_trial(config: Config, data_dir: Path) -> Trial:
    """The trial of a configuration in full, with its ids and its cost."""
    dataset = datasets.find(config["dataset"])
    data_sha256 = datasets.checksum(dataset, data_dir)
    identity = identity_of(config)
    if dataset.is_folder:
        identity["dataset"] = "folder"
    amount = cost_of(config)
    return Trial(
        trial_id=short_hash({"numerics": NUMERICS, "data_sha256": data_sha256, **identity}),
        arch_id=arch_id_of(config),
        config=config,
        data_sha256=data_sha256,
        params=amount.params,
        macs=amount.macs,
        source=own.source_of(config),
    )


def identity_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration goes into ids: a model's file is the same one wherever it lies."""
    identity = {**config, "model": model_name(config["model"])}
    return {key: value for key, value in identity.items() if SINCE.get(key) != value}


def arch_id_of(config: Mapping[str, Any]) -> str:
    """The id of the architecture that a configuration describes."""
    identity = identity_of(config)
    return short_hash({key: value for key, value in identity.items() if key not in NOT_ARCHITECTURE})


def cost_of(config: Config) -> Cost:
    """Parameters and MACs of an architecture: by its closed form, else as it is built, which imports torch.

    Raises UserError where it cannot be built.
    """
    if config["model"] in CLOSED_FORMS:
        return cost(config)
    from attnsweep.measuring.measure import counted

    return counted(config)


def short_hash(content: Mapping[str, Any]) -> str:
    """The first 12 hex digits of a SHA-256 over canonical JSON; nulls are left out, so that a new column
    changes no id.
    """
    known = {key: value for key, value in content.items() if value is not None}
    return hashlib.sha256(json.dumps(known, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def varying(trials: Sequence[Trial]) -> list[str]:
    """The columns in which trials of one model and data set differ, and those two where they do."""
    seen: dict[tuple[str, ...], set[Value]] = defaultdict(set)
    for trial in trials:
        for key, value in trial.config.items():
            group = () if key in ("model", "dataset") else (trial.config["model"], trial.config["dataset"])
            seen[*group, key].add(value)
    several = {group[-1] for group, values in seen.items() if len(values) > 1}

    def names(keys: Sequence[str]) -> int:
        return len({tuple(trial.config[key] for key in keys) for trial in trials})

    keys = [key for key in AXES if key in several]
    dispensable = [key for key in keys if key not in ("model", "dataset")]
    derived_first = sorted(
        reversed(dispensable), key=lambda key: AXES[key].default is not None and key != "dim_head"
    )
    return fewest(keys, derived_first, names)


def label(trial: Trial, keys: Sequence[str]) -> str:
    """A short name of a trial: its model, then those of `keys` that it has, such as `vit depth=4 seed=1`."""
    known = [key for key in keys if key != "model" and trial.config[key] is not None]
    return " ".join(
        [worded("model", trial.config["model"]), *(worded(key, trial.config[key]) for key in known)]
    )


def worded(key: str, value: Any) -> str:
    """What a label says of one value of the configuration."""
    if key == "model_args":
        return " ".join(f"{name}={short(one)}" for name, one in json.loads(value).items())
    if key == "model":
        return model_name(value)
    return str(value) if key == "dataset" else f"{key}={short(value)}"


def short(value: object) -> str:
    """A value as people write it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parse_override(text: str) -> tuple[str, list[Any]]:
    """`seed=0,1,2` as ("seed", [0, 1, 2]). Raises UserError where there is no `=` or no value."""
    key, sign, values = text.partition("=")
    if not sign or not values:
        raise UserError(f"{text!r} is not an override; write key=value, such as epochs=2 or seed=0,1,2")
    return key, [literal(value) for value in values.split(",")]


def literal(text: str) -> Any:
    """A word of the command line as a number where it is one, or None, True or False."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_sweep(path: str | Path) -> Sweep:
    """The variable `sweep` of a sweep file, named after it. Raises UserError where the file gives none."""
    path = Path(path)
    if not path.is_file():
        near = did_you_mean(path.stem, [other.stem for other in path.parent.glob("*.py")])
        raise UserError(f"there is no sweep file {path}{near}")
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}{line_of(error, path)}: {reason(error)}") from error
    if not isinstance(names.get("sweep"), Sweep):
        found = (
            "defines no variable `sweep`"
            if "sweep" not in names
            else f"sets sweep to a {type(names['sweep']).__name__}"
        )
        raise UserError(
            f"{path} {found}; write: from attnsweep import Sweep; sweep = Sweep(model='vit', depth=6)"
        )
    sweep: Sweep = names["sweep"]
    sweep.parts = tuple(beside(part, path.parent) for part in sweep.parts)
    return sweep if sweep.name else sweep.override({"name": [path.stem]})


def own_files(sweep: Sweep) -> list[Path]:
    """The files of the user's own models in a sweep."""
    models = itertools.chain.from_iterable(grid(part.get("model")) for part in sweep.parts)
    return list(dict.fromkeys(Path(own.split(model)[0]) for model in models if own.is_own(model)))


def beside(part: Point, folder: Path) -> Point:
    """The part with the files of a user's own models looked for in the folder of the sweep file first."""
    models = grid(part.get("model"))
    if not any(map(own.is_own, models)):
        return part
    found = [own.located(one, folder) if own.is_own(one) else one for one in models]
    return {**part, "model": {"grid_search": found}}


def line_of(error: BaseException, path: Path) -> str:
    """`:LINE` of the sweep file where the error arose."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f":{lines[-1]}" if lines else ""


def reason(error: BaseException) -> str:
    """The error as one line: a user's mistake as its sentence, anything else with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
