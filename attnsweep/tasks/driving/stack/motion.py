"""Where each agent goes: MotionFormer, section 3.2 of UniAD (https://arxiv.org/abs/2212.10156).

A query per agent and mode attends to the agents, to the map, and to the features around the end of the way
that it predicted last (agent-goal), each of which can be left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.nn.attention import MultiHeadAttention, linear
from attnsweep.nn.blocks import FeedForward, Residual
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S
from attnsweep.tasks.driving.stack.encoder import Features
from attnsweep.tasks.driving.stack.places import PositionEmbedding, read
from attnsweep.tasks.driving.stack.prediction import MODES, Agents, Futures
from attnsweep.tasks.driving.stack.track import REACH, Detections

AROUND = 4  # points around an end that are looked at
SPREAD = 8.0  # m, the farthest from the end


@dataclass(frozen=True)
class MotionForecasts:
    """The futures, and the queries of agents and of the ego that predict them; `ends` of the ways (m)."""

    futures: Futures
    queries: Float[Tensor, "b q m d"]
    ego: Float[Tensor, "b 1 m d"]
    ends: Float[Tensor, "b q m 2"]


class MotionFormer(nn.Module):
    """Foretells agents in six modes; the ego's query goes along for the planner."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim = config["dim"]
        self.modes = nn.Parameter(torch.randn(MODES, dim) * dim**-0.5)
        self.embed_position = PositionEmbedding(dim)
        self.blocks = nn.ModuleList(MotionBlock(config) for _ in range(config["depth"]))
        self.norm = nn.LayerNorm(dim)
        self.to_way, self.to_logit = linear(dim, 2 * FUTURE), linear(dim, 1, bias=False)

    def forward(
        self, found: Detections, features: Features, lines: Float[Tensor, "b l d"] | None
    ) -> MotionForecasts:
        """Of the agents that were found, the features and the queries of lines."""
        agents = torch.cat([found.queries, found.ego], dim=1)
        place = torch.cat([found.agents.box[..., :2], torch.zeros_like(found.ego[..., :2])], dim=1).detach()
        coded = agents + self.embed_position(place)
        queries = rearrange(coded[:, :, None] + self.modes, "b a m d -> b (a m) d")
        offsets = straight_on(found.agents)
        for block in self.blocks:
            ends = self.ends(place, offsets.detach()).flatten(1, 2)
            queries = block(queries, agents=coded, lines=lines, fine=features.fine, ends=ends)
            offsets = self.ways(self.norm(queries), found.agents)
        output = rearrange(self.norm(queries), "b (a m) d -> b a m d", m=MODES)
        futures = Futures(self.to_logit(output[:, :-1])[..., 0], offsets)
        return MotionForecasts(futures, output[:, :-1], output[:, -1:], self.ends(place, offsets)[:, :-1])

    def ways(self, queries: Tensor, agents: Agents) -> Tensor:
        """Offsets (b, q, m, 8, 2): what the queries add, in the agent's frame, to going straight on."""
        steps = rearrange(self.to_way(queries), "b (a m) (t two) -> b a m t two", m=MODES, two=2)[:, :-1]
        cos, sin = agents.box[..., None, None, 2].detach(), agents.box[..., None, None, 3].detach()
        x, y = (REACH * steps.cumsum(dim=-2)).unbind(dim=-1)
        return straight_on(agents) + torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)

    def ends(self, place: Tensor, offsets: Tensor) -> Tensor:
        """Where ways end (b, a, m, 2), the ego's where it begins."""
        b, q = offsets.shape[:2]
        last = offsets[..., -1, :].expand(b, q, MODES, 2)
        return place[:, :, None] + torch.cat([last, last.new_zeros(b, 1, MODES, 2)], dim=1)


def straight_on(agents: Agents) -> Tensor:
    """Offsets (b, q, 1, 8, 2) at the velocity that was found."""
    times = KEY_S * torch.arange(1, FUTURE + 1, device=agents.velocity.device)
    return agents.velocity.detach()[:, :, None, None] * times[:, None]


def attentions(config: Mapping[str, Any], links: Iterable[str]) -> nn.ModuleDict:
    """An attention for each link."""
    dim, heads, kernel = config["dim"], config["heads"], config["attention"]
    return nn.ModuleDict({link: MultiHeadAttention(dim, heads=heads, attention=kernel) for link in links})


class MotionBlock(nn.Module):
    """What a query reads by each of its attentions, and itself, fused by a feed-forward network."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim = config["dim"]
        on = [link for link in ("agent_agent", "agent_map") if config[link] == "on"]
        self.attentions = attentions(config, on)
        goal = config["agent_goal"] == "on"
        self.goal = Goal(dim) if goal else None
        self.fuse = linear(dim * (1 + len(on) + goal), dim)
        self.around_fuse, self.around_feed_forward = (
            Residual(dim, norm="pre", dropout=config["dropout"]) for _ in range(2)
        )
        self.feed_forward = FeedForward(dim, config["mlp_dim"])

    def forward(
        self, queries: Tensor, *, agents: Tensor, lines: Tensor | None, fine: Tensor, ends: Tensor
    ) -> Tensor:
        """Of queries (b, n, d) whose ways end at points (b, n, 2)."""
        sources = {"agent_agent": agents, "agent_map": lines}

        def gather(x: Tensor) -> Tensor:
            parts = [x, *(attend(x, sources[link]) for link, attend in self.attentions.items())]
            return self.fuse(torch.cat([*parts, self.goal(x, fine, ends)] if self.goal else parts, dim=-1))

        queries = self.around_fuse(queries, gather)
        return self.around_feed_forward(queries, self.feed_forward)


class Goal(nn.Module):
    """Attention to a few points around an end, as deformable attention does it
    (https://arxiv.org/abs/2010.04159, eq. 2): the query says where they lie and what each weighs.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_points, self.to_weights = linear(dim, 2 * AROUND), linear(dim, AROUND)
        self.to_values, self.to_output = linear(dim // 2, dim), linear(dim, dim)

    def forward(self, queries: Tensor, fine: Tensor, ends: Tensor) -> Tensor:
        """What queries (b, n, d) read off a map (b, c, g, g) around points (b, n, 2): (b, n, d)."""
        b, n, _ = queries.shape
        shift = SPREAD * self.to_points(queries).tanh().view(b, n, AROUND, 2)
        seen = read(fine, (ends[:, :, None] + shift).flatten(1, 2)).view(b, n, AROUND, -1)
        weights = self.to_weights(queries).softmax(dim=-1)
        return self.to_output(self.to_values(torch.einsum("bnk,bnkc->bnc", weights, seen)))
