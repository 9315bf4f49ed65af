"""From points to trials: their tasks complete and check them; here they get their cost and ids."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attnsweep.core.axes import Config
from attnsweep.core.cost import Cost
from attnsweep.core.errors import UserError
from attnsweep.core.labels import model_name
from attnsweep.core.source import Source
from attnsweep.core.trial import Invalid, Trial, short_hash
from attnsweep.space.grid import Point
from attnsweep.tasks import own
from attnsweep.tasks.registry import AXES, REVISED_MODELS, TASKS, architecture, before, dataset_of, resolve

NOT_IN_IDS = {name for name, axis in AXES.items() if axis.shorthand or axis.names_file}


def expand(points: Iterable[Point], data_dir: Path) -> tuple[list[Trial], list[Invalid]]:
    """The distinct trials of the points, in order, and the invalid points."""
    trials: dict[str, Trial] = {}
    invalid: list[Invalid] = []
    for point in points:
        try:
            trial = trial_at(point, data_dir)
        except UserError as error:
            invalid.append(Invalid(point, str(error)))
        else:
            trials.setdefault(trial.trial_id, trial)
    return list(trials.values()), invalid


def trial_at(point: Point, data_dir: Path) -> Trial:
    """The trial of a point. Raises UserError where the point is invalid, or the trial could not begin."""
    trial = make_trial(resolve(point), data_dir)
    if check := TASKS[trial.config["task"]].check:
        check(trial)
    return trial


def make_trial(config: Config, data_dir: Path, *, trusted: bool = False) -> Trial:
    """The trial of a full configuration, with ids and cost; `trusted` as in `own.source_of`."""
    dataset = dataset_of(config)
    data_sha256, task = dataset.checksum(data_dir), TASKS[config["task"]]
    numerics = task.numerics + task.revision(config)
    identity = identity_of(config)
    if dataset.is_folder:
        identity["dataset"] = "folder"
    source = own.source_of(config, trusted=trusted)
    amount = cost_of(config, source)
    return Trial(
        trial_id=short_hash({"numerics": numerics, "data_sha256": data_sha256, **identity}),
        arch_id=arch_id_of(config),
        config=config,
        data_sha256=data_sha256,
        params=amount.params,
        macs=amount.macs,
        numerics=numerics,
        source=source,
        data_columns=task.data_columns(dataset),
        cost_columns=task.cost_columns(config),
    )


def identity_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that goes into ids. It has no paths: a file is the same wherever it is."""
    model = config["model"]
    name = model_name(model) if own.is_own(model) else model
    identity = {**config, "model": name, "revision": REVISED_MODELS.get(model)}
    known = before(config)
    return {key: one for key, one in identity.items() if known.get(key) != one and key not in NOT_IN_IDS}


def arch_id_of(config: Mapping[str, Any]) -> str:
    """The id of a configuration's architecture."""
    return short_hash(architecture(identity_of(config)))


def cost_of(config: Config, source: Source | None = None) -> Cost:
    """Parameters and MACs of an architecture, in closed form or by building it, which imports torch. `source`
    is the code of a user's own model.

    Raises UserError where it cannot be built.
    """
    if closed := TASKS[config["task"]].cost(config):
        return closed
    from attnsweep.tasks.counting import counted  # here: torch takes seconds to import

    return counted(config, source or own.source_of(config))
