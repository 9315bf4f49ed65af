"""From recorded samples to batches of tensors."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnsweep.tasks.driving.records.samples import Samples
from attnsweep.tasks.driving.world.cameras import Rig

INPUTS = ("bev", "route", "command", "ego_state")
SENSORS = {"lidar": "bev", "cameras": "cams"}  # what each gives, which the stack takes first
SHAPES = {"bev": (6, 64, 64), "cams": (6, 3, 64, 112)}  # of one sample's
LABELS = (
    *("box", "velocity", "mask", "future", "future_mask", "lines", "line_kind", "map", "depth", "occupancy"),
    *("plan", "plan_mask", "future_boxes", "future_boxes_mask", "size"),
)


def offsets(samples: Samples) -> Samples:
    """`offset` (n, 24, 2) of each agent, where it was a key frame before less where it is, and `offset_mask`
    (n, 24), whether it was seen then: of all samples of a part.
    """
    before = samples["previous"].astype(np.int64)
    same = samples["id"][:, :, None] == samples["id"][before][:, None]  # (n, now, then)
    taken = samples["mask"].astype(bool)
    same &= taken[:, :, None] & taken[before][:, None] & (before >= 0)[:, None, None]
    then = np.take_along_axis(samples["box"][before][..., :2], same.argmax(axis=2)[..., None], axis=1)
    x, y, yaw = samples["motion"].T[..., None]
    cos, sin = np.cos(yaw), np.sin(yaw)
    here = np.stack(
        [x + cos * then[..., 0] - sin * then[..., 1], y + sin * then[..., 0] + cos * then[..., 1]], axis=-1
    )
    known = same.any(axis=2)
    moved = np.where(known[..., None], here - samples["box"][..., :2], 0)
    return {"offset": moved.astype(np.float32), "offset_mask": known}


def inputs_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The arrays of a sample that the planner of a configuration reads, in the order of its arguments."""
    sensor = config.get("sensor")
    return (SENSORS[sensor], *INPUTS[1:]) if sensor else INPUTS


def rig_of(config: Mapping[str, Any]) -> Rig | None:
    """The cameras whose views the planner of a configuration reads; None where it reads none."""
    return Rig() if config.get("sensor") == "cameras" else None


def tensors(samples: Samples, inputs: Iterable[str] = INPUTS) -> dict[str, Tensor]:
    """All that the stack and its losses read of a part, as tensors over the same memory."""
    arrays = {name: samples[name] for name in (*inputs, *LABELS)} | offsets(samples)
    return {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


def rows(part: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """The examples (b,) of a part."""
    return {name: array[index] for name, array in part.items()}
