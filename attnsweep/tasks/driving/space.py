"""Driving: which planner takes which axes, and which stages of the planning stack fit together."""

from collections.abc import Mapping

from attnsweep.core.axes import Config, Value, filled
from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.stack import design
from attnsweep.tasks.images import datasets

NAME = "driving"
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
DEFAULTS: dict[str, Value] = {
    **design.DEFAULTS,
    "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01, "warmup_steps": 100, "batch_size": 32,
    "epochs": 6,
}  # fmt: skip


def complete(point: Mapping[str, object], model: str) -> Config:
    """The configuration of a planner. Raises UserError where a value does not fit."""
    config = filled((*MODELS[model], *RECIPE), point, DEFAULTS)
    config |= {"task": NAME, "model": model}
    if config["sensor"] == "cameras":
        return config | design.complete(config) | {"dataset": camera_set(point)}
    config["dataset"] = scene_set(point)
    if model == "planning":
        return config | design.complete(config)
    if not MODELS[model]:
        config |= {"epochs": 1, "precision": "fp32"}  # nothing to learn: judged once
    return config


def scene_set(point: Mapping[str, object], *, default: str = "driving:small") -> str:
    """The name of the point's scenes. Raises UserError where it has none."""
    name = point.get("dataset")
    found = datasets.find(default if name is None else name)
    if not datasets.has_scenes(found):
        raise UserError(
            f"dataset={name!r} has no scenes for {point.get('model')}; use dataset='driving:small'"
        )
    return found.name


def camera_set(point: Mapping[str, object]) -> str:
    """The name of the point's scenes, recorded with cameras. Raises UserError where they were not."""
    name = scene_set(point, default="driving:small+cameras")
    if datasets.scene_set(name).cameras:
        return name
    instead = f"{name}+cameras" if name.startswith("driving:") else "driving:small+cameras"
    raise UserError(
        f"dataset={name!r} has no cameras' views, which sensor='cameras' reads; use dataset={instead!r} or "
        "sensor='lidar'"
    )
