"""What the ego senses: returns of a ray-cast scanner, and the paint on the road that it can see.

The scanner sees boxes and nothing else: no identities, no speeds, no classes, no map. What stands behind
another is hidden, ranges are noisy, some returns are lost and some come from nowhere. The returns of the last
K sweeps are laid over one another in the frame of the last one; the ego's own motion between them is taken as
known, that of the others is for the model to find.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices, to_frame


@dataclass(frozen=True)
class Grid:
    """The cells around the ego: `cells` along x and along y, each `size` metres wide. Row 0 begins at x =
    `back`, column 0 at y = minus half the width.
    """

    cells: int = 64
    size: float = 1.0
    back: float = -16.0

    @property
    def corner(self) -> Floats:
        return np.array([self.back, -self.cells * self.size / 2])

    def index(self, points: Floats) -> tuple[Indices, Flags]:
        """The flat cell (...) of points (..., 2) in the ego's frame, and whether each lies in the grid."""
        cell = np.floor((points - self.corner) / self.size).astype(np.int64)
        inside = np.asarray(((cell >= 0) & (cell < self.cells)).all(axis=-1))
        return np.where(inside, cell[..., 0] * self.cells + cell[..., 1], 0), inside

    def centres(self) -> Floats:
        """The middle (cells, cells, 2) of each cell."""
        at = (np.arange(self.cells) + 0.5) * self.size
        x, y = np.meshgrid(at + self.corner[0], at + self.corner[1], indexing="ij")
        return np.stack([x, y], axis=-1)


GRID = Grid()  # of all samples


@dataclass(frozen=True)
class Scanner:
    """A scanner over the ego's centre: rays per turn, range (m), the standard deviation of a range (m), the
    share of returns that are lost, the share of rays that return something that is not there, and how far
    paint can be seen (m).
    """

    rays: int = 720
    reach: float = 60.0
    noise: float = 0.08
    lost: float = 0.08
    ghosts: float = 0.003
    paint_reach: float = 32.0
    paint_lost: float = 0.3


SCANNER = Scanner()


@dataclass(frozen=True)
class Sweep:
    """A turn at each of `t` times: each ray's true range (t, r) and agent (t, r) hit; inf and -1: none."""

    ranges: Floats
    agent: Indices


def cast_rays(pose: Floats, boxes: Floats, present: Flags, scanner: Scanner) -> Sweep:
    """The sweep at poses (t, 3) among boxes (t, a, 5), those that are `present` (t, a).

    By the slab test (Kay and Kajiya, 1986) in the frame of each box; the ego's own box must not be among
    them.
    """
    angle = ray_angles(scanner)
    ranges = np.full((len(pose), scanner.rays), np.inf)
    agent = np.full((len(pose), scanner.rays), -1)
    for a in range(boxes.shape[1]):  # a few dozen; all times and rays at once would not fit a cache
        box = boxes[:, a]
        start = to_frame(pose[:, :2], box[:, :3])  # (t, 2), of the scanner as the box sees it
        turn = pose[:, 2] - box[:, 2]
        near = present[:, a] & (np.hypot(start[:, 0], start[:, 1]) < scanner.reach + 10.0)
        at = np.flatnonzero(near)
        heading = turn[at, None] + angle
        hit = slab(start[at], np.cos(heading), np.sin(heading), box[at, 3:5] / 2)
        closer = hit < ranges[at]
        ranges[at] = np.where(closer, hit, ranges[at])
        agent[at] = np.where(closer, a, agent[at])
    beyond = ranges > scanner.reach
    return Sweep(np.where(beyond, np.inf, ranges), np.where(beyond, -1, agent))


def ray_angles(scanner: Scanner) -> Floats:
    """The direction (r,) of each ray in the ego's frame."""
    return np.linspace(-np.pi, np.pi, 2 * scanner.rays + 1)[1::2]


