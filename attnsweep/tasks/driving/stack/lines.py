"""Queries of map lines: MapFormer, section 3.1 of UniAD (https://arxiv.org/abs/2212.10156), whose masks are
here polylines as in VectorMapNet (https://arxiv.org/abs/2206.08920); and a dense map.
"""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from attnsweep.nn.attention import linear
from attnsweep.nn.blocks import DecoderBlock
from attnsweep.tasks.driving.records.samples import LINE_POINTS, LINES
from attnsweep.tasks.driving.stack.encoder import Features, convolution, sizes
from attnsweep.tasks.driving.stack.places import GRID, SIDE, PositionEmbedding
from attnsweep.tasks.driving.stack.prediction import Lines

KINDS = 3  # of lines


class MapFormer(nn.Module):
    """Finds the map's lines: learned queries attend to one another and to the tokens."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim = config["dim"]
        self.content = nn.Parameter(torch.randn(LINES, dim) * dim**-0.5)
        self.at = nn.Parameter(torch.rand(LINES, 2) * SIDE + torch.tensor([GRID.back, -SIDE / 2]))
        self.embed_position = PositionEmbedding(dim)
        self.blocks = nn.ModuleList(DecoderBlock(dim, **sizes(config)) for _ in range(config["depth"]))
        self.norm = nn.LayerNorm(dim)
        self.to_line = linear(dim, KINDS + 1 + 2 * LINE_POINTS)

    def forward(self, features: Features) -> tuple[Lines, Tensor]:
        """The lines and their queries (b, 32, d)."""
        queries = (self.content + self.embed_position(self.at)).expand(len(features.tokens), -1, -1)
        for block in self.blocks:
            queries = block(queries, features.tokens)
        queries = self.norm(queries)
        output = self.to_line(queries)
        points = rearrange(output[..., KINDS + 1 :], "b l (p two) -> b l p two", two=2)
        return Lines(output[..., : KINDS + 1], self.at[:, None] + SIDE / 4 * points), queries


class DenseMap(nn.Module):
    """Logits (b, 3, 32, 32) of drivable, border and divider, off the fine map (b, c, 32, 32)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["dim"] // 2
        self.to_map = nn.Sequential(convolution(width, width), nn.Conv2d(width, KINDS, 1))

    def forward(self, fine: Tensor) -> Tensor:
        return self.to_map(fine)
