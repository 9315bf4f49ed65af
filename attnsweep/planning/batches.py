"""From recorded samples to batches of tensors, and how training makes more of them."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnsweep.planning.samples import LEFT, RIGHT, STRAIGHT, Samples

INPUTS = ("bev", "route", "command", "ego_state")
LABELS = (
    *("box", "velocity", "mask", "future", "future_mask", "lines", "line_kind", "map", "depth", "occupancy"),
    *("plan", "future_boxes", "future_boxes_mask", "size"),
)
STANDING = 0.5  # m; an expert that goes less far in 4 s stands
ACROSS = {  # the entries along the last axis that a mirror turns round
    "route": (1,),
    "ego_state": (2, 3, 4),
    "box": (1, 3),
    "velocity": (1,),
    "offset": (1,),
    "future": (1,),
    "lines": (1,),
    "plan": (1, 2),
    "future_boxes": (1, 2),
    "pose": (1, 2),
    "motion": (1, 2),
}
GRIDS = ("bev", "map", "depth", "occupancy")  # whose last axis runs along y


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


def tensors(samples: Samples) -> dict[str, Tensor]:
    """All that the stack and its losses read of a part, as tensors over the same memory."""
    arrays = {name: samples[name] for name in (*INPUTS, *LABELS)} | offsets(samples)
    return {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


def rows(part: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """The examples (b,) of a part."""
    return {name: array[index] for name, array in part.items()}


def mirrored(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with left and right exchanged; twice is as it was."""
    turned = {name: array.flip(-1) if name in GRIDS else array for name, array in batch.items()}
    for name, entries in ACROSS.items():
        if name in turned:
            sign = turned[name].new_ones(turned[name].shape[-1])
            sign[list(entries)] = -1
            turned[name] = turned[name] * sign
    if "command" in turned:
        command = turned["command"]
        other = torch.where(command == LEFT, RIGHT, LEFT).to(command.dtype)
        turned["command"] = torch.where(command == STRAIGHT, command, other)
    return turned


def balance(samples: Samples) -> NDArray[np.float64]:
    """The weights (n,) with which to draw samples so that those that stand, yield, turn and go straight on
    come equally often; their sum is 1.
    """
    stands = np.hypot(*samples["plan"][:, -1, :2].T) < STANDING
    yields, turns = (samples[name].astype(bool) for name in ("is_interactive", "is_turn"))
    kind = np.where(stands, 0, np.where(yields, 1, np.where(turns, 2, 3)))
    count = np.bincount(kind, minlength=4)
    share = 1 / np.maximum(count, 1) / (count > 0).sum()
    return share[kind]
