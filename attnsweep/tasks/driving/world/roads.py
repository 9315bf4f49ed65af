"""What a map is: lanes with their borders, junctions, lights and routes.

A map is a graph of lanes. A route is a chain of lanes from where traffic enters to where it
leaves, and a path is the line that a vehicle on it drives. Where vehicles on two paths would touch, there is
a zone: the one whose lane has the lower priority lets the other pass.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from attnsweep.tasks.driving.world import geometry
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices
from attnsweep.tasks.driving.world.ground import Ground, Strip

SPACING = 0.5  # m, between the points of a path
METRE = round(1 / SPACING)  # points
TYPICAL = (4.8, 2.6)  # m, a vehicle's length and its width with the distance that it keeps
ON_CROSSWALK = (0.7, 2.4)  # m, the same of someone on foot
SIDE_ACCELERATION = 2.0  # m/s2, in bends
SLOWING = 1.2  # m/s2, towards bends
CELL = 0.5  # m, of the drivable area's grid
MARGIN = 6.0  # m, of that grid around the lanes
SMALLEST_GAP = 25.0  # m2; what is smaller between lanes is paint and no kerb
SHOULDER = 0.4  # m, drivable beyond the outer edge of a lane
# of a lane, who goes first: the higher one
LEFT_FROM_MINOR, FROM_MINOR, LEFT_FROM_MAJOR, FROM_MAJOR, ON_FOOT = range(5)
GREEN_S, YELLOW_S, CLEARING_S = 8.0, 2.0, 2.0


@dataclass(frozen=True)
class Lane:
    """A lane: its middle `xy` (n, 2), width (m), speed limit (m/s), and the lanes that it leads to.

    `light` is the group of lights that it obeys, or -1, at a line `stop` metres before its end. `inside`
    marks the lanes across a junction.
    """

    xy: Floats
    width: float
    speed_limit: float
    successors: tuple[int, ...] = ()
    priority: int = FROM_MAJOR
    inside: bool = False
    light: int = -1
    stop: float = 0.0
    on_foot: bool = False


@dataclass(frozen=True)
class Path:
    """The line that a vehicle drives along a route, a point each 0.5 m: position (n, 2), direction,
    curvature, the speed that bends and limits allow, and the priority of the lane there, each (n,).

    `light_at` is the arc length of the line at which it obeys the group of lights `light` (-1: none), and
    `approach` the arc length at which the first junction begins (inf: there is none).
    """

    xy: Floats
    yaw: Floats
    curvature: Floats
    speed: Floats
    priority: Indices
    width: float
    light: int
    light_at: float
    approach: float
    on_foot: bool

    @property
    def length(self) -> float:
        return SPACING * (len(self.xy) - 1)


@dataclass(frozen=True)
class Zone:
    """Where vehicles on path `one` and path `other` would touch: from which arc length of each, for their
    fronts, to which, for their rears. In a zone that `merges` both go on in one direction, and after its
    start the one behind follows the one ahead.
    """

    one: int
    other: int
    one_from: float
    one_to: float
    other_from: float
    other_to: float
    merges: bool
    one_first: bool


@dataclass(frozen=True)
class RoadMap:
    """A map. `dividers` are the painted lines between lanes, `stop_lines` those across them; `bays` are the
    poses (n, 3) at which cars may park; `routes` are chains of lanes.
    """

    seed: int
    kind: str
    lanes: tuple[Lane, ...]
    routes: tuple[tuple[int, ...], ...]
    dividers: tuple[Floats, ...]
    stop_lines: tuple[Floats, ...] = ()
    stop_lights: tuple[int, ...] = ()  # the group of lights of each stop line, or -1
    areas: tuple[Floats, ...] = ()  # polygons (n, 2) that are drivable besides the lanes
    bays: Floats = field(default_factory=lambda: np.zeros((0, 3)))

    @functools.cached_property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path_of([self.lanes[i] for i in route]) for route in self.routes)

    @functools.cached_property
    def zones(self) -> tuple[Zone, ...]:
        pairs = itertools.combinations(range(len(self.paths)), 2)
        return tuple(zone for i, j in pairs for zone in zones_of(self.paths, i, j))

    def red(self, green: Flags) -> Flags:
        """Which stop lines (..., lines) have a light that is not green, from which groups show (..., 2)."""
        light = np.array(self.stop_lights, dtype=np.int64)
        return ~green[..., np.maximum(light, 0)] & (light >= 0)

    @functools.cached_property
    def drivable(self) -> "DrivableArea":
        lanes = [lane for lane in self.lanes if not lane.on_foot]
        return drivable_area([*(ribbon(lane.xy, lane.width / 2 + SHOULDER) for lane in lanes), *self.areas])

    @functools.cached_property
    def ground(self) -> Ground:
        """The road and its lanes as exact polygons."""
        kept = [i for i, lane in enumerate(self.lanes) if not lane.on_foot]
        strips = [
            Strip(lane.xy, lane.width, tuple(kept.index(k) for k in lane.successors), lane.inside)
            for lane in (self.lanes[i] for i in kept)
        ]
        return Ground(strips, self.areas, shoulder=SHOULDER, smallest_hole=SMALLEST_GAP)

    @functools.cached_property
    def paint(self) -> Floats:
        """Points (n, 2) of all that is painted, a point each half metre: dividers in dashes, the edges of
        the roads, stop lines, and the bars of crosswalks.
        """
        solid = [*self.stop_lines, *self.drivable.contours(SHOULDER)]
        solid += [lane.xy[2:-2] for lane in self.lanes if lane.on_foot]
        lines = [dashed(line) for line in self.dividers] + [geometry.resample(line, 0.5) for line in solid]
        return np.concatenate(lines)


# --- Paths ---


def path_of(lanes: list[Lane]) -> Path:
    """The path along a chain of lanes, rounded so that its curvature has no jumps."""
    joined = np.concatenate([lanes[0].xy, *(lane.xy[1:] for lane in lanes[1:])])
    xy = rounded(geometry.resample(joined, SPACING))
    yaw = geometry.headings(xy)
    curvature = np.gradient(yaw, SPACING)
    ends = np.cumsum([geometry.stations(lane.xy)[-1] for lane in lanes])
    s = np.linspace(0, ends[-1], len(xy))
    which = np.minimum(np.searchsorted(ends, s), len(lanes) - 1)
    limit = np.array([lane.speed_limit for lane in lanes])[which]
    lit = next((i for i, lane in enumerate(lanes) if lane.light >= 0), None)
    inside = next((i for i, lane in enumerate(lanes) if lane.inside), None)
    return Path(
        xy=xy,
        yaw=yaw,
        curvature=curvature,
        speed=allowed_speed(limit, curvature),
        priority=np.array([lane.priority for lane in lanes])[which],
        width=min(lane.width for lane in lanes),
        light=-1 if lit is None else lanes[lit].light,
        light_at=0.0 if lit is None else float(ends[lit]) - lanes[lit].stop,
        approach=np.inf if inside is None else float(ends[inside] - geometry.stations(lanes[inside].xy)[-1]),
        on_foot=lanes[0].on_foot,
    )


def rounded(xy: Floats, sigma: float = 1.5) -> Floats:
    """The polyline smoothed by a Gaussian of `sigma` metres along its length, its ends kept."""
    reach = round(3 * sigma / SPACING)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) * SPACING / sigma) ** 2)
    before = 2 * xy[0] - xy[reach:0:-1]
    after = 2 * xy[-1] - xy[-2 : -reach - 2 : -1]
    padded = np.concatenate([before, xy, after])
    return np.stack([np.convolve(padded[:, k], weights / weights.sum(), "valid") for k in range(2)], axis=1)


def allowed_speed(limit: Floats, curvature: Floats) -> Floats:
    """The speed (n,) along a path that limits and bends allow, falling no faster than drivers slow down."""
    speed = np.minimum(limit, np.sqrt(SIDE_ACCELERATION / np.maximum(np.abs(curvature), 1e-4)))
    for i in range(len(speed) - 2, -1, -1):
        speed[i] = min(speed[i], np.sqrt(speed[i + 1] ** 2 + 2 * SLOWING * SPACING))
    return speed


def zones_of(paths: tuple[Path, ...], one: int, other: int) -> list[Zone]:
    """The zones of two paths: where vehicles on them would touch, but for a start that they share."""
    p, q = paths[one], paths[other]
    touching = touches(p, q)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], touching.any(axis=1), [False]])))
    zones = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        columns = np.flatnonzero(touching[start:end].any(axis=0))
        if start == 0 and columns[0] == 0:
            continue
        i, j = METRE * (end - 1), METRE * columns[-1]
        merges = bool(np.abs(geometry.wrap(p.yaw[i] - q.yaw[j])) < 0.6) and not (p.on_foot or q.on_foot)
        ranks = int(p.priority[METRE * start]), int(q.priority[METRE * columns[0]])
        first = ranks[0] > ranks[1] or (ranks[0] == ranks[1] and one < other)
        ways = (*front_to_rear(p, start, end - 1), *front_to_rear(q, columns[0], columns[-1]))
        zones.append(Zone(one, other, *ways, merges=merges, one_first=first))
    return zones


def touches(p: Path, q: Path) -> Flags:
    """Whether typical vehicles would touch with their centres at each metre of one path and of the other."""
    a, b = standing(p), standing(q)
    near = (a[:, None, 0] - b[:, 0]) ** 2 + (a[:, None, 1] - b[:, 1]) ** 2 < (TYPICAL[0] + 0.7) ** 2
    i, j = np.nonzero(near)
    near[i, j] = geometry.overlap(a[i], b[j])
    return near


def standing(path: Path) -> Floats:
    """The boxes (n, 5) of a typical vehicle at each metre of a path, turned as it is when it comes along."""
    length, width = ON_CROSSWALK if path.on_foot else TYPICAL
    yaw = path.yaw - np.arcsin(np.clip(0.3 * length * path.curvature, -0.5, 0.5))
    boxes = np.stack([*path.xy.T, yaw, np.full(len(yaw), length), np.full(len(yaw), width)], axis=1)
    return boxes[::METRE]


def front_to_rear(path: Path, first: int, last: int) -> tuple[float, float]:
    """From where, for the front, to where, for the rear, a zone reaches that a typical vehicle's centre is in
    from metre `first` to metre `last`.
    """
    half = (ON_CROSSWALK if path.on_foot else TYPICAL)[0] / 2
    return first + half, max(last - half, first + half)


# --- The drivable area ---


@dataclass(frozen=True)
class DrivableArea:
    """How far each cell of a grid lies within the drivable area, in metres, negative outside of it."""

    corner: Floats  # (2,) of the grid: its lowest x and y
    depth: NDArray[np.float32]  # (x, y)

    def at(self, points: Floats) -> Floats:
        """The depth (...) at world points (..., 2), interpolated between cells; exact to about 0.2 m."""
        return geometry.between_cells(self.depth, (points - self.corner) / CELL)

    def contours(self, depth: float = 0.0) -> list[Floats]:
        """The lines (n, 2) along which the area is that deep; 0: its border."""
        import contourpy

        x, y = (self.corner[k] + CELL * (np.arange(self.depth.shape[k]) + 0.5) for k in range(2))
        found = contourpy.contour_generator(x, y, self.depth.T).lines(depth)
        return [np.asarray(line) for line in found if len(line) > 8]


def drivable_area(
    polygons: Sequence[Floats], *, holes: Sequence[Sequence[Floats]] = (), within: Floats | None = None
) -> DrivableArea:
    """The union of polygons (n, 2), drawn at half the cell and measured by the exact Euclidean distance
    transform. Gaps that are too small to be islands are filled.

    `holes` are those of each polygon, in the same order; `within` (2, 2), the lowest and the highest x and y,
    bounds the area to what lies there and around.
    """
    from scipy.ndimage import distance_transform_edt, label

    points = np.concatenate(polygons) if within is None else within
    corner = np.floor(points.min(axis=0) - MARGIN)
    size = np.ceil((points.max(axis=0) + MARGIN - corner) / CELL).astype(int)
    fine = 2
    pierced = list(holes) or [()] * len(polygons)
    whole = [polygon for polygon, own in zip(polygons, pierced, strict=True) if not own]
    inside = filled(whole, corner, size * fine, CELL / fine)
    for polygon, own in zip(polygons, pierced, strict=True):
        if own:
            solid = filled([polygon], corner, size * fine, CELL / fine)
            inside |= solid & ~filled(own, corner, size * fine, CELL / fine)
    gaps, _ = label(~inside)
    inside |= (np.bincount(gaps.ravel()) * (CELL / fine) ** 2 < SMALLEST_GAP)[gaps]
    depth = (distance_transform_edt(inside) - distance_transform_edt(~inside)) * CELL / fine
    depth = depth.reshape(size[0], fine, size[1], fine).mean(axis=(1, 3))
    return DrivableArea(corner, depth.astype(np.float32))


def filled(polygons: Sequence[Floats], corner: Floats, size: Indices, cell: float) -> Flags:
    """The cells (x, y) of a grid of that size from a corner on that lie in one of the polygons."""
    image = Image.new("1", (int(size[1]), int(size[0])))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        cells = (polygon - corner) / cell - 0.5
        draw.polygon([(float(y), float(x)) for x, y in cells], fill=1)
    return np.array(image, dtype=bool)


def dashed(xy: Floats, dash: float = 3.0) -> Floats:
    """Points of a polyline, a point each half metre, in dashes and gaps of equal length."""
    points = geometry.resample(xy, 0.5)
    return points[(np.arange(len(points)) * 0.5) % (2 * dash) < dash]


def ribbon(xy: Floats, half: float) -> Floats:
    """The polygon (2 n, 2) around a polyline."""
    return np.concatenate([geometry.offset(xy, half), geometry.offset(xy, -half)[::-1]])
