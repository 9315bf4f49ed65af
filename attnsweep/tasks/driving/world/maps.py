"""Maps drawn from a seed: crossings, T-junctions, roundabouts, merges and curved roads of several lanes."""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from attnsweep.tasks.driving.world import geometry
from attnsweep.tasks.driving.world.geometry import Floats
from attnsweep.tasks.driving.world.roads import (
    FROM_MAJOR,
    FROM_MINOR,
    LEFT_FROM_MAJOR,
    LEFT_FROM_MINOR,
    ON_FOOT,
    SHOULDER,
    Lane,
    RoadMap,
    ribbon,
)

KINDS = ("crossing", "tjunction", "roundabout", "merge", "curve")
ARM = 110.0  # m, from a junction to where its roads end


# --- Roads that end in a junction ---


@dataclass(frozen=True)
class Arm:
    """A road that leads out of a junction: its middle line from there, and how many lanes it has each way."""

    xy: Floats
    lanes: int
    width: float
    speed_limit: float

    def out_lane(self, k: int) -> Floats:
        return geometry.offset(self.xy, -(k + 0.5) * self.width)

    def in_lane(self, k: int) -> Floats:
        return geometry.offset(self.xy, (k + 0.5) * self.width)[::-1]


def draw_arm(
    rng: np.random.Generator, *, angle: float, start: float, lanes: int, width: float, speed_limit: float
) -> Arm:
    """A road that leads off in a direction from `start` metres off the origin, straight and then bent."""
    s = np.arange(0.0, ARM, 1.0)
    bend = rng.choice([0.0, rng.uniform(-1, 1) / 90])
    yaw = angle + bend * np.clip(s - 15.0, 0, 50.0)
    steps = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)[:-1]
    way = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return Arm(start * np.array([np.cos(angle), np.sin(angle)]) + way, lanes, width, speed_limit)


class Draft:
    """A map while it is drawn: lanes are added, then joined."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.dividers: list[Floats] = []
        self.stop_lines: list[Floats] = []
        self.stop_lights: list[int] = []
        self.areas: list[Floats] = []
        self.bays: list[Floats] = []

    def add(self, lane: Lane) -> int:
        """A new lane's index; it gets a point each metre."""
        self.lanes.append(replace(lane, xy=geometry.resample(lane.xy, 1.0)))
        return len(self.lanes) - 1

    def join(self, one: int, other: int) -> None:
        lane = self.lanes[one]
        self.lanes[one] = replace(lane, successors=(*lane.successors, other))

    def connect(self, one: int, other: int, priority: int) -> int:
        """A lane across the junction from the end of one lane to the start of another."""
        a, b = self.lanes[one], self.lanes[other]
        start = np.array([*a.xy[-1], geometry.headings(a.xy)[-1]])
        end = np.array([*b.xy[0], geometry.headings(b.xy)[0]])
        limit = min(a.speed_limit, b.speed_limit)
        width, line = min(a.width, b.width), geometry.bezier(start, end)
        lane = self.add(Lane(line, width, limit, priority=priority, inside=True))
        self.join(one, lane)
        self.join(lane, other)
        return lane

    def add_arm(
        self, rng: np.random.Generator, arm: Arm, *, full: bool, light: int = -1, priority: int = FROM_MAJOR
    ) -> tuple[list[int], list[int]]:
        """The lanes into and out of the junction, innermost first, with their paint; `full`: with a crosswalk
        a few metres from the junction and bays beside the road, or without.
        """
        crosswalk = int(rng.integers(3, 6)) if full and rng.random() < 0.5 else 0
        stop = crosswalk + 3 if crosswalk else 0
        width, limit, lanes = arm.width, arm.speed_limit, range(arm.lanes)
        inward = [
            self.add(Lane(arm.in_lane(k), width, limit, priority=priority, light=light, stop=stop))
            for k in lanes
        ]
        outward = [self.add(Lane(arm.out_lane(k), width, limit, priority=priority)) for k in lanes]
        self.dividers += [geometry.offset(arm.xy, k * width) for k in range(1 - arm.lanes, arm.lanes)]
        self.stop_lines.append(np.array([arm.xy[stop], geometry.offset(arm.xy, arm.lanes * width)[stop]]))
        self.stop_lights.append(light)
        if crosswalk:
            self.add_crosswalk(arm, crosswalk)
        if full and rng.random() < 0.6:
            self.add_bays(rng, arm)
        return inward, outward

    def add_bays(self, rng: np.random.Generator, arm: Arm) -> None:
        """A strip beside the road on which cars may park, on one of its sides."""
        inward = bool(rng.integers(2))
        first, last = int(rng.uniform(14, 20)), int(rng.uniform(45, 75))
        side = (1 if inward else -1) * (arm.lanes * arm.width + 1.1)
        strip = geometry.offset(arm.xy, side)[first:last]
        self.areas.append(ribbon(strip, 1.3))
        turn = np.pi if inward else 0.0
        poses = np.column_stack([strip, geometry.headings(strip) + turn])
        self.bays += [*poses[3:-3:7]]

    def add_crosswalk(self, arm: Arm, at: int) -> None:
        """The two ways on foot across a road, `at` metres from the junction."""
        side = arm.lanes * arm.width + 2.5
        ends = [geometry.offset(arm.xy, distance)[at] for distance in (side, -side)]
        along = geometry.offset(arm.xy, 0.0)[at + 1] - arm.xy[at]
        for (start, end), shift in zip((ends, ends[::-1]), (0.6, -0.6), strict=True):
            line = np.array([start, end]) + shift * along
            self.add(Lane(geometry.resample(line, 1.0), 2.0, 2.0, priority=ON_FOOT, on_foot=True))

    def finish(self, seed: int, kind: str) -> RoadMap:
        """The map, with all routes through it."""
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
        )


