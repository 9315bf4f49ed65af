"""Oriented boxes x, y, yaw, length, width as tensors: how far they lie apart, with a gradient."""

import torch
from torch import Tensor


def separation(one: Tensor, other: Tensor) -> Tensor:
    """The largest gap (...) between boxes (..., 5) and (..., 5) along their own axes; below zero where they
    overlap, and by how much the least push parts them.

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


def penetration(plan: Tensor, size: Tensor, others: Tensor, *, inflation: float = 0.0) -> Tensor:
    """How deep (b, t, n) the ego of a size (b, 2), grown by `inflation` metres all in all in length and in
    width, would be in boxes (b, t, n, 5) on its way (b, t, 3).
    """
    grown = (size + inflation)[:, None].expand(-1, plan.shape[1], -1)
    ego = torch.cat([plan, grown], dim=-1)
    return -separation(ego[:, :, None], others).clamp(max=0)
