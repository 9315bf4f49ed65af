"""Points of the ego's frame as tokens know them: coded as vectors, and read off a map of features.

Shapes: b examples, n points, c channels, d the width of a token; metres.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.nn.attention import linear
from attnsweep.tasks.driving.world.sensor import GRID, Grid

SIDE = GRID.cells * GRID.size  # m
WAVES = tuple(2.0**k for k in range(1, 8))  # m: the wave lengths of the code, up to twice the side


class PositionEmbedding(nn.Module):
    """Points (..., k) to vectors (..., d): sines and cosines of their coordinates, then a linear layer."""

    def __init__(self, dim: int, *, coordinates: int = 2) -> None:
        super().__init__()
        self.frequency: Tensor
        self.register_buffer("frequency", 2 * math.pi / torch.tensor(WAVES), persistent=False)
        self.to_token = linear(2 * len(WAVES) * coordinates, dim)

    def forward(self, points: Float[Tensor, "*n k"]) -> Float[Tensor, "*n d"]:
        angle = (points[..., None] * self.frequency).flatten(-2)
        return self.to_token(torch.cat([angle.sin(), angle.cos()], dim=-1))


def centres(cells: int) -> Tensor:
    """The middles (cells * cells, 2) of the cells of a coarser grid over the sample's, row by row."""
    return torch.from_numpy(Grid(cells, SIDE / cells).centres()).float().flatten(0, 1)


def read(features: Float[Tensor, "b c g g"], points: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n c"]:
    """The features of a map at points, between the cells' middles; zeros off the map."""
    row, column = (points[..., 0] - GRID.back) / SIDE, points[..., 1] / SIDE + 0.5
    at = torch.stack([column, row], dim=-1) * 2 - 1
    found = F.grid_sample(features, at[:, :, None].to(features.dtype), align_corners=False)
    return found[..., 0].mT
