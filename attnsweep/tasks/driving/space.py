"""Driving: which planner takes which axes, and which stages of the planning stack fit together."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attnsweep.core.axes import Config, Value, filled
from attnsweep.core.errors import UserError
from attnsweep.tasks import own
from attnsweep.tasks.driving import datasets
from attnsweep.tasks.driving.axes import KNOWN
from attnsweep.tasks.driving.stack import design

if TYPE_CHECKING:
    from attnsweep.tasks.driving.records.scenes import Source

DEFAULT_DATASET = "driving:small"
WITH_CAMERAS = "driving:small+cameras"
RECIPE = ("seed",)
TRAINING = (
    "dropout", "optimizer", "lr", "warmup_steps", "weight_decay", "batch_size", "epochs", "precision"
)  # fmt: skip
SIZES = ("depth", "heads", "dim", "mlp_dim", "attention")
MODELS: dict[str, tuple[str, ...]] = {
    "planning": (*SIZES, *design.CHOICES, *TRAINING),
    "ego_mlp": ("depth", "dim", *TRAINING),
    "route_mlp": ("depth", "dim", *TRAINING),
    "stop": (),
    "constant_velocity": (),
    "route_following": (),
    "steady": (),
    "expert": (),
}
OF_MODELS = {name: KNOWN[name] for name in (*RECIPE, *itertools.chain(*MODELS.values()))}
OWN_RECIPE = TRAINING[1:]  # dropout is for the class to take
RECIPE_DEFAULTS: dict[str, Value] = {
    "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01, "warmup_steps": 100, "batch_size": 32,
    "epochs": 6,
}  # fmt: skip
DEFAULTS = design.DEFAULTS | RECIPE_DEFAULTS


def complete(point: Mapping[str, object], model: str) -> Config:
    """The configuration of a planner. Raises UserError where a value does not fit."""
    if own.is_own(model):
        return complete_own(point, model)
    config = filled(KNOWN, (*MODELS[model], *RECIPE), point, DEFAULTS)
    if config.get("sensor") == "cameras":
        return config | design.complete(config) | {"dataset": camera_set(point)}
    config["dataset"] = scenes_of(point).name
    if model == "planning":
        return config | design.complete(config)
    if not MODELS[model]:
        config |= {"epochs": 1, "precision": "fp32"}  # nothing to learn: judged once
    return config


def complete_own(point: Mapping[str, object], model: str) -> Config:
    """The configuration of a planner of one's own; it sees what its data set was recorded with."""
    return own.complete(
        point,
        model,
        axes=OF_MODELS,
        recipe=(*OWN_RECIPE, *RECIPE),
        of_data=of_scenes,
        task_defaults=lambda point: RECIPE_DEFAULTS,
    )


def of_scenes(point: Mapping[str, object]) -> Config:
    """The columns that the data set decides."""
    found = scenes_of(point)
    return {"dataset": found.name, "sensor": "cameras" if found.cameras else None}


def scenes_of(point: Mapping[str, object], *, default: str = DEFAULT_DATASET) -> "Source":
    """The point's scenes. Raises UserError where there are none of that name."""
    name = point.get("dataset")
    found = datasets.find(default if name is None else str(name))
    if found is None:
        raise UserError(f"dataset={name!r} has no scenes; use dataset={DEFAULT_DATASET!r}")
    return found.source


def camera_set(point: Mapping[str, object]) -> str:
    """The name of the point's scenes, recorded with cameras. Raises UserError where they were not."""
    found = scenes_of(point, default=WITH_CAMERAS)
    name = found.name
    if found.cameras:
        return name
    instead = f"{name}+cameras" if name.startswith("driving:") else WITH_CAMERAS
    raise UserError(
        f"dataset={name!r} has no cameras' views, which sensor='cameras' reads; use dataset={instead!r} or "
        "sensor='lidar'"
    )
