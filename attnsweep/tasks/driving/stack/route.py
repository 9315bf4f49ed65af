"""The route ahead as a smooth curve: where arc lengths lie on it, and where points lie along it.

Shapes: b examples, n points; metres and radians in the ego's frame.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

SHORT = 0.05  # m; a step of a route that is shorter lies past the route's end


@dataclass(frozen=True)
class Curve:
    """Knots, the ego first; `along`, the arc length to each, and `tangent`, unit vectors. `last` is the last
    step that has a length.
    """

    knots: Float[Tensor, "b k 2"]
    along: Float[Tensor, "b k"]
    tangent: Float[Tensor, "b k 2"]
    last: Int[Tensor, "b 1"]


def curve(route: Float[Tensor, "b k 2"]) -> Curve:
    """The curve from the ego, along its heading, through the points of a route."""
    knots = torch.cat([torch.zeros_like(route[:, :1]), route], dim=1)
    step = knots.diff(dim=1)
    length = step.norm(dim=-1)
    last = ((length > SHORT).sum(dim=1, keepdim=True) - 1).clamp(min=0)
    order = torch.arange(length.shape[1], device=route.device).minimum(last)
    ahead = F.normalize(step, dim=-1).gather(1, order[..., None].expand(-1, -1, 2))
    middle = F.normalize(ahead[:, 1:] + ahead[:, :-1], dim=-1)
    start = torch.zeros_like(middle[:, :1]) + route.new_tensor([1.0, 0.0])
    along = F.pad(length.cumsum(dim=1), (1, 0))
    return Curve(knots, along, torch.cat([start, middle, ahead[:, -1:]], dim=1), last)


def at(way: Curve, s: Float[Tensor, "b n"]) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n 2"]]:
    """The points at arc lengths, and the unit tangents there.

    A cubic between knots, straight on past the last.
    """
    step = torch.searchsorted(way.along[:, 1:].contiguous(), s.detach().contiguous()).minimum(way.last)
    begin, end = pick(way.along, step), pick(way.along, step + 1)
    length = (end - begin).clamp(min=SHORT)
    beyond = (s - end).clamp(min=0)[..., None]
    u = ((s - begin) / length).clamp(0, 1)[..., None]
    p, q = pick(way.knots, step), pick(way.knots, step + 1)
    m, n = (length[..., None] * pick(way.tangent, k) for k in (step, step + 1))
    point = (
        (1 + 2 * u) * (1 - u) ** 2 * p + u * (1 - u) ** 2 * m + u**2 * (3 - 2 * u) * q + u**2 * (u - 1) * n
    )
    slope = 6 * u * (u - 1) * (p - q) + (1 - u) * (1 - 3 * u) * m + u * (3 * u - 2) * n
    tangent = F.normalize(slope, dim=-1)
    return point + beyond * tangent, tangent


def along(way: Curve, s: Float[Tensor, "b n"], lateral: Float[Tensor, "b n"]) -> Float[Tensor, "b n 3"]:
    """The poses at arc lengths of the route and distances to its left; they face along the route."""
    point, tangent = at(way, s)
    left = torch.stack([-tangent[..., 1], tangent[..., 0]], dim=-1)
    yaw = torch.atan2(tangent[..., 1], tangent[..., 0])
    return torch.cat([point + lateral[..., None] * left, yaw[..., None]], dim=-1)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """The values (b, n) or (b, n, 2) at places (b, n) of values (b, k) or (b, k, 2)."""
    if values.ndim == 2:
        return values.gather(1, index)
    return values.gather(1, index[..., None].expand(-1, -1, 2))


def project(way: Curve, points: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n 2"]:
    """Arc length and distance to the left of points, by the straight line from knot to knot that is nearest;
    the first goes on behind the ego, where arc lengths are below zero.
    """
    step = way.knots.diff(dim=1)[:, None]  # (b, 1, k, 2)
    length = step.norm(dim=-1).clamp(min=SHORT)
    ahead = step / length[..., None]
    to = points[:, :, None] - way.knots[:, None, :-1]  # (b, n, k, 2)
    along = (to * ahead).sum(dim=-1)
    left = ahead[..., 0] * to[..., 1] - ahead[..., 1] * to[..., 0]
    least = F.pad(torch.zeros_like(length[..., 1:]), (1, 0), value=-math.inf)
    share = along.maximum(least).minimum(length)
    distance = torch.hypot(along - share, left)
    nearest = distance.argmin(dim=-1, keepdim=True)
    s = (way.along[:, None, :-1] + share).gather(2, nearest)
    return torch.cat([s, left.gather(2, nearest).sign() * distance.gather(2, nearest)], dim=-1)
