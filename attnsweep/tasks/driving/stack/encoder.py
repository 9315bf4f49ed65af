"""From the sensor's grids to features seen from above: section 3 of UniAD (https://arxiv.org/abs/2212.10156)
takes them from BEVFormer; here convolutions and self-attention make them.

Shapes: b examples, n tokens, d the width of a token, c = d // 2 channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from attnsweep.nn.attention import linear
from attnsweep.nn.blocks import EncoderBlock
from attnsweep.tasks.driving.stack.design import reads_fine
from attnsweep.tasks.driving.stack.places import PositionEmbedding, centres

LAYERS = 6  # of the sensor's grids
COARSE, FINE = 16, 32  # cells along a side of the tokens and of the fine map
WINDOW = 8  # tokens along a side that attend to one another


@dataclass(frozen=True)
class Features:
    """`tokens`, row by row; `fine`, which has them in it if any stage reads it."""

    tokens: Float[Tensor, "b 256 d"]
    fine: Float[Tensor, "b c 32 32"]


class Window(nn.Module):
    """Self-attention among 8 x 8 neighbours, or, `spread`, among the tokens that stand 2 apart: the block and
    the grid attention of MaxViT (https://arxiv.org/abs/2204.01697, section 3.2).
    """

    def __init__(self, block: nn.Module, *, spread: bool) -> None:
        super().__init__()
        self.block, self.order = block, "(i x j y)" if spread else "(x i y j)"

    def forward(self, tokens: Float[Tensor, "b 256 d"]) -> Float[Tensor, "b 256 d"]:
        b, windows = len(tokens), COARSE // WINDOW
        parts = {"b": b, "x": windows, "y": windows, "i": WINDOW, "j": WINDOW}
        apart = self.block(rearrange(tokens, f"b {self.order} d -> (b x y) (i j) d", **parts))
        return rearrange(apart, f"(b x y) (i j) d -> b {self.order} d", **parts)


class BEVEncoder(nn.Module):
    """The scanner's grids by convolutions down to a map of what is near each cell, and `Above` of that."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["dim"] // 2
        self.down = nn.Sequential(convolution(LAYERS, width, stride=2), convolution(width, width))
        self.above = Above(config)

    def forward(self, bev: UInt8[Tensor, "b 6 64 64"]) -> Features:
        """Of the sensor's grids."""
        return self.above(self.down(torch.log1p(bev.to(self.above.embed_position.frequency.dtype))))


class Above(nn.Module):
    """Convolutions to 16 x 16 tokens, layers of self-attention, and a fine map that takes them back in."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim, width = config["dim"], config["dim"] // 2
        self.further = nn.Sequential(convolution(width, dim, stride=2), convolution(dim, dim))
        self.place: Tensor
        self.register_buffer("place", centres(COARSE), persistent=False)
        self.embed_position = PositionEmbedding(dim)
        blocks: list[nn.Module] = [EncoderBlock(dim, **sizes(config)) for _ in range(config["depth"])]
        if config["bev_attention"] == "window":  # of neighbours and of tokens apart by turns
            blocks = [Window(block, spread=layer % 2 == 1) for layer, block in enumerate(blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.up = self.smooth = None
        if reads_fine(config):
            self.up, self.smooth = linear(dim, (FINE // COARSE) ** 2 * width), convolution(width, width)

    def forward(self, near: Float[Tensor, "b c 32 32"]) -> Features:
        """Of what was seen near each cell."""
        tokens = rearrange(self.further(near), "b d x y -> b (x y) d") + self.embed_position(self.place)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        if self.up and self.smooth:
            near = self.smooth(near + finer(self.up(tokens)))
        return Features(tokens, near)


def finer(tokens: Tensor, *, cells: int = COARSE) -> Tensor:
    """Tokens (b, n, parts * c) of cells x cells, which hold their parts, as a fine map (b, c, 32, 32)."""
    fold = FINE // cells
    return rearrange(tokens, "b (x y) (i j c) -> b c (x i) (y j)", x=cells, i=fold, j=fold)


def sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the project's blocks take, of a configuration; all stages are pre-norm."""
    return {key: config[key] for key in ("heads", "mlp_dim", "dropout", "attention")} | {"norm": "pre"}


def convolution(inputs: int, outputs: int, *, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """3 x 3, normalised over each example by itself, so that a batch is not mixed."""
    convolve = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    return nn.Sequential(convolve, nn.GroupNorm(1, outputs), nn.ReLU())
