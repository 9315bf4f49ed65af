"""Plans given as progress along the route and distance to its left."""

import torch
import torch.nn.functional as F
from torch import Tensor

SHORT = 0.05  # m; no step of a route is shorter but behind its end


def along_route(route: Tensor, progress: Tensor, lateral: Tensor) -> Tensor:
    """Plans (b, n, 3) of x, y, yaw: `progress` (b, n) metres along the route (b, p, 2), given in the ego's
    frame, and `lateral` (b, n) metres to its left. Differentiable in all three.

    The way leads from the ego, in the direction in which it stands, over the points of the route, by cubics
    that at each point go in the direction from the one before to the one after, and beyond the last straight
    on. A route that ends earlier repeats its last point.
    """
    points = F.pad(route, (0, 0, 1, 0))  # (b, p + 1, 2), from the ego at the origin
    steps = points.diff(dim=1)
    lengths = steps.norm(dim=2).clamp(min=1e-3)
    start = torch.zeros_like(points[:, :1])
    start[..., 0] = 1.0
    middle = F.normalize(points[:, 2:] - points[:, :-2], dim=2)
    tangents = torch.cat([start, middle, F.normalize(steps[:, -1:], dim=2)], dim=1)
    ends = lengths.cumsum(dim=1)
    last = ((lengths > SHORT).sum(dim=1, keepdim=True) - 1).clamp(min=0)
    k = (ends[:, None] <= progress.detach()[..., None]).sum(dim=2).minimum(last)  # (b, n)
    length = lengths.gather(1, k)
    share = (progress - ends.gather(1, k) + length) / length
    inside = share < 1
    leave, arrive = (length[..., None] * pick(tangents, i) for i in (k, k + 1))
    at, way = hermite(pick(points, k), pick(points, k + 1), leave, arrive, torch.where(inside, share, 1.0))
    ahead = F.normalize(way, dim=2)
    at = at + ahead * torch.where(inside, 0.0, (share - 1) * length)[..., None]
    left = torch.stack([-ahead[..., 1], ahead[..., 0]], dim=2)
    yaw = torch.atan2(ahead[..., 1], ahead[..., 0])
    return torch.cat([at + left * lateral[..., None], yaw[..., None]], dim=2)


def hermite(
    start: Tensor, end: Tensor, leave: Tensor, arrive: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """Places and tangents (b, n, 2) at shares (b, n) of cubics between places with these tangents."""
    t = share[..., None]
    place = (
        (1 + 2 * t) * (1 - t) ** 2 * start
        + t * (1 - t) ** 2 * leave
        + t**2 * (3 - 2 * t) * end
        + t**2 * (t - 1) * arrive
    )
    tangent = 6 * t * (1 - t) * (end - start) + (1 - t) * (1 - 3 * t) * leave + t * (3 * t - 2) * arrive
    return place, tangent


def pick(values: Tensor, index: Tensor) -> Tensor:
    """The rows (b, n, c) of values (b, m, c) at indices (b, n)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
