"""Maps drawn from a seed: crossings, T-junctions, roundabouts, merges and curved stretches of several lanes.

A map is a graph of lanes. A route is a chain of lanes from where traffic enters to where it leaves, and a path
is the line that a vehicle on it drives. Where vehicles on two paths would touch, there is a
zone: the one whose lane has the lower priority lets the other pass.
"""

import functools
import itertools
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from attnsweep.planning.geometry import (
    Floats,
    bezier,
    from_frame,
    headings,
    offset,
    overlap,
    resample,
    stations,
    wrap,
)

KINDS = ("crossing", "tjunction", "roundabout", "merge", "curve")
SPACING = 0.5  # m, between the points of a path
ARM = 110.0  # m, from a junction to where its roads end
METRE = round(1 / SPACING)  # points
TYPICAL = (4.8, 2.6)  # m, a vehicle's length and its width with the distance that it keeps
ON_CROSSWALK = (0.7, 2.4)  # m, the same of someone on foot
SIDE_ACCELERATION = 2.0  # m/s2, in bends
SLOWING = 1.2  # m/s2, towards bends
CELL = 0.5  # m, of the drivable area's grid
MARGIN = 6.0  # m, of that grid around the lanes
SHOULDER = 0.4  # m, drivable beyond the outer edge of a lane
# of a lane, who goes first: the higher one
LEFT_FROM_MINOR, FROM_MINOR, LEFT_FROM_MAJOR, FROM_MAJOR, ON_FOOT = range(5)
GREEN_S, YELLOW_S, CLEARING_S = 8.0, 2.0, 2.0


