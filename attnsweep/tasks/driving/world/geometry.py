"""Frames, polylines and oriented boxes, batched.

A pose is x, y, yaw; a box is x, y, yaw, length, width about its centre. Every function broadcasts over the
leading axes and computes element by element: no sum runs along a batch, so that what comes out for one scene
does not depend, to the last bit, on the scenes beside it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]


def wrap(angle: Floats) -> Floats:
    """The same angles in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def to_frame(points: Floats, pose: Floats) -> Floats:
    """World points (..., 2) as seen from poses (..., 3), which broadcast against the points."""
    dx, dy = points[..., 0] - pose[..., 0], points[..., 1] - pose[..., 1]
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    return np.stack([cos * dx + sin * dy, cos * dy - sin * dx], axis=-1)


def from_frame(points: Floats, pose: Floats) -> Floats:
    """Points (..., 2) given in the frames of poses (..., 3), in the world."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x, y = points[..., 0], points[..., 1]
    return np.stack([pose[..., 0] + cos * x - sin * y, pose[..., 1] + sin * x + cos * y], axis=-1)


def between_cells(values: NDArray[np.floating[Any]], places: Floats, *rows: Indices) -> Floats:
    """What grids (..., x, y), known at the middles of their cells, are at places (..., 2) in cells from their
    corners, in proportion; off a grid as on its edge. `rows` are the places' indices of the leading axes.
    """
    at = np.clip(places - 0.5, 0, np.array(values.shape[-2:]) - 1.001)
    low = at.astype(np.int64)
    (fx, fy), (x, y) = np.moveaxis(at - low, -1, 0), np.moveaxis(low, -1, 0)
    near = values[*rows, x, y] * (1 - fy) + values[*rows, x, y + 1] * fy
    far = values[*rows, x + 1, y] * (1 - fy) + values[*rows, x + 1, y + 1] * fy
    return near * (1 - fx) + far * fx


# --- Oriented boxes ---


def corners(boxes: Floats) -> Floats:
    """The corners (..., 4, 2) of boxes (..., 5), counter-clockwise from the front left."""
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    return from_frame(signs * boxes[..., None, 3:5], boxes[..., None, :3])


def separation(one: Any, other: Any, xp: Any = np) -> Any:
    """The widest gap (...) between boxes (..., 5) along the axes of either; negative where they overlap, and
    then how far they must move apart. Of arrays, or of tensors, with `xp=torch`, then with a gradient.

    By the separating-axis theorem two rectangles overlap exactly where no axis of either separates them
    (Gottschalk, Lin, Manocha, "OBBTree", 1996, section 5). Along an axis that separates, it is a lower bound
    of the distance.
    """
    dx, dy = other[..., 0] - one[..., 0], other[..., 1] - one[..., 1]
    turn = other[..., 2] - one[..., 2]
    cos, sin = xp.abs(xp.cos(turn)), xp.abs(xp.sin(turn))
    gaps = []
    for box, rest in ((one, other), (other, one)):
        c, s = xp.cos(box[..., 2]), xp.sin(box[..., 2])
        length, width = rest[..., 3], rest[..., 4]
        gaps.append(xp.abs(c * dx + s * dy) - (box[..., 3] + cos * length + sin * width) / 2)
        gaps.append(xp.abs(c * dy - s * dx) - (box[..., 4] + sin * length + cos * width) / 2)
    return xp.maximum(xp.maximum(gaps[0], gaps[1]), xp.maximum(gaps[2], gaps[3]))


def overlap(one: Floats, other: Floats) -> Flags:
    """Whether boxes (..., 5) overlap by more than a touch."""
    return np.asarray(separation(one, other) < 0)


# --- Polylines ---


def stations(xy: Floats) -> Floats:
    """The arc length (n,) at every point of a polyline (n, 2)."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])


def interpolated(at: Floats, s: Floats, values: Floats) -> Floats:
    """What values (n, k) at rising `s` (n,) are at `at` (...): (..., k), in proportion; the ends go on."""
    return np.stack([np.interp(at, s, column) for column in values.T], axis=-1)


def distinct(xy: Floats) -> Floats:
    """The polyline without points that repeat the one before."""
    moves = np.hypot(*np.diff(xy, axis=0).T) > 1e-6
    return xy[np.concatenate([[True], moves])]


def resample(xy: Floats, spacing: float) -> Floats:
    """The polyline (m, 2) through points at equal distances of about `spacing`, both ends kept."""
    s = stations(xy)
    return interpolated(np.linspace(0.0, s[-1], max(2, round(s[-1] / spacing) + 1)), s, xy)


def headings(xy: Floats) -> Floats:
    """The direction (n,) of a polyline (n, 2) at each of its points, without jumps of a full turn."""
    ahead = np.arctan2(*np.diff(xy, axis=0).T[::-1])
    ahead = np.unwrap(np.concatenate([ahead[:1], ahead, ahead[-1:]]))
    return (ahead[:-1] + ahead[1:]) / 2


def offset(xy: Floats, distance: float | Floats) -> Floats:
    """The polyline (n, 2) moved to its left by `distance`, which may differ from point to point (n,)."""
    yaw = headings(xy)
    return xy + np.stack([-np.sin(yaw), np.cos(yaw)], axis=1) * np.reshape(distance, (-1, 1))


def project(points: Floats, xy: Floats) -> tuple[Floats, Floats]:
    """Frenet coordinates of points (n, 2) along a polyline (m, 2): arc length (n,) and distance to the left
    (n,), of the nearest point of the nearest segment.
    """
    start, step = xy[:-1], np.diff(xy, axis=0)
    length = np.hypot(step[:, 0], step[:, 1])
    rx, ry = points[:, None, 0] - start[:, 0], points[:, None, 1] - start[:, 1]
    share = np.clip((rx * step[:, 0] + ry * step[:, 1]) / np.maximum(length, 1e-9) ** 2, 0, 1)
    distance = np.hypot(rx - share * step[:, 0], ry - share * step[:, 1])
    nearest = distance.argmin(axis=1)
    rows = np.arange(len(points))
    left = step[nearest, 0] * ry[rows, nearest] - step[nearest, 1] * rx[rows, nearest]
    s = stations(xy)[nearest] + share[rows, nearest] * length[nearest]
    return s, np.copysign(distance[rows, nearest], left)


def bezier(start: Floats, end: Floats) -> Floats:
    """A cubic curve (n, 2), about a point each half metre, from one pose (3,) to another; close to an arc
    where an arc joins them.
    """
    turn = np.abs(wrap(end[2] - start[2]))
    chord = float(np.hypot(*(end - start)[:2]))
    reach = chord * (2 / 3 * np.tan(turn / 4) / np.sin(turn / 2) if turn > 1e-3 else 1 / 3)
    t = np.linspace(0, 1, max(4, round(2 * chord)))[:, None]
    leave = start[:2] + reach * np.array([np.cos(start[2]), np.sin(start[2])])
    arrive = end[:2] - reach * np.array([np.cos(end[2]), np.sin(end[2])])
    return (1 - t) ** 3 * start[:2] + 3 * t * (1 - t) * ((1 - t) * leave + t * arrive) + t**3 * end[:2]
