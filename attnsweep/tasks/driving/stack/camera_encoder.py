"""From the cameras' views to features seen from above: the spatial cross-attention of BEVFormer
(https://arxiv.org/abs/2203.17270, section 3.3, eq. 2), of the present frame alone.

Points stand above every cell of the fine map, at a few heights. Where each lies in the views is fixed with
the rig, so it is worked out once. BEVFormer learns offsets around each such place and takes the mean over the
views that see the point; here a cell attends to what its places show, and since the cameras of a rig stand at
one point, so that two views of a point show the same, each point is looked up in one view.

Shapes: b examples, v views, n cells, z heights, d the width of a token, c = d // 2 channels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from attnsweep.nn.attention import MultiHeadAttention, linear
from attnsweep.nn.blocks import Residual
from attnsweep.tasks.driving.stack.encoder import FINE, Above, Features, convolution
from attnsweep.tasks.driving.stack.places import SIDE, PositionEmbedding
from attnsweep.tasks.driving.world.cameras import Rig, pixels_of
from attnsweep.tasks.driving.world.geometry import Flags, Floats
from attnsweep.tasks.driving.world.sensor import Grid

HEIGHTS = (0.0, 0.75, 1.5)  # m above the ground: the road, the middle of a car and its roof
NEAREST = 0.1  # m, the least depth at which a camera sees
STRIDE = 2, 4  # pixels down and across: how far off the ground is tells by the row


class CameraEncoder(nn.Module):
    """Convolutions over each view, attention of cells to their places in the views, and `Above` of that."""

    def __init__(self, config: Mapping[str, Any], rig: Rig | None = None) -> None:
        super().__init__()
        dim, width = config["dim"], config["dim"] // 2
        self.trunk = nn.Sequential(convolution(3, width, stride=STRIDE), convolution(width, width))
        self.deeper = nn.Sequential(convolution(width, dim, stride=2), convolution(dim, dim))
        self.to_key = linear(width + dim, dim)
        self.height = nn.Parameter(torch.randn(len(HEIGHTS), dim) * dim**-0.5)
        self.to_query = PositionEmbedding(dim)
        self.attention = MultiHeadAttention(dim, heads=config["heads"], attention=config["attention"])
        self.around = Residual(dim, norm="pre", dropout=config["dropout"])
        self.to_near = convolution(dim, width)
        self.above = Above(config)
        cells = Grid(FINE, SIDE / FINE).centres().reshape(-1, 2)
        at, seen = places_above(cells, rig or Rig())
        self.cells: Tensor
        self.at: Tensor
        self.seen: Tensor
        self.register_buffer("cells", torch.from_numpy(cells).float(), persistent=False)  # (n, 2)
        self.register_buffer("at", torch.from_numpy(at).float(), persistent=False)  # (n, z, 2)
        self.register_buffer("seen", torch.from_numpy(seen), persistent=False)  # (n, z)

    def forward(self, cams: Tensor) -> Features:
        """Of the views (b, v, 3, h, w), 0 to 255."""
        b, views = cams.shape[:2]
        near = self.trunk(cams.flatten(0, 1).to(self.at.dtype) / 127.5 - 1)
        both = (near, self.deeper(near))
        shown = torch.cat([self.shown(features, views) for features in both], dim=1)  # (b, c + d, n, z)
        keys = self.to_key(rearrange(shown, "b c n z -> (b n) z c")) + self.height
        queries, mask = (one.repeat(b, 1)[:, None] for one in (self.to_query(self.cells), self.seen))
        read = self.around(queries, lambda x: self.attention(x, keys, mask=mask))
        return self.above(self.to_near(rearrange(read, "(b x y) 1 d -> b d x y", b=b, x=FINE)))

    def shown(self, features: Tensor, views: int) -> Tensor:
        """What features of the views (b v, c, h, w) hold at the places of every cell, (b, c, n, z)."""
        wide = rearrange(features, "(b v) c h w -> b c h (v w)", v=views).to(self.at.dtype)  # not bf16's
        at = self.at.expand(len(wide), -1, -1, -1)
        return F.grid_sample(wide, at, padding_mode="border", align_corners=False)


def places_above(cells: Floats, rig: Rig) -> tuple[Floats, Flags]:
    """Where the views show the points above cells (n, 2): `at` (n, z, 2), x and y from -1 to 1 over the
    images laid side by side, in the view that has the point farthest from its sides; and whether any has it
    (n, z).
    """
    n, z = len(cells), len(HEIGHTS)
    points = np.insert(np.repeat(cells, z, axis=0), 2, np.tile(HEIGHTS, n), axis=1)
    pixels, depth = pixels_of(points, rig)
    size = np.array([rig.width, rig.height])
    share = pixels / size  # (v, n z, 2), from 0 to 1 within the image
    within = np.where(depth > NEAREST, 0.5 - np.abs(share - 0.5).max(axis=2), -np.inf)
    view = within.argmax(axis=0)
    best = view, np.arange(n * z)
    inset = np.array(STRIDE[::-1]) / size  # so that no feature of the next view is mixed in
    at = np.clip(share[best], inset, 1 - inset)
    at[:, 0] = (view + at[:, 0]) / rig.count
    return (2 * at - 1).reshape(n, z, 2), (within[best] >= 0).reshape(n, z)
