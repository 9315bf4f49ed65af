"""Which cells each agent will cover: OccFormer, section 3.3 of UniAD (https://arxiv.org/abs/2212.10156).

Five blocks, one for each second to come. In each, cells attend to one another and then to the agents that are
thought to cover them; the logit of agent and cell is the product of their vectors.
"""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.nn.attention import MultiHeadAttention, linear
from attnsweep.nn.blocks import EncoderBlock, Residual
from attnsweep.tasks.driving.records.samples import OCCUPANCY
from attnsweep.tasks.driving.stack.encoder import COARSE, FINE, Features, convolution, finer, sizes

CELLS = 8  # along a side of the grid whose cells attend
PARTS, FOLD = FINE // CELLS, COARSE // CELLS
OPEN = 0.3  # the probability of covering a cell from which on the cell attends to the agent


class OccupancyHead(nn.Module):
    """The product of vectors alone: every agent has one for each second."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim, width = config["dim"], config["dim"] // 2
        self.to_mask = linear(dim, OCCUPANCY * width)
        self.smooth = convolution(width, width)
        self.bias = nn.Parameter(torch.tensor(-4.0))  # few cells are covered

    def forward(self, agents: Float[Tensor, "b q d"], features: Features) -> Float[Tensor, "b 5 q 32 32"]:
        """Logits of agents."""
        mask = rearrange(self.to_mask(agents), "b q (t c) -> b (t q) c", t=OCCUPANCY)
        logits = mask @ self.smooth(features.fine).flatten(2)
        return rearrange(logits, "b (t q) (x y) -> b t q x y", t=OCCUPANCY, x=FINE) + self.bias


class OccFormer(nn.Module):
    """Carries a coarse grid of 8 x 8 cells from second to second; each says what lies in its 16 parts."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim, width = config["dim"], config["dim"] // 2
        self.merge = linear(FOLD**2 * dim, dim)
        self.blocks = nn.ModuleList(OccBlock(config) for _ in range(OCCUPANCY))
        self.to_mask, self.up = linear(dim, width), linear(dim, PARTS**2 * width)
        self.near = convolution(width, width)
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def forward(self, agents: Float[Tensor, "b q d"], features: Features) -> Float[Tensor, "b 5 q 32 32"]:
        """Logits of agents."""
        four = rearrange(features.tokens, "b (x i y j) d -> b (x y) (i j d)", x=CELLS, y=CELLS, i=FOLD)
        masks, state, fine = self.to_mask(agents), self.merge(four), []
        parts = self.up(state)
        for block in self.blocks:
            state = block(state, agents, self.covered(parts, masks))
            parts = self.up(state)
            fine.append(finer(parts, cells=CELLS))
        cells = torch.stack(fine, dim=2) + self.near(features.fine)[:, :, None]  # (b, c, t, x, y)
        logits = torch.baddbmm(self.bias, masks, cells.flatten(2))
        return rearrange(logits, "b q (t x y) -> b t q x y", t=OCCUPANCY, x=FINE)

    @torch.no_grad()
    def covered(self, parts: Tensor, masks: Tensor) -> Tensor:
        """Which agents (b, n, q) each cell may attend to: those that seem to cover any of its parts (b, n,
        16 * c), else all.
        """
        logits = rearrange(parts, "b n (ij c) -> b (n ij) c", ij=PARTS**2) @ masks.mT
        logits = rearrange(logits, "b (n ij) q -> b n ij q", ij=PARTS**2).amax(dim=2)
        likely = (logits + self.bias).sigmoid() >= OPEN
        return likely | ~likely.any(dim=-1, keepdim=True)


class OccBlock(nn.Module):
    """One second on: cells attend to one another, then to the agents that may cover them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim, heads, kernel = config["dim"], config["heads"], config["attention"]
        self.among = EncoderBlock(dim, **sizes(config))
        self.attention = MultiHeadAttention(dim, heads=heads, attention=kernel)
        self.around = Residual(dim, norm="pre", dropout=config["dropout"])

    def forward(self, state: Tensor, agents: Tensor, mask: Tensor) -> Tensor:
        """Of cells (b, n, d), agents (b, q, d) and who may attend to whom (b, n, q): (b, n, d)."""
        state = self.among(state)
        return self.around(state, lambda x: self.attention(x, agents, mask=mask))