@dataclass(frozen=True)
class Lane:
    """A lane: its middle `xy` (n, 2), width (m), speed limit (m/s), and the lanes that it leads to.

    `light` is the group of lights that it obeys, or -1, at a line `stop` metres before its end. `inside` marks
    the lanes across a junction.
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

    `light_at` is the arc length of the line at which it obeys the group of lights `light` (-1: none), and `approach` the arc length at which the first junction begins (inf: there is none).
    """

    xy: Floats
    yaw: Floats
    curvature: Floats
    speed: Floats
    priority: NDArray[np.int64]
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
    fronts, to which, for their rears. In a zone that `merges` both go on in one direction, and after its start the one behind follows the one ahead.
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
    light_groups: int = 0

    @functools.cached_property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path_of([self.lanes[i] for i in route]) for route in self.routes)

    @functools.cached_property
    def zones(self) -> tuple[Zone, ...]:
        pairs = itertools.combinations(range(len(self.paths)), 2)
        return tuple(zone for i, j in pairs for zone in zones_of(self.paths, i, j))

    def red(self, green: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which stop lines (..., lines) have a light that is not green, from which groups show green (..., 2)."""
        light = np.array(self.stop_lights, dtype=np.int64)
        return ~green[..., np.maximum(light, 0)] & (light >= 0)

    @functools.cached_property
    def drivable(self) -> "DrivableArea":
        lanes = [lane for lane in self.lanes if not lane.on_foot]
        return drivable_area([*(ribbon(lane.xy, lane.width / 2 + SHOULDER) for lane in lanes), *self.areas])

    @functools.cached_property
    def paint(self) -> Floats:
        """Points (n, 2) of all that is painted, a point each half metre: dividers in dashes, the edges of
        the roads, stop lines, and the bars of crosswalks.
        """
        lines = [dashed(line) for line in self.dividers] + [resample(line, 0.5) for line in self.stop_lines]
        lines += [resample(line, 0.5) for line in self.drivable.contours(SHOULDER)]
        lines += [resample(lane.xy[2:-2], 0.5) for lane in self.lanes if lane.on_foot]
        return np.concatenate(lines)


# --- Paths ---


def path_of(lanes: list[Lane]) -> Path:
    """The path along a chain of lanes, rounded so that its curvature has no jumps."""
    joined = np.concatenate([lanes[0].xy, *(lane.xy[1:] for lane in lanes[1:])])
    xy = rounded(resample(joined, SPACING))
    yaw = headings(xy)
    curvature = np.gradient(yaw, SPACING)
    ends = np.cumsum([stations(lane.xy)[-1] for lane in lanes])
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
        approach=np.inf if inside is None else float(ends[inside] - stations(lanes[inside].xy)[-1]),
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
    """The speed (n,) along a path that limits and bends allow, falling towards each bend no faster than a
    driver slows down.
    """
    speed = np.minimum(limit, np.sqrt(SIDE_ACCELERATION / np.maximum(np.abs(curvature), 1e-4)))
    for i in range(len(speed) - 2, -1, -1):
        speed[i] = min(speed[i], np.sqrt(speed[i + 1] ** 2 + 2 * SLOWING * SPACING))
    return speed


def zones_of(paths: tuple[Path, ...], one: int, other: int) -> list[Zone]:
    """The zones of two paths: where vehicles on them would touch, but for the stretch that they share from
    their start.
    """
    p, q = paths[one], paths[other]
    touching = touches(p, q)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], touching.any(axis=1), [False]])))
    zones = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        columns = np.flatnonzero(touching[start:end].any(axis=0))
        if start == 0 and columns[0] == 0:
            continue
        i, j = METRE * (end - 1), METRE * columns[-1]
        merges = bool(np.abs(wrap(p.yaw[i] - q.yaw[j])) < 0.6) and not (p.on_foot or q.on_foot)
        ranks = int(p.priority[METRE * start]), int(q.priority[METRE * columns[0]])
        first = ranks[0] > ranks[1] or (ranks[0] == ranks[1] and one < other)
        ways = (*front_to_rear(p, start, end - 1), *front_to_rear(q, columns[0], columns[-1]))
        zones.append(Zone(one, other, *ways, merges=merges, one_first=first))
    return zones


def touches(p: Path, q: Path) -> NDArray[np.bool_]:
    """Whether typical vehicles would touch with their centres at each metre of one path and of the other."""
    a, b = standing(p), standing(q)
    near = (a[:, None, 0] - b[:, 0]) ** 2 + (a[:, None, 1] - b[:, 1]) ** 2 < (TYPICAL[0] + 0.7) ** 2
    i, j = np.nonzero(near)
    near[i, j] = overlap(a[i], b[j])
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
        grid = np.clip((points - self.corner) / CELL - 0.5, 0, np.array(self.depth.shape) - 1.001)
        low = grid.astype(np.int64)
        fx, fy = grid[..., 0] - low[..., 0], grid[..., 1] - low[..., 1]
        x, y = low[..., 0], low[..., 1]
        d = self.depth
        left = d[x, y] * (1 - fy) + d[x, y + 1] * fy
        return left * (1 - fx) + (d[x + 1, y] * (1 - fy) + d[x + 1, y + 1] * fy) * fx

    def contours(self, depth: float = 0.0) -> list[Floats]:
        """The lines (n, 2) along which the area is that deep; 0: its border."""
        import contourpy

        x, y = (self.corner[k] + CELL * (np.arange(self.depth.shape[k]) + 0.5) for k in range(2))
        found = contourpy.contour_generator(x, y, self.depth.T).lines(depth)
        return [np.asarray(line) for line in found if len(line) > 8]


def drivable_area(polygons: list[Floats]) -> DrivableArea:
    """The union of polygons (n, 2), drawn at half the cell and measured by the exact Euclidean distance
    transform.
    """
    from scipy.ndimage import distance_transform_edt

    points = np.concatenate(polygons)
    corner = np.floor(points.min(axis=0) - MARGIN)
    size = np.ceil((points.max(axis=0) + MARGIN - corner) / CELL).astype(int)
    fine = 2
    image = Image.new("1", (int(size[1]) * fine, int(size[0]) * fine))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        cells = (polygon - corner) / CELL * fine - 0.5
        draw.polygon([(float(y), float(x)) for x, y in cells], fill=1)
    inside = np.asarray(image, dtype=bool)
    depth = (distance_transform_edt(inside) - distance_transform_edt(~inside)) * CELL / fine
    depth = depth.reshape(size[0], fine, size[1], fine).mean(axis=(1, 3))
    return DrivableArea(corner, depth.astype(np.float32))


def dashed(xy: Floats, dash: float = 3.0) -> Floats:
    """Points of a polyline, a point each half metre, in dashes and gaps of equal length."""
    points = resample(xy, 0.5)
    return points[(np.arange(len(points)) * 0.5) % (2 * dash) < dash]


def ribbon(xy: Floats, half: float) -> Floats:
    """The polygon (2 n, 2) around a polyline."""
    return np.concatenate([offset(xy, half), offset(xy, -half)[::-1]])


# --- Roads that end in a junction ---


@dataclass(frozen=True)
class Arm:
    """A road that leads out of a junction: its middle line from there, and its lanes each way."""

    xy: Floats
    inward: int
    outward: int
    width: float
    speed_limit: float

    def out_lane(self, k: int) -> Floats:
        return offset(self.xy, -(k + 0.5) * self.width)

    def in_lane(self, k: int) -> Floats:
        return offset(self.xy, (k + 0.5) * self.width)[::-1]


def draw_arm(
    rng: np.random.Generator,
    *,
    angle: float,
    start: float,
    lanes: tuple[int, int],
    width: float,
    speed_limit: float,
) -> Arm:
    """A road from `start` metres off the origin outward in the direction `angle`, straight at first and then
    bent.
    """
    s = np.arange(0.0, ARM, 1.0)
    bend = rng.choice([0.0, rng.uniform(-1, 1) / 90])
    yaw = angle + bend * np.clip(s - 15.0, 0, 50.0)
    steps = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)[:-1]
    xy = start * np.array([np.cos(angle), np.sin(angle)]) + np.concatenate(
        [np.zeros((1, 2)), np.cumsum(steps, axis=0)]
    )
    return Arm(xy, lanes[0], lanes[1], width, speed_limit)


class Draft:
    """A map while it is drawn: lanes are added, then joined."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.dividers: list[Floats] = []
        self.stop_lines: list[Floats] = []
        self.stop_lights: list[int] = []
        self.areas: list[Floats] = []
        self.bays: list[Floats] = []

    def add(
        self,
        xy: Floats,
        width: float,
        speed_limit: float,
        *,
        priority: int = FROM_MAJOR,
        inside: bool = False,
        light: int = -1,
        stop: float = 0.0,
        on_foot: bool = False,
    ) -> int:
        """A new lane's index."""
        lane = Lane(resample(xy, 1.0), width, speed_limit, (), priority, inside, light, stop, on_foot)
        self.lanes.append(lane)
        return len(self.lanes) - 1

    def join(self, one: int, other: int) -> None:
        lane = self.lanes[one]
        self.lanes[one] = replace(lane, successors=(*lane.successors, other))

    def connect(self, one: int, other: int, priority: int) -> int:
        """A lane across the junction from the end of one lane to the start of another."""
        a, b = self.lanes[one], self.lanes[other]
        start = np.array([*a.xy[-1], headings(a.xy)[-1]])
        end = np.array([*b.xy[0], headings(b.xy)[0]])
        limit = min(a.speed_limit, b.speed_limit)
        lane = self.add(bezier(start, end), min(a.width, b.width), limit, priority=priority, inside=True)
        self.join(one, lane)
        self.join(lane, other)
        return lane

    def add_arm(
        self, arm: Arm, *, light: int = -1, priority: int = FROM_MAJOR, crosswalk: int = 0
    ) -> tuple[list[int], list[int]]:
        """The lanes into and out of the junction, innermost first, with their paint; a crosswalk, where there
        is one, lies `crosswalk` metres from the junction.
        """
        stop = crosswalk + 3 if crosswalk else 0
        width, limit = arm.width, arm.speed_limit
        inward = [
            self.add(arm.in_lane(k), width, limit, priority=priority, light=light, stop=stop)
            for k in range(arm.inward)
        ]
        outward = [self.add(arm.out_lane(k), width, limit, priority=priority) for k in range(arm.outward)]
        self.dividers += [offset(arm.xy, k * width) for k in range(1 - arm.outward, arm.inward)]
        self.stop_lines.append(np.array([arm.xy[stop], offset(arm.xy, arm.inward * width)[stop]]))
        self.stop_lights.append(light)
        if crosswalk:
            self.add_crosswalk(arm, crosswalk)
        return inward, outward

    def add_bays(self, rng: np.random.Generator, arm: Arm) -> None:
        """A strip beside the road on which cars may park, on one of its sides."""
        inward = bool(rng.integers(2))
        lanes = arm.inward if inward else arm.outward
        first, last = int(rng.uniform(14, 20)), int(rng.uniform(45, 75))
        side = (1 if inward else -1) * (lanes * arm.width + 1.1)
        strip = offset(arm.xy, side)[first:last]
        self.areas.append(ribbon(strip, 1.3))
        turn = np.pi if inward else 0.0
        self.bays += [np.array([*strip[i], headings(strip)[i] + turn]) for i in range(3, len(strip) - 3, 7)]

    def add_crosswalk(self, arm: Arm, at: int) -> None:
        """The two ways on foot across a road, `at` metres from the junction."""
        side = (arm.inward * arm.width + 2.5, -arm.outward * arm.width - 2.5)
        ends = [offset(arm.xy, distance)[at] for distance in side]
        along = offset(arm.xy, 0.0)[at + 1] - arm.xy[at]
        for (start, end), shift in zip((ends, ends[::-1]), (0.6, -0.6), strict=True):
            line = np.array([start, end]) + shift * along
            self.add(resample(line, 1.0), 2.0, 2.0, priority=ON_FOOT, on_foot=True)

    def finish(self, seed: int, kind: str, light_groups: int = 0) -> RoadMap:
        return RoadMap(
            seed=seed,
            kind=kind,
            lanes=tuple(self.lanes),
            routes=routes_of(self.lanes),
            dividers=tuple(self.dividers),
            stop_lines=tuple(self.stop_lines),
            stop_lights=tuple(self.stop_lights),
            areas=tuple(self.areas),
            bays=np.array(self.bays).reshape(-1, 3),
            light_groups=light_groups,
        )


def routes_of(lanes: list[Lane]) -> tuple[tuple[int, ...], ...]:
    """Every chain from a lane that none leads to, to a lane that leads nowhere; none turns back along the
    road that it came by, and none goes round a roundabout more than once.
    """
    led_to = {after for lane in lanes for after in lane.successors}
    open_chains = [(i,) for i in range(len(lanes)) if i not in led_to]
    routes = []
    while open_chains:
        chain = open_chains.pop(0)
        after = lanes[chain[-1]].successors
        if not after and not turns_back(lanes[chain[0]], lanes[chain[-1]]):
            routes.append(chain)
        open_chains += [(*chain, lane) for lane in after if lane not in chain]
    return tuple(sorted(routes))


def turns_back(first: Lane, last: Lane) -> bool:
    """Whether the last lane leads out beside the one that the first leads in by."""
    gap = np.hypot(*(first.xy[-1] - last.xy[0]))
    turn = np.abs(wrap(headings(first.xy)[-1] - headings(last.xy)[0]))
    return first is not last and bool(turn > 2.8 and gap < 12.0)


# --- The kinds of map ---


def draw_map(seed: int, *, kinds: tuple[str, ...] = KINDS, full: bool = False) -> RoadMap:
    """The map of that seed. `full` adds lights at some crossings, crosswalks, and bays for parked cars."""
    rng = np.random.default_rng([seed, 1])
    kind = str(rng.choice(kinds))
    if kind in ("crossing", "tjunction"):
        return junction(rng, seed, kind, full=full)
    return {"roundabout": roundabout, "merge": merge, "curve": curve}[kind](rng, seed, full=full)


def junction(rng: np.random.Generator, seed: int, kind: str, *, full: bool) -> RoadMap:
    """Four or three roads that meet; a major one has priority, or lights tell who goes."""
    width, turned = rng.uniform(3.3, 4.0), rng.uniform(0, 2 * np.pi)
    angles = np.arange(4) * np.pi / 2 + rng.uniform(-1, 1, 4) * np.radians(12)
    major = int(rng.integers(2))
    wide = int(rng.choice([1, 2], p=[0.7, 0.3]))
    lanes = [wide if k % 2 == major else 1 for k in range(4)]
    lit = full and kind == "crossing" and rng.random() < 0.5
    start = max(lanes) * width + rng.uniform(5.5, 8.0)
    missing = int(rng.choice([k for k in range(4) if k % 2 != major]))
    arms = [k for k in range(4) if kind == "crossing" or k != missing]
    limits = {k: rng.uniform(9.0, 12.0) if k % 2 == major else rng.uniform(8.0, 10.0) for k in range(4)}
    draft = Draft()
    roads, ways = {}, {}
    for k in arms:
        size = (lanes[k], lanes[k])
        roads[k] = draw_arm(
            rng, angle=turned + angles[k], start=start, lanes=size, width=width, speed_limit=limits[k]
        )
        ways[k] = draft.add_arm(
            roads[k], light=k % 2 if lit else -1, crosswalk=draw_crosswalk(rng) if full else 0
        )
        if full and rng.random() < 0.6:
            draft.add_bays(rng, roads[k])
    for a, b in itertools.permutations(arms, 2):
        turn = (b - a) % 4  # 1: to the right, 2: straight on, 3: to the left
        first = lit or a % 2 == major
        priority = {True: (FROM_MAJOR, LEFT_FROM_MAJOR), False: (FROM_MINOR, LEFT_FROM_MINOR)}[first]
        for one, other in lanes_across(ways[a][0], ways[b][1], turn):
            draft.connect(one, other, priority[turn == 3])
    mouths = [ribbon(road.xy[:2], road.inward * width + SHOULDER)[[0, 3]] for road in roads.values()]
    draft.areas.append(np.concatenate([mouth[::-1] for mouth in mouths]))
    return draft.finish(seed, kind, light_groups=2 if lit else 0)


def lanes_across(inward: list[int], outward: list[int], turn: int) -> list[tuple[int, int]]:
    """Which lane leads to which: turns from and to the outermost or innermost, straight on side by side."""
    if turn == 1:
        return [(inward[-1], outward[-1])]
    if turn == 3:
        return [(inward[0], outward[0])]
    return list(zip(inward, outward, strict=False))


def draw_crosswalk(rng: np.random.Generator) -> int:
    """How far from the junction a crosswalk lies, in metres; 0: there is none."""
    return int(rng.integers(3, 6)) if rng.random() < 0.5 else 0


def roundabout(rng: np.random.Generator, seed: int, *, full: bool) -> RoadMap:
    """Three or four roads around a circle of one lane, on which traffic has priority."""
    width, turned = rng.uniform(3.5, 4.2), rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(13.0, 18.0)
    count = int(rng.choice([3, 4]))
    angles = turned + np.arange(count) * 2 * np.pi / count + rng.uniform(-1, 1, count) * np.radians(8)
    start, spread = radius + rng.uniform(11.0, 14.0), rng.uniform(0.48, 0.58)
    limit = rng.uniform(8.0, 11.0)
    draft = Draft()
    roads = [
        draw_arm(rng, angle=a, start=start, lanes=(1, 1), width=width, speed_limit=limit) for a in angles
    ]
    ways = []
    for road in roads:
        crosswalk = draw_crosswalk(rng) if full else 0
        ways.append(draft.add_arm(road, priority=FROM_MINOR, crosswalk=crosswalk))
        if full and rng.random() < 0.6:
            draft.add_bays(rng, road)
    bounds = np.concatenate([[a - spread, a + spread] for a in angles])  # leaves, enters, leaves, ...
    arcs = []
    for k, first in enumerate(bounds):
        last = bounds[(k + 1) % len(bounds)]
        turn = np.linspace(first, first + (last - first) % (2 * np.pi), 40)
        arc = radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        arcs.append(draft.add(arc, width, limit, priority=FROM_MAJOR, inside=True))
    for k in range(count):
        draft.connect(ways[k][0][0], arcs[2 * k + 1], FROM_MINOR)
        draft.connect(arcs[2 * k - 1], ways[k][1][0], FROM_MAJOR)
        draft.join(arcs[2 * k - 1], arcs[2 * k])
        draft.join(arcs[2 * k], arcs[2 * k + 1])
    return draft.finish(seed, "roundabout")


def bent_road(rng: np.random.Generator, length: float, sharpest: float) -> Floats:
    """A line (n, 2) a point each metre, with bends that come and go and never turn it round, through
    the origin halfway."""
    s = np.arange(0.0, length, 1.0)
    curvature = sum(
        rng.uniform(-1, 1) * sharpest * np.exp(-(((s - rng.uniform(0.2, 0.8) * length) / 25) ** 2))
        for _ in range(3)
    )
    turned = np.cumsum(np.clip(curvature, -sharpest, sharpest))
    yaw = rng.uniform(0, 2 * np.pi) + turned * min(1.0, 2.4 / np.ptp(turned))
    xy = np.cumsum(np.stack([np.cos(yaw), np.sin(yaw)], axis=1), axis=0)
    return xy - xy[len(xy) // 2]


def merge(rng: np.random.Generator, seed: int, *, full: bool) -> RoadMap:
    """A road of one or two lanes in one direction, which a ramp joins from the right."""
    width, limit, lanes = rng.uniform(3.4, 3.9), rng.uniform(10.0, 13.5), int(rng.choice([1, 2]))
    middle = bent_road(rng, 2 * ARM + 40, 1 / 160)
    meets = int(rng.uniform(95, 125))
    draft = Draft()
    across = [offset(middle, -(k + 0.5) * width) for k in range(lanes)]
    before = [draft.add(xy[: meets + 1], width, limit) for xy in across]
    after = [draft.add(xy[meets:], width, limit) for xy in across]
    for one, other in zip(before, after, strict=True):
        draft.join(one, other)
    draft.dividers += [offset(middle, -k * width) for k in range(1, lanes)]
    strip = int(rng.uniform(40, 60))  # metres, in which the ramp comes over
    side = offset(across[-1], -width - 0.6)
    end = side[meets - strip]
    turn = headings(side)[meets - strip] + rng.uniform(0.1, 0.25)
    ramp = from_frame(np.stack([np.arange(-85.0, 1.0), np.zeros(86)], axis=1), np.array([*end, turn]))
    apart = 0.0015 * np.arange(85.0, -1.0, -1.0) ** 2
    entry = draft.add(offset(ramp, -apart), width, 0.9 * limit, priority=FROM_MINOR)
    draft.connect(entry, after[-1], FROM_MINOR)
    draft.areas.append(
        np.concatenate([across[-1][meets - strip : meets + 1], side[meets - strip : meets][::-1]])
    )
    return draft.finish(seed, "merge")


def curve(rng: np.random.Generator, seed: int, *, full: bool) -> RoadMap:
    """A bent road of one to three lanes each way, with places at which traffic changes lane."""
    width, limit = rng.uniform(3.3, 3.9), rng.uniform(9.0, 13.5)
    lanes = int(rng.choice([1, 2, 3], p=[0.3, 0.5, 0.2]))
    middle = bent_road(rng, 2 * ARM + 40, 1 / 22 if lanes == 1 else 1 / 45)
    draft = Draft()
    for line in (middle, middle[::-1]):
        across = [offset(line, -(k + 0.5) * width) for k in range(lanes)]
        leave, arrive = int(rng.uniform(70, 110)), int(rng.uniform(28, 40))
        parts = [
            [
                draft.add(part, width, limit)
                for part in (xy[: leave + 1], xy[leave : leave + arrive + 1], xy[leave + arrive :])
            ]
            for xy in across
        ]
        for one, two, three in parts:
            draft.join(one, two)
            draft.join(two, three)
        for k in range(lanes - 1):
            a, b = (k, k + 1) if rng.random() < 0.5 else (k + 1, k)
            draft.connect(parts[a][0], parts[b][2], FROM_MINOR)
        draft.dividers += [offset(line, -k * width) for k in range(1, lanes)]
    draft.dividers.append(middle)
    if full:
        road = Arm(middle[40:], lanes, lanes, width, limit)
        draft.add_crosswalk(road, at=int(rng.integers(60, 80)))
        draft.add_bays(rng, Arm(middle[10:120], lanes, lanes, width, limit))
    return draft.finish(seed, "curve")