def slab(start: Floats, cos: Floats, sin: Floats, half: Floats) -> Floats:
    """How far rays (t, r) from `start` (t, 2) go before they enter a box of half sizes (t, 2) about the
    origin along its axes; inf where they miss it or start in it.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.stack([(-half[:, :1] - start[:, :1]) / cos, (half[:, :1] - start[:, :1]) / cos])
        y = np.stack([(-half[:, 1:] - start[:, 1:]) / sin, (half[:, 1:] - start[:, 1:]) / sin])
    enters = np.fmax(x.min(axis=0), y.min(axis=0))
    leaves = np.fmin(x.max(axis=0), y.max(axis=0))
    return np.where((enters <= leaves) & (enters > 0), enters, np.inf)


@dataclass(frozen=True)
class Scan:
    """What one turn of the scanner reports: points (n, 2) and seen paint (m, 2), both in the world; and the
    truth behind it, how many rays hit each agent (a,).
    """

    points: Floats
    paint: Floats
    hits: Indices


def scan(
    pose: Floats,
    boxes: Floats,
    present: Flags,
    *,
    paint: Sequence[Floats],
    seeds: list[tuple[int, int]],
    scanner: Scanner,
) -> list[Scan]:
    """One scan at each of the poses (t, 3), with the paint (n, 2) that is there and the seed of its noise."""
    sweep = cast_rays(pose, boxes, present, scanner)
    scans = []
    for t, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        points = returns(sweep.ranges[t], pose[t], scanner, rng)
        seen = seen_paint(paint[t], sweep.ranges[t], pose[t], scanner, rng)
        hit = sweep.agent[t][sweep.agent[t] >= 0]
        scans.append(Scan(points, paint[t][seen], np.bincount(hit, minlength=boxes.shape[1])))
    return scans


def returns(ranges: Floats, pose: Floats, scanner: Scanner, rng: np.random.Generator) -> Floats:
    """What the scanner reports of one turn of true ranges (r,): points (n, 2) in the world."""
    noise, (lot, ghost) = rng.normal(size=ranges.shape), rng.random((2, *ranges.shape))
    imagined = lot < scanner.ghosts
    far = np.where(imagined, 1.5 + ghost * (scanner.reach - 1.5), ranges + scanner.noise * noise)
    seen = imagined | (np.isfinite(far) & (lot > scanner.ghosts + scanner.lost))
    heading, far = pose[2] + ray_angles(scanner)[seen], far[seen]
    return np.stack([pose[0] + far * np.cos(heading), pose[1] + far * np.sin(heading)], axis=1)


def seen_paint(
    paint: Floats, ranges: Floats, pose: Floats, scanner: Scanner, rng: np.random.Generator
) -> Flags:
    """Which points (n, 2) of paint a turn of ranges (r,) sees: near enough, hidden by nobody, not lost."""
    caught = rng.random(len(paint)) > scanner.paint_lost
    local = to_frame(paint, pose)
    distance = np.hypot(local[:, 0], local[:, 1])
    ray = np.floor((np.arctan2(local[:, 1], local[:, 0]) + np.pi) * scanner.rays / (2 * np.pi))
    first = ranges[ray.astype(np.int64) % scanner.rays]
    return caught & (distance < scanner.paint_reach) & (distance < first)


def layers(scans: Sequence[Scan], red: Floats, pose: Floats) -> NDArray[np.uint8]:
    """The grids (k + 2, 64, 64) at a pose (3,): the returns of `k` scans, the oldest first, all the
    paint that they saw, and points (n, 2) of stop lines that show red.
    """
    paint = np.concatenate([one.paint for one in scans])
    once = np.unique(paint.view(np.complex128))  # numbers are told apart faster
    groups = [*(one.points for one in scans), once.view(np.float64).reshape(-1, 2), red]
    return np.stack([rasterise(points, pose, GRID) for points in groups])


def rasterise(points: Floats, pose: Floats, grid: Grid) -> NDArray[np.uint8]:
    """How many points (n, 2) of the world fall into each cell of the grid at a pose (3,); 255 at most."""
    index, inside = grid.index(to_frame(points, pose))
    counts = np.bincount(index[inside], minlength=grid.cells**2)
    return np.minimum(counts, 255).astype(np.uint8).reshape(grid.cells, grid.cells)
