"""Queries of agents: TrackFormer, section 3.1 of UniAD (https://arxiv.org/abs/2212.10156).

Queries begin at the peaks of a heat map, as in CenterNet (https://arxiv.org/abs/1904.07850, section 3), or as
learned points. One more query is the ego's. Identity over frames comes from an offset to where the agent was,
as in CenterTrack (https://arxiv.org/abs/2004.01177, section 4.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.nn.attention import linear
from attnsweep.nn.blocks import DecoderBlock
from attnsweep.tasks.driving.stack.encoder import FINE, Features, convolution, sizes
from attnsweep.tasks.driving.stack.places import GRID, SIDE, PositionEmbedding, centres
from attnsweep.tasks.driving.stack.prediction import Agents

QUERIES = 20  # of agents
TYPICAL = (4.5, 1.9)  # m, from which lengths and widths are scaled
REACH = 4.0  # m, the unit of what a box says against its query's place


@dataclass(frozen=True)
class Detections:
    """The agents, their heat map, and their queries, the ego's apart: as they came out of the decoder, or,
    where each stage works by itself, as they went in.
    """

    agents: Agents
    heat: Float[Tensor, "b 32 32"] | None
    queries: Float[Tensor, "b 20 d"]
    ego: Float[Tensor, "b 1 d"]


class TrackFormer(nn.Module):
    """Finds agents: queries attend to one another and to the tokens."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim, width = config["dim"], config["dim"] // 2
        self.apart = config["topology"] == "parallel"
        self.learned = config["query_init"] == "learned"
        if self.learned:
            self.content = nn.Parameter(torch.randn(QUERIES, dim) * dim**-0.5)
            self.at = nn.Parameter(torch.rand(QUERIES, 2) * SIDE + torch.tensor([GRID.back, -SIDE / 2]))
        else:
            self.to_heat = nn.Sequential(convolution(width, width), nn.Conv2d(width, 1, 1, bias=False))
            self.rare = nn.Parameter(torch.tensor(-4.0))  # few cells hold an agent's middle
            self.to_query = linear(width, dim)
        self.cells: Tensor
        self.register_buffer("cells", centres(FINE), persistent=False)
        self.ego = nn.Parameter(torch.randn(1, 1, dim) * dim**-0.5)
        self.embed_position = PositionEmbedding(dim)
        self.blocks = nn.ModuleList(DecoderBlock(dim, **sizes(config)) for _ in range(config["depth"]))
        self.norm = nn.LayerNorm(dim)
        self.to_agent = linear(dim, 9 + 2 * (config["track"] == "offset"))

    def forward(self, features: Features) -> Detections:
        """Of the features, whose fine map the heat map is read off."""
        heat = None if self.learned else self.to_heat(features.fine)[:, 0] + self.rare
        content, place = self.begin(features, heat)
        b = len(content)
        ego = self.ego.expand(b, 1, -1) + self.embed_position(place.new_zeros(b, 1, 2))
        start = torch.cat([content + self.embed_position(place), ego], dim=1)
        queries = start
        for block in self.blocks:
            queries = block(queries, features.tokens)
        queries = self.norm(queries)
        agents = boxes(self.to_agent(queries[:, :-1]), place)
        handed = start if self.apart else queries
        return Detections(agents, heat, handed[:, :-1], handed[:, -1:])

    def begin(self, features: Features, heat: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the queries (b, 20, d) hold at first, and where they stand (b, 20, 2)."""
        if heat is None:
            b = len(features.tokens)
            return self.content.expand(b, -1, -1), self.at.expand(b, -1, -1)
        peak = peaks(heat)
        at = peak[..., None].expand(-1, -1, features.fine.shape[1])
        return self.to_query(features.fine.flatten(2).mT.gather(1, at)), self.cells[peak]


def peaks(heat: Tensor) -> Tensor:
    """The cells (b, 20) of a heat map (b, g, g) that are hottest among those hotter than their neighbours."""
    seen = heat.detach()
    top = F.max_pool2d(seen[:, None], 3, stride=1, padding=1)[:, 0] == seen
    return seen.masked_fill(~top, torch.finfo(seen.dtype).min).flatten(1).topk(QUERIES).indices


def boxes(output: Tensor, place: Tensor) -> Agents:
    """The agents that queries at places (b, q, 2) tell of in numbers (b, q, 9 or 11)."""
    xy = place + REACH * output[..., 1:3]
    facing = F.normalize(output[..., 3:5] + output.new_tensor([1e-3, 0.0]), dim=-1)
    size = output.new_tensor(TYPICAL) * output[..., 5:7].clamp(-3, 2).exp()
    return Agents(
        logit=output[..., 0],
        box=torch.cat([xy, facing, size], dim=-1),
        velocity=REACH * output[..., 7:9],
        offset=REACH * output[..., 9:11] if output.shape[-1] > 9 else None,
    )