def routes_of(lanes: list[Lane]) -> tuple[tuple[int, ...], ...]:
    """Every chain from a lane that none leads to, to a lane that leads nowhere; none turns back along the
    road that it came by, and none goes round a roundabout more than once.
    """
    led_to = {after for lane in lanes for after in lane.successors}
    open_chains: list[tuple[int, ...]] = [(i,) for i in range(len(lanes)) if i not in led_to]
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
    turn = np.abs(geometry.wrap(geometry.headings(first.xy)[-1] - geometry.headings(last.xy)[0]))
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
    angles = np.arange(4) * np.pi / 2 + rng.uniform(-1, 1, 4) * np.radians(10)
    major = int(rng.integers(2))
    wide = int(rng.choice([1, 2], p=[0.7, 0.3]))
    lanes = [wide if k % 2 == major else 1 for k in range(4)]
    lit = full and kind == "crossing" and rng.random() < 0.5
    start = max(lanes) * width + rng.uniform(6.0, 8.5)
    missing = int(rng.choice([k for k in range(4) if k % 2 != major]))
    arms = [k for k in range(4) if kind == "crossing" or k != missing]
    limits = {k: rng.uniform(9.0, 12.0) if k % 2 == major else rng.uniform(8.0, 10.0) for k in range(4)}
    draft = Draft()
    roads, ways = {}, {}
    for k in arms:
        roads[k] = draw_arm(
            rng, angle=turned + angles[k], start=start, lanes=lanes[k], width=width, speed_limit=limits[k]
        )
        ways[k] = draft.add_arm(rng, roads[k], full=full, light=k % 2 if lit else -1)
    for a, b in itertools.permutations(arms, 2):
        turn = (b - a) % 4  # 1: to the right, 2: straight on, 3: to the left
        first = lit or a % 2 == major
        priority = {True: (FROM_MAJOR, LEFT_FROM_MAJOR), False: (FROM_MINOR, LEFT_FROM_MINOR)}[first]
        for one, other in lanes_across(ways[a][0], ways[b][1], turn):
            draft.connect(one, other, priority[turn == 3])
    mouths = [ribbon(road.xy[:2], road.lanes * width + SHOULDER)[[0, 3]] for road in roads.values()]
    draft.areas.append(np.concatenate([mouth[::-1] for mouth in mouths]))
    return draft.finish(seed, kind)


