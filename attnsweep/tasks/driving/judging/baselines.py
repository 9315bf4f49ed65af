"""Planners that see nothing: what a planner that does must beat.

All have the `forward` of the stack: `bev` (b, 6, 64, 64), `route` (b, 12, 2), `command` (b,) and `ego_state`
(b, 5), as samples hold them, to a `Prediction` that holds a plan alone. The expert is no such planner, for it
knows what no sample holds: in `closed_loop.drive` it is the policy `None`, in open loop the label itself.
"""

import itertools
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnsweep.tasks.driving.judging.closed_loop import Policy
from attnsweep.tasks.driving.judging.readout import predict
from attnsweep.tasks.driving.records.batches import INPUTS
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S, ROUTE_POINTS, Samples
from attnsweep.tasks.driving.stack.prediction import Prediction
from attnsweep.tasks.driving.stack.route import along, curve
from attnsweep.tasks.driving.world.geometry import Floats

STEADY = 6.0  # m/s, of the planner `steady`
FASTEST, FARTHEST_OFF = 20.0, 2.0  # m/s and m, the most that the head of `EgoMLP` can plan
MOTION = 4  # of the ego's state: speed, two accelerations, yaw rate


def times(like: Tensor) -> Tensor:
    """Seconds (8,) from the key frame to each point of a plan."""
    return KEY_S * torch.arange(1, FUTURE + 1, device=like.device, dtype=like.dtype)


class Stop(nn.Module):
    """Stays where it is."""

    def forward(self, bev: Tensor, route: Tensor, command: Tensor, ego_state: Tensor) -> Prediction:
        return Prediction(plan=route.new_zeros(len(route), FUTURE, 3))


class ConstantVelocity(nn.Module):
    """Goes straight on at the present speed."""

    def forward(self, bev: Tensor, route: Tensor, command: Tensor, ego_state: Tensor) -> Prediction:
        x = ego_state[:, :1] * times(route)
        return Prediction(plan=F.pad(x[..., None], (0, 2)))


class RouteFollowing(nn.Module):
    """Goes along the route, blind to others, at the present speed or at one of its own (m/s)."""

    def __init__(self, speed: float | None = None) -> None:
        super().__init__()
        self.speed = speed

    def forward(self, bev: Tensor, route: Tensor, command: Tensor, ego_state: Tensor) -> Prediction:
        speed = ego_state[:, :1] if self.speed is None else torch.full_like(ego_state[:, :1], self.speed)
        progress = speed * times(route)
        return Prediction(plan=along(curve(route), progress, torch.zeros_like(progress)))


class EgoMLP(nn.Module):
    """Plans by the ego's own motion and the route alone (Zhai et al., "Rethinking the open-loop evaluation of
    end-to-end autonomous driving in nuScenes", 2023), with the head of the stack: speeds along the route and
    distances to its left. Without `motion` by the route alone, which is what a planner that sees falls back
    on when it sees nothing.
    """

    def __init__(self, dim: int = 128, depth: int = 2, *, motion: bool = True) -> None:
        super().__init__()
        self.motion = motion
        widths = [motion * MOTION + 2 * ROUTE_POINTS] + depth * [dim]
        layers: list[nn.Module] = []
        for one, other in itertools.pairwise(widths):
            layers += [nn.Linear(one, other), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(dim, 2 * FUTURE))

    def forward(self, bev: Tensor, route: Tensor, command: Tensor, ego_state: Tensor) -> Prediction:
        known = torch.cat([ego_state[:, : self.motion * MOTION] / 10, route.flatten(1) / 48], dim=1)
        speed, lateral = self.net(known).chunk(2, dim=1)  # (b, 8) each
        progress = KEY_S * FASTEST * torch.sigmoid(speed - 1).cumsum(dim=1)
        return Prediction(plan=along(curve(route), progress, FARTHEST_OFF * torch.tanh(lateral)))


def policy_of(planner: nn.Module, inputs: Iterable[str] = INPUTS) -> Policy:
    """How a planner that reads `inputs` drives in closed loop: without gradients, on its own device."""

    def plan(seen: Samples) -> Floats:
        return np.asarray(predict(planner, [seen[name] for name in inputs]).plan.double().cpu())

    return plan
