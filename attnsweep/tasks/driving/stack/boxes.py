"""Oriented boxes x, y, yaw, length, width as tensors: how far they lie apart, with a gradient."""

import torch
from jaxtyping import Float
from torch import Tensor


def separation(one: Float[Tensor, "*#n 5"], other: Float[Tensor, "*#n 5"]) -> Float[Tensor, "*n"]:
    """The largest gap between boxes along their own axes; below zero where they overlap, and by how much
    the least push parts them.

    By the theorem of the separating axis, as `geometry.separation`, which has no gradient.
    """
    dx, dy = other[..., 0] - one[..., 0], other[..., 1] - one[..., 1]
    turn = other[..., 2] - one[..., 2]
    cos, sin = turn.cos().abs(), turn.sin().abs()
    gaps = []
    for box, rest in ((one, other), (other, one)):
        c, s = box[..., 2].cos(), box[..., 2].sin()
        length, width = rest[..., 3], rest[..., 4]
        gaps.append((c * dx + s * dy).abs() - (box[..., 3] + cos * length + sin * width) / 2)
        gaps.append((c * dy - s * dx).abs() - (box[..., 4] + sin * length + cos * width) / 2)
    return torch.stack(gaps).amax(dim=0)


def penetration(
    plan: Float[Tensor, "b t 3"],
    size: Float[Tensor, "b 2"],
    others: Float[Tensor, "b t n 5"],
    *,
    inflation: float = 0.0,
) -> Float[Tensor, "b t n"]:
    """How deep an ego that is `inflation` metres longer and wider would be in boxes on its way."""
    grown = (size + inflation)[:, None].expand(-1, plan.shape[1], -1)
    ego = torch.cat([plan, grown], dim=-1)
    return -separation(ego[:, :, None], others).clamp(max=0)
