"""A planner of one's own, to be swept by `own_planner.py`: a small CNN that says how fast to go along the
route.

What a sweep asks of a class: it is an nn.Module, takes its hyperparameters by name, and maps a dictionary of
what the ego senses to plans (b, 8, 2): x and y each half second, in its own frame, in metres. What is in the
dictionary stands in `attnsweep/tasks/driving/own_planner.py`.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPACING = 4.0  # m, between the points of a route
TYPICAL = 3.0  # m, of a step of half a second


class SpeedPlanner(nn.Module):
    """`depth` convolutions, each of half the resolution, over the scanner's grid; then eight steps along the
    route, none of them back.
    """

    def __init__(self, *, dim: int = 32, depth: int = 4) -> None:
        super().__init__()
        widths = [6, *[dim] * depth]
        layers = [
            nn.Sequential(nn.Conv2d(one, other, 3, stride=2, padding=1), nn.ReLU())
            for one, other in itertools.pairwise(widths)
        ]
        side = 64 // 2**depth
        self.see = nn.Sequential(*layers, nn.Flatten(), nn.Linear(dim * side * side, 4 * dim), nn.ReLU())
        self.to_steps = nn.Sequential(nn.Linear(4 * dim + 24, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, 8))

    def forward(self, sample: dict[str, Tensor]) -> Tensor:
        route = sample["route"]
        seen = self.see(sample["bev"].float().log1p())
        steps = self.to_steps(torch.cat([seen, route.flatten(1) / 48], dim=1))
        return along(route, TYPICAL * F.softplus(steps).cumsum(dim=1))


def along(route: Tensor, s: Tensor) -> Tensor:
    """The points (b, t, 2) at arc lengths (b, t) of routes (b, 12, 2) that begin at the ego; straight on
    beyond the last.
    """
    knots = torch.cat([torch.zeros_like(route[:, :1]), route], dim=1)
    k = (s.detach() / SPACING).long().clamp(max=route.shape[1] - 1)[..., None].expand(-1, -1, 2)
    one, other = knots.gather(1, k), knots.gather(1, k + 1)
    return one + (s[..., None] / SPACING - k) * (other - one)
