"""Oriented boxes x, y, yaw, length, width as tensors: how deep they lie in one another, with a gradient."""

import torch
from jaxtyping import Float
from torch import Tensor

from attnsweep.tasks.driving.world.geometry import separation


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
    apart: Tensor = separation(ego[:, :, None], others, xp=torch)
    return -apart.clamp(max=0)