def lanes_across(inward: list[int], outward: list[int], turn: int) -> list[tuple[int, int]]:
    """Which lane leads to which: turns from and to the outermost or innermost, straight on side by side."""
    if turn == 1:
        return [(inward[-1], outward[-1])]
    if turn == 3:
        return [(inward[0], outward[0])]
    return list(zip(inward, outward, strict=False))


def roundabout(rng: np.random.Generator, seed: int, *, full: bool) -> RoadMap:
    """Three or four roads around a circle of one lane, on which traffic has priority."""
    width, turned = rng.uniform(3.5, 4.2), rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(13.0, 18.0)
    count = int(rng.choice([3, 4]))
    angles = turned + np.arange(count) * 2 * np.pi / count + rng.uniform(-1, 1, count) * np.radians(8)
    start, spread = radius + rng.uniform(11.0, 14.0), rng.uniform(0.48, 0.58)
    limit = rng.uniform(8.0, 11.0)
    draft = Draft()
    roads = [draw_arm(rng, angle=a, start=start, lanes=1, width=width, speed_limit=limit) for a in angles]
    ways = [draft.add_arm(rng, road, full=full, priority=FROM_MINOR) for road in roads]
    bounds = np.concatenate([[a - spread, a + spread] for a in angles])  # leaves, enters, leaves, ...
    arcs = []
    for k, first in enumerate(bounds):
        last = bounds[(k + 1) % len(bounds)]
        turn = np.linspace(first, first + (last - first) % (2 * np.pi), 40)
        arc = radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        arcs.append(draft.add(Lane(arc, width, limit, inside=True)))
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
    across = [geometry.offset(middle, -(k + 0.5) * width) for k in range(lanes)]
    before = [draft.add(Lane(xy[: meets + 1], width, limit)) for xy in across]
    after = [draft.add(Lane(xy[meets:], width, limit)) for xy in across]
    for one, other in zip(before, after, strict=True):
        draft.join(one, other)
    draft.dividers += [geometry.offset(middle, -k * width) for k in range(1, lanes)]
    strip = int(rng.uniform(40, 60))  # metres, in which the ramp comes over
    side = geometry.offset(across[-1], -width - 0.6)
    end = side[meets - strip]
    turn = geometry.headings(side)[meets - strip] + rng.uniform(0.1, 0.25)
    straight = np.stack([np.arange(-85.0, 1.0), np.zeros(86)], axis=1)
    ramp = geometry.from_frame(straight, np.array([*end, turn]))
    apart = 0.0015 * np.arange(85.0, -1.0, -1.0) ** 2
    entry = draft.add(Lane(geometry.offset(ramp, -apart), width, 0.9 * limit, priority=FROM_MINOR))
    draft.connect(entry, after[-1], FROM_MINOR)
    back = side[meets - strip : meets][::-1]
    draft.areas.append(np.concatenate([across[-1][meets - strip : meets + 1], back]))
    return draft.finish(seed, "merge")


def curve(rng: np.random.Generator, seed: int, *, full: bool) -> RoadMap:
    """A bent road of one to three lanes each way, with places at which traffic changes lane."""
    width, limit = rng.uniform(3.3, 3.9), rng.uniform(9.0, 13.5)
    lanes = int(rng.choice([1, 2, 3], p=[0.3, 0.5, 0.2]))
    middle = bent_road(rng, 2 * ARM + 40, 1 / 22 if lanes == 1 else 1 / 45)
    draft = Draft()
    for line in (middle, middle[::-1]):
        across = [geometry.offset(line, -(k + 0.5) * width) for k in range(lanes)]
        leave, arrive = int(rng.uniform(70, 110)), int(rng.uniform(28, 40))
        parts = [
            [
                draft.add(Lane(part, width, limit))
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
        draft.dividers += [geometry.offset(line, -k * width) for k in range(1, lanes)]
    draft.dividers.append(middle)
    if full:
        road = Arm(middle[40:], lanes, width, limit)
        draft.add_crosswalk(road, at=int(rng.integers(60, 80)))
        draft.add_bays(rng, Arm(middle[10:120], lanes, width, limit))
    return draft.finish(seed, "curve")
