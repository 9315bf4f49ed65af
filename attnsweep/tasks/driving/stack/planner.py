"""Where the ego shall go: the planner of section 3.4 of UniAD (https://arxiv.org/abs/2212.10156).

A query attends to agents, map, futures and the grid, as VAD (https://arxiv.org/abs/2303.12077, section 3.3)
has it for the first two, each of which can be left out, and a head turns it into a way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int8
from torch import Tensor, nn

from attnsweep.nn.attention import linear
from attnsweep.nn.blocks import FeedForward, Residual
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S, ROUTE_POINTS, ROUTE_STEP
from attnsweep.tasks.driving.stack.encoder import COARSE, Features
from attnsweep.tasks.driving.stack.motion import MotionForecasts, attentions
from attnsweep.tasks.driving.stack.places import PositionEmbedding, centres, read
from attnsweep.tasks.driving.stack.prediction import Choice, Lines
from attnsweep.tasks.driving.stack.route import Curve, along, curve, project
from attnsweep.tasks.driving.stack.track import Detections

STATES = 5  # numbers of the ego's state
SCALE = (10.0, 3.0, 3.0, 0.5, 0.2)  # what is much, of each
DROPPED = 0.5  # share of examples in training whose ego state is withheld
TARGET = 7  # the point of the route that is the target, 32 m ahead
AHEAD, BESIDE = tuple(2.0 * k for k in range(24)), (-2.0, 0.0, 2.0)  # m, where the route is looked at
MOST_LATERAL = 1.5  # m, the farthest from the route
STEP = 3.0  # m, the unit of a way's steps
STANDING = 0.3  # m; after a shorter step the yaw stays as it was


@dataclass(frozen=True)
class Scene:
    """What the planner may read; None where no stage found it."""

    features: Features
    found: Detections | None
    lines: Lines | None
    line_queries: Tensor | None
    forecasts: MotionForecasts | None


class Planner(nn.Module):
    """A plan of 8 poses."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        dim = config["dim"]
        self.nav, self.links = config["nav"], [link for link in SOURCES if config[link] == "on"]
        self.along = self.nav == "route"
        self.pooled = not self.links
        self.query = nn.Parameter(torch.randn(1, dim) * dim**-0.5)
        self.to_nav = navigation(config["nav"], dim)
        self.reads_state, self.drops_state = config["ego_state"] != "none", config["ego_state"] == "dropout"
        if self.reads_state:
            self.to_state = nn.Sequential(linear(STATES, dim), nn.ReLU(), linear(dim, dim))
        self.embed_position = nn.ModuleDict({link: PositionEmbedding(dim) for link in self.links})
        self.to_way = nn.ModuleDict({link: PositionEmbedding(dim) for link in self.links if self.along})
        self.to_near = linear(dim // 2, dim) if "plan_bev" in self.links else None
        self.centres: Tensor
        self.register_buffer("centres", centres(COARSE), persistent=False)
        self.beside: Tensor
        beside = torch.cartesian_prod(torch.tensor(AHEAD), torch.tensor(BESIDE))
        self.register_buffer("beside", beside, persistent=False)
        layers = max(1, config["depth"] // 2)
        self.blocks = nn.ModuleList(PlannerBlock(config, self.links) for _ in range(layers))
        self.norm_start, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.head = HEADS[config["plan_head"]](dim)

    def forward(
        self,
        scene: Scene,
        route: Float[Tensor, "b 12 2"],
        command: Int8[Tensor, " b"],
        state: Float[Tensor, "b 5"],
    ) -> tuple[Float[Tensor, "b 8 3"], Choice | None]:
        """The plan, and what there was to choose from; of what it is configured to know of the arguments."""
        way = curve(route)
        query = self.norm_start(self.begin(scene, route, command, state))[:, None]
        keys = {link: self.keys(link, scene, way) for link in self.links}
        for block in self.blocks:
            query = block(query, keys)
        return self.head(self.norm(query)[:, 0], way)

    def begin(self, scene: Scene, route: Tensor, command: Tensor, state: Tensor) -> Tensor:
        """What the query (b, d) knows before it attends to anything."""
        query = self.query + self.to_nav(heading_for(self.nav, route, command))
        if self.pooled:
            query = query + scene.features.tokens.mean(dim=1)
        if scene.found is not None and "plan_agents" in self.links:
            query = query + scene.found.ego[:, 0]
        if scene.forecasts is not None and "plan_motion" in self.links:
            query = query + scene.forecasts.ego[:, 0].amax(dim=1)
        if self.reads_state:
            query = query + self.known(state)
        return query

    def known(self, state: Tensor) -> Tensor:
        """What the ego's state (b, 5) says (b, d); in training not in all examples, where so configured."""
        state_embedding = self.to_state(state / state.new_tensor(SCALE))
        if not (self.drops_state and self.training):
            return state_embedding
        return state_embedding * (torch.rand(len(state), 1, device=state.device) >= DROPPED)

    def ahead(self, way: Curve) -> Tensor:
        """Points (b, n, 2) on and beside the route, or straight ahead, at which the fine map is read."""
        points = self.beside.expand(len(way.knots), -1, -1)
        return along(way, points[..., 0], points[..., 1])[..., :2] if self.along else points

    def keys(self, link: str, scene: Scene, way: Curve) -> Tensor:
        """What to attend to (b, n, d) over a link, with where it is: in the frame, and along the route."""
        tokens, points = SOURCES[link](scene, self.centres)
        points = points.detach()
        if link == "plan_bev" and self.to_near:
            near = self.ahead(way)
            tokens = torch.cat([tokens, self.to_near(read(scene.features.fine, near))], dim=1)
            points = torch.cat([points, near], dim=1)
        keys = tokens + self.embed_position[link](points)
        return keys + self.to_way[link](project(way, points)) if self.along else keys


def heading_for(nav: str, route: Tensor, command: Tensor) -> Tensor:
    """What the planner is told of where to go."""
    if nav == "command":
        return command.long()
    return (route.flatten(1) if nav == "route" else route[:, TARGET]) / (ROUTE_STEP * ROUTE_POINTS / 2)


def navigation(nav: str, dim: int) -> nn.Module:
    """From `heading_for` to a vector (b, d)."""
    if nav == "command":
        return nn.Embedding(3, dim)
    inputs = 2 * ROUTE_POINTS if nav == "route" else 2
    return nn.Sequential(linear(inputs, dim), nn.ReLU(), linear(dim, dim))


# --- What the query attends to: tokens (b, n, d) and where they stand (b, n, 2) ---


def agents(scene: Scene, _: Tensor) -> tuple[Tensor, Tensor]:
    assert scene.found is not None
    return scene.found.queries, scene.found.agents.box[..., :2]


def lines(scene: Scene, _: Tensor) -> tuple[Tensor, Tensor]:
    assert scene.lines is not None and scene.line_queries is not None
    return scene.line_queries, scene.lines.points[:, :, scene.lines.points.shape[2] // 2]


def futures(scene: Scene, _: Tensor) -> tuple[Tensor, Tensor]:
    assert scene.forecasts is not None
    return scene.forecasts.queries.flatten(1, 2), scene.forecasts.ends.flatten(1, 2)


def cells(scene: Scene, middles: Tensor) -> tuple[Tensor, Tensor]:
    tokens = scene.features.tokens
    return tokens, middles.expand(len(tokens), -1, -1)


SOURCES = {"plan_agents": agents, "plan_map": lines, "plan_motion": futures, "plan_bev": cells}


class PlannerBlock(nn.Module):
    """The query attends over each link in turn, then goes through the feed-forward network."""

    def __init__(self, config: Mapping[str, Any], links: list[str]) -> None:
        super().__init__()
        dim, dropout = config["dim"], config["dropout"]
        self.attentions = attentions(config, links)
        self.around = nn.ModuleDict({link: Residual(dim, norm="pre", dropout=dropout) for link in links})
        self.feed_forward = FeedForward(dim, config["mlp_dim"])
        self.around_feed_forward = Residual(dim, norm="pre", dropout=dropout)

    def forward(self, query: Tensor, keys: Mapping[str, Tensor]) -> Tensor:
        """Of a query (b, 1, d) and keys (b, n, d) of each link."""
        for link, attend in self.attentions.items():
            query = self.around[link](query, partial(attend, keys=keys[link]))
        return self.around_feed_forward(query, self.feed_forward)


# --- From the query to a plan ---


class Frenet(nn.Module):
    """Steps along the route, never back, and how far beside it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_steps = nn.Sequential(linear(dim, dim), nn.ReLU(), linear(dim, 2 * FUTURE))

    def forward(self, query: Tensor, way: Curve) -> tuple[Tensor, None]:
        forth, lateral = self.to_steps(query).chunk(2, dim=-1)
        return along(way, (STEP * F.softplus(forth)).cumsum(dim=-1), MOST_LATERAL * lateral.tanh()), None


class Steps(nn.Module):
    """Steps in the ego's frame, as UniAD's; the yaw is that of the motion."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_steps = nn.Sequential(linear(dim, dim), nn.ReLU(), linear(dim, 2 * FUTURE))

    def forward(self, query: Tensor, way: Curve) -> tuple[Tensor, None]:
        step = STEP * rearrange(self.to_steps(query), "b (t two) -> b t two", two=2)
        return torch.cat([step.cumsum(dim=1), yaws(step)[..., None]], dim=-1), None


def yaws(step: Tensor) -> Tensor:
    """The direction (b, t) of steps (b, t, 2), of short ones that of the last that was not; 0 at first."""
    moves = step.detach().norm(dim=-1) > STANDING
    order = torch.arange(1, step.shape[1] + 1, device=step.device)
    last = torch.where(moves, order, 0).cummax(dim=1).values
    safe = torch.where(moves[..., None], step, step.new_tensor([1.0, 0.0]))
    return F.pad(torch.atan2(safe[..., 1], safe[..., 0]), (1, 0)).gather(1, last)


class Anchors(nn.Module):
    """A choice among speeds along the route and places beside it, and what the best is off by, as in
    DiffusionDrive (https://arxiv.org/abs/2411.15139, section 3.2), whose anchors are drawn from data; these
    are drawn up: from one speed to another at a constant rate.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.anchors: Tensor
        self.register_buffer("anchors", vocabulary(), persistent=False)  # (v, 2, 8)
        self.to_token = linear(2 * FUTURE, dim)
        self.to_answer = nn.Sequential(linear(dim, dim), nn.ReLU(), linear(dim, 1 + 2 * FUTURE))

    def forward(self, query: Tensor, way: Curve) -> tuple[Tensor, Choice]:
        """From the ego's query (b, d) and the route: poses of the best plan (b, 8, 3), and all plans."""
        tokens = self.to_token(self.anchors.flatten(1) / (STEP * FUTURE))  # (v, d)
        answer = self.to_answer(F.relu(query[:, None] + tokens))
        off = rearrange(answer[..., 1:], "b v (two t) -> b v two t", two=2)
        step = F.relu(F.pad(self.anchors[:, 0], (1, 0)).diff(dim=-1) + off[:, :, 0])
        lateral = MOST_LATERAL * (self.anchors[:, 1] / MOST_LATERAL + off[:, :, 1]).clamp(-1, 1)
        b = len(query)
        anchors = ways(way, self.anchors[:, 0].expand(b, -1, -1), self.anchors[:, 1].expand(b, -1, -1))
        choice = Choice(answer[..., 0], ways(way, step.cumsum(dim=-1), lateral), anchors)
        return choice.plans[torch.arange(b, device=query.device), choice.logits.argmax(dim=1)], choice


def ways(way: Curve, s: Tensor, lateral: Tensor) -> Tensor:
    """Poses (b, v, t, 3) at arc lengths and distances to the left (b, v, t)."""
    return along(way, s.flatten(1), lateral.flatten(1)).unflatten(1, s.shape[1:])


def vocabulary() -> Tensor:
    """Arc lengths and lateral offsets (v, 2, 8) of all pairs of speeds, in the middle and to both sides."""
    times = KEY_S * torch.arange(1, FUTURE + 1)
    speeds = torch.tensor([0.0, 1.0, 2.5, 4.5, 6.5, 9.0, 12.0])
    first, last, side = torch.cartesian_prod(speeds, speeds, torch.tensor([-1.0, 0.0, 1.0])).T[..., None]
    s = first * times + (last - first) * times**2 / (2 * times[-1])
    return torch.stack([s, side * (times / times[-1])], dim=1)


HEADS = {"frenet": Frenet, "xy": Steps, "anchors": Anchors}
