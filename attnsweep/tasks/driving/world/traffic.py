"""The world in motion: all agents of many scenes at once.

Every vehicle is a kinematic bicycle on its path; its driver follows by the intelligent driver model, obeys
lights, and at zones lets those pass who have priority or can no longer stop. The ego is one of them, the
expert, unless it is steered from outside; the others react to it either way. A step is a fixed number of
array operations over scenes and agents, none of which mixes scenes.

In numpy, not torch: on one thread its largest operation takes 0.45 ms for 32 scenes against torch's 0.51, and
about as long as torch's for 100 (benchmarks/planning.py); and processes that record need not import torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.world import kinematics
from attnsweep.tasks.driving.world.cast import CAR, EGO, LONGEST_DELAY_S, PARKED, PEDESTRIAN, Cast
from attnsweep.tasks.driving.world.geometry import Floats, overlap, wrap
from attnsweep.tasks.driving.world.roads import CLEARING_S, GREEN_S, SPACING, YELLOW_S, RoadMap

DT = 0.1  # s
COARSE = 6  # points of a path from one that the search for the nearest looks at to the next
SIGHT = 70.0  # m, beyond which a driver leaves others out of account
HARDEST = 8.0  # m/s2, of braking
FIRM = 4.0  # m/s2, the braking with which a driver reckons when it decides whether to stop
GENTLE = 1.8  # m/s2, of a car before which one crosses a road on foot
CALM = 2.5  # m/s2, of braking for a gap that is small but does not shrink
EMERGENCY = -4.5  # m/s2, at which comfort no longer counts
JERK, EMERGENCY_JERK = 3.5, 30.0  # m/s3
MERGE_LENGTH = 10.0  # m behind its start, in which a zone that merges belongs to one
STOP_SHORT = 0.8  # m, that a driver wants to stop before where it must
CREEP = 4.0  # m before a stop, within which a driver who has stopped comes no closer
RESTART_S = 2.5  # s, that who is held up takes longer
OFF_PATH = 0.6  # 1/s, at which a driver corrects its distance from the path


@dataclass(frozen=True)
class Log:
    """What happened: x, y, yaw, vx, vy in the world (t, b, a, 5), who was there (t, b, a), which groups of
    lights showed green (t, b, 2), and how far it was to where the ego had to stop (t, b), inf: nowhere.
    """

    state: Floats
    active: NDArray[np.bool_]
    green: NDArray[np.bool_]
    to_stop: Floats


@dataclass(frozen=True)
class Situation:
    """Each agent as seen along the path of each: `s` and `side` of agent j on the path of i (b, i, j), and
    its direction relative to that path there; and how sharply the path bends there (1/m).
    """

    s: Floats
    side: Floats
    turn: Floats
    bend: Floats


class World:
    """Scenes of equal crowds that run side by side: `b` scenes, `a` agents in each, the ego first."""

    def __init__(self, maps: Sequence[RoadMap], casts: Sequence[Cast]) -> None:
        self.casts = casts
        self.time = 0.0
        self.steps = 0
        self.tables = PathTables(maps, casts)
        self.rows = ZoneRows(maps, casts)
        for name in World.__annotations__:  # what it takes from its casts, below
            setattr(self, name, np.stack([getattr(cast, name) for cast in casts]))
        self.active = np.stack([cast.present for cast in casts])
        self.light_offset = np.array([cast.light_offset for cast in casts])
        self.state = self.tables.start(casts, self.side, self.wheelbase)  # (b, a, 4)
        self.stood = np.zeros(self.active.shape)  # s, at the place where a driver lets someone out
        self.slip = np.zeros(self.active.shape)
        self.acceleration = np.zeros(self.active.shape)
        self.wish = np.zeros(self.active.shape)  # m/s2, what drivers want before the pedals' limits
        self.held = np.full(self.active.shape, np.inf)  # m to where each driver last had to stop
        self.wanted = np.zeros((round(LONGEST_DELAY_S / DT) + 1, *self.active.shape))
        self.before = self.motion  # a step ago
        self.situation = self.look()

    kind: NDArray[np.int64]
    length: Floats
    width: Floats
    wheelbase: Floats
    side: Floats
    go: Floats
    halt: Floats
    halt_s: Floats
    eagerness: Floats
    most: Floats
    comfortable: Floats
    headway: Floats
    standing: Floats
    delay: NDArray[np.int64]
    patience: Floats

    @property
    def boxes(self) -> Floats:
        """(b, a, 5)"""
        return np.stack([*np.moveaxis(self.state[..., :3], -1, 0), self.length, self.width], axis=-1)

    @property
    def motion(self) -> Floats:
        """x, y, yaw, vx, vy (b, a, 5)"""
        course = self.state[..., 2] + self.slip
        speed = self.state[..., 3]
        velocity = np.stack([speed * np.cos(course), speed * np.sin(course)], axis=-1)
        return np.concatenate([self.state[..., :3], velocity], axis=-1)

    @property
    def progress(self) -> Floats:
        """The arc length (b,) of each ego along its path."""
        return self.situation.s[:, EGO, EGO]

    @property
    def lights(self) -> NDArray[np.bool_]:
        """Which groups of lights (b, 2) show green."""
        return self.light_phase() < GREEN_S

    def light_phase(self) -> Floats:
        """Seconds (b, 2) since each group of lights turned green."""
        half = GREEN_S + YELLOW_S + CLEARING_S
        since = self.time + self.light_offset
        return np.stack([since % (2 * half), (since + half) % (2 * half)], axis=1)

    def step(self, ego: Floats | None = None) -> None:
        """Moves everything on by DT. `ego` (b, 2) is the acceleration and steering of the egos; without it
        they are experts.
        """
        self.before = self.motion
        acceleration = self.decide()
        slip = self.follow_path()
        steering = kinematics.steering_of(slip)
        if ego is not None:
            limit = kinematics.MAX_STEERING
            acceleration[:, EGO], steering[:, EGO] = ego[:, 0], np.clip(ego[:, 1], -limit, limit)
        moving = self.active & (self.kind != PARKED)
        acceleration = np.where(moving, np.maximum(acceleration, -self.state[..., 3] / DT), 0.0)
        steering = np.where(moving, steering, 0.0)
        self.state = kinematics.bicycle(self.state, acceleration, steering, self.wheelbase, dt=DT)
        self.acceleration, self.slip = acceleration, kinematics.slip_of(steering)
        self.steps += 1
        self.time = self.steps * DT
        self.situation = self.look()
        gone = (self.own_s > self.tables.length - 2.0) & (self.kind == CAR)
        self.active = self.active & ~gone

    # --- What a driver sees ---

    @property
    def own_s(self) -> Floats:
        return np.ascontiguousarray(np.diagonal(self.situation.s, axis1=1, axis2=2))

    def look(self) -> Situation:
        """Every agent on every path."""
        s, side, yaw, bend = self.tables.project(self.state[..., 0], self.state[..., 1])
        return Situation(s, side, wrap(self.state[:, None, :, 2] - yaw), bend)

    def decide(self) -> Floats:
        """The acceleration (b, a) of every agent. Its driver follows others a reaction time late, but is
        awake at zones and lights; the pedals limit how fast it changes.
        """
        s, speed = self.own_s, self.state[..., 3]
        allowed = self.eagerness * self.tables.speed_at(s)
        free = kinematics.free_road(speed, allowed, most=self.most)
        following, gap = self.leaders(s)
        to_light = self.red_lights(s)
        to_rest = np.minimum(to_light, self.halts(s))
        blocked = ((speed < 0.3) & (gap < self.standing + 2.5)) | np.isfinite(to_rest) | self.waits(s)
        to_stop = np.minimum(to_rest, self.rows.stops(self, s, allowed, blocked))
        self.held = to_stop
        stopping = kinematics.braking(
            speed, speed, np.maximum(to_stop - STOP_SHORT, 0.1), most=self.most, comfortable=self.comfortable,
            headway=0.4 * self.headway, standing=0.4,
        )  # fmt: skip
        slot = self.steps % len(self.wanted)
        self.wanted[slot] = free - following
        b, a = np.indices(free.shape)
        wanted = np.minimum(
            self.wanted[(slot - self.delay) % len(self.wanted), b, a],
            np.where(np.isfinite(to_stop), free - stopping, np.inf),
        )
        rests = self.waits(s) | ((to_stop < CREEP) & (speed < 1.0))
        wanted = np.where(rests, -2.0 * speed, np.clip(wanted, -HARDEST, self.most))
        wanted = np.maximum(wanted, -(0.7 + 2.0 * speed))  # the last of it is taken gently
        self.wish = wanted
        at_once = (wanted < EMERGENCY) | (self.kind == PEDESTRIAN)
        down = np.where(at_once, EMERGENCY_JERK, JERK) * DT
        return np.clip(wanted, self.acceleration - down, self.acceleration + JERK * DT)

    def waits(self, s: Floats) -> NDArray[np.bool_]:
        """Who stands on foot beside the road, before or after crossing it."""
        arrived = s > self.tables.length - 0.8
        return (self.kind == PEDESTRIAN) & ((self.time < self.go) | arrived)

    def leaders(self, s: Floats) -> tuple[Floats, Floats]:
        """What those ahead take off each driver's acceleration (b, a), and the gap to the nearest. Who comes
        the other way crosses the path or leaves it, and counts as if it stood there.
        """
        hinders, gap = self.in_the_way(s)
        speed = self.state[..., 3]
        along = np.maximum(np.cos(self.situation.turn), 0.0)
        closing = speed[:, :, None] - speed[:, None, :] * along
        braking = kinematics.braking(
            speed[:, :, None], closing, np.maximum(gap, 0.1),
            most=self.most[:, :, None], comfortable=self.comfortable[:, :, None],
            headway=self.headway[:, :, None], standing=self.standing[:, :, None],
        )  # fmt: skip
        needed = np.maximum(closing, 0.0) ** 2 / np.maximum(gap - 0.5, 0.1)
        worst = (hinders * np.minimum(braking, CALM + needed)).max(axis=2)
        return worst, np.where(hinders > 0, gap, np.inf).min(axis=2)

    def in_the_way(self, s: Floats) -> tuple[Floats, Floats]:
        """How much each agent hinders each driver (b, i, j), from 0 to 1, and the gap between them along the
        driver's path. One who moves aside counts less the sooner it will be gone before the driver comes.
        """
        seen, speed = self.situation, self.state[..., 3]
        cos, sin = np.cos(seen.turn), np.sin(seen.turn)
        half_length, half_width = self.length[:, None, :] / 2, self.width[:, None, :] / 2
        along = np.abs(cos) * half_length + np.abs(sin) * half_width
        across = np.abs(sin) * half_length + np.abs(cos) * half_width
        ahead = seen.s - s[:, :, None]
        gap = ahead - along - self.length[:, :, None] / 2
        swing = seen.bend * self.length[:, :, None] ** 2 / 8  # of the own corners in a bend
        reach = self.width[:, :, None] / 2 + swing + across + 0.2
        apart = seen.side - self.side[:, :, None]
        aside = speed[:, None, :] * sin
        leaves = (reach - apart * np.sign(aside)) / np.maximum(np.abs(aside), 0.01)  # s from now
        comes = gap / np.maximum(speed[:, :, None], 0.1)
        hinders = np.clip((leaves + 3.0 - comes) / 1.5, 0.0, 1.0)
        in_way = (np.abs(apart) < reach) & (ahead > 0) & (gap < SIGHT) & self.active[:, None, :]
        on_foot = self.kind == PEDESTRIAN  # who give way to one another without stopping
        in_way &= ~(on_foot[:, :, None] & on_foot[:, None, :])
        return np.where(in_way, hinders, 0.0), gap

    def red_lights(self, s: Floats) -> Floats:
        """How far it is (b, a) to a line at which the driver must stop for a light; inf: to none."""
        group = self.tables.light
        phase = np.take_along_axis(self.light_phase(), np.maximum(group, 0), axis=1)
        gap = self.tables.light_at - s - self.length / 2
        speed = self.state[..., 3]
        can_stop = gap > speed**2 / (2 * FIRM)
        return np.where((group >= 0) & (phase >= GREEN_S) & can_stop, gap, np.inf)

    def halts(self, s: Floats) -> Floats:
        """How far it is (b, a) to where a driver lets someone out, until that is done; inf: nowhere."""
        gap = self.halt - s - self.length / 2
        self.stood += np.where((gap < CREEP) & (gap > 0) & (self.state[..., 3] < 0.3), DT, 0.0)
        return np.where((gap > 0) & (gap < SIGHT) & (self.stood < self.halt_s), gap, np.inf)

    def follow_path(self) -> Floats:
        """The slip angle (b, a) that brings each vehicle along its path."""
        s, speed = self.own_s, self.state[..., 3]
        side = np.ascontiguousarray(np.diagonal(self.situation.side, axis1=1, axis2=2))
        course = self.tables.yaw_at(s + speed * DT / 2)
        course = course - np.arctan2(OFF_PATH * (side - self.side), speed + 0.5)
        return wrap(course - self.state[..., 2])


class PathTables:
    """The paths of all agents of all scenes, laid end to end, so that any of them is one gather away."""

    def __init__(self, maps: Sequence[RoadMap], casts: Sequence[Cast]) -> None:
        paths = [path for road_map in maps for path in road_map.paths]
        starts = np.concatenate([[0], np.cumsum([len(path.xy) for path in paths])])
        firsts = np.concatenate([[0], np.cumsum([len(road_map.paths) for road_map in maps])])
        which = np.stack([cast.route for cast in casts]) + firsts[:-1, None]  # (b, a)
        self.first = starts[which]
        self.points = np.array([len(path.xy) for path in paths])[which]
        self.length = SPACING * (self.points - 1)
        self.light = np.array([path.light for path in paths])[which]
        self.light_at = np.array([path.light_at for path in paths])[which]
        self.x, self.y = np.concatenate([path.xy for path in paths]).T.copy()
        self.yaw = np.concatenate([path.yaw for path in paths])
        self.curvature = np.concatenate([path.curvature for path in paths])
        self.speed = np.concatenate([path.speed for path in paths])
        self.cos, self.sin = np.cos(self.yaw), np.sin(self.yaw)
        self.coarse = self.coarse_points()

    def coarse_points(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """x, y and x^2 + y^2 (b, a, 1, p) of every COARSE-th point; beyond a path's end, far away."""
        count = int(-(-self.points.max() // COARSE))
        at = COARSE * np.arange(count)
        beyond = at >= self.points[..., None]
        index = self.first[..., None] + np.minimum(at, self.points[..., None] - 1)
        x, y = self.x[index], self.y[index]
        square = np.where(beyond, np.inf, x**2 + y**2)
        x, y, square = (values[:, :, None, :].astype(np.float32) for values in (x, y, square))
        return x, y, square

    def project(self, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Arc length, distance to the left, and direction and unsigned curvature there (b, i, j) of the path
        of i at agent j, for positions (b, j).

        The nearest coarse point first; from there along the arc of its curvature.
        """
        cx, cy, square = self.coarse
        score = cx * (-2 * x).astype(np.float32)[:, None, :, None]
        score += cy * (-2 * y).astype(np.float32)[:, None, :, None]
        score += square
        step = COARSE * score.argmin(axis=-1)
        index = self.first[:, :, None] + step
        dx, dy = x[:, None, :] - self.x[index], y[:, None, :] - self.y[index]
        cos, sin, curvature = self.cos[index], self.sin[index], self.curvature[index]
        along, left = cos * dx + sin * dy, cos * dy - sin * dx
        along = along / np.maximum(1 - curvature * left, 0.3)
        side = left - curvature * along**2 / 2
        return SPACING * step + along, side, self.yaw[index] + curvature * along, np.abs(curvature)

    def index(self, s: Floats) -> NDArray[np.int64]:
        """Where in the tables arc lengths (b, a) lie: the point before each."""
        at = np.clip((s / SPACING).astype(np.int64), 0, self.points - 2)
        return self.first + at

    def speed_at(self, s: Floats) -> Floats:
        return self.speed[self.index(s)]

    def yaw_at(self, s: Floats) -> Floats:
        """The direction (b, a) at arc lengths, between points in proportion."""
        i = self.index(s)
        share = np.clip(s / SPACING - (i - self.first), 0, 1)
        return self.yaw[i] + share * (self.yaw[i + 1] - self.yaw[i])

    def start(self, casts: Sequence[Cast], side: Floats, wheelbase: Floats) -> Floats:
        """The first state (b, a, 4): on the paths, and turned as a vehicle is that has come along them."""
        s = np.stack([cast.s for cast in casts])
        speed = np.stack([cast.speed for cast in casts])
        i = self.index(s)
        yaw = self.yaw_at(s)
        rest = s - SPACING * (i - self.first)
        x = self.x[i] + rest * np.cos(yaw) - side * np.sin(yaw)
        y = self.y[i] + rest * np.sin(yaw) + side * np.cos(yaw)
        yaw = yaw - np.arcsin(np.clip(self.curvature[i] * wheelbase / 2, -0.5, 0.5))
        state = np.stack([x, y, yaw, speed], axis=-1)
        parked = np.stack([cast.kind for cast in casts]) == PARKED
        state[parked, :3] = np.stack([cast.pose for cast in casts])[parked]
        state[parked, 3] = 0.0
        return state


class ZoneRows:
    """One row for each agent, other agent and zone of their paths, over all scenes: shall the one stop before
    it? Rows are sorted by agent, so that an agent's rows lie together.
    """

    def __init__(self, maps: Sequence[RoadMap], casts: Sequence[Cast]) -> None:
        rows: list[tuple[float, ...]] = []
        for scene, (road_map, cast) in enumerate(zip(maps, casts, strict=True)):
            rows += zone_rows(road_map, cast, scene * len(cast.kind))
        table = np.array(sorted(rows)).reshape(-1, 8)
        self.one, self.other = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
        self.one_from, self.one_to, self.other_from, self.other_to = table[:, 2:6].T.copy()
        self.merges, self.first = table[:, 6] > 0, table[:, 7] > 0
        self.agents, self.starts = np.unique(self.one, return_index=True)

    def stops(self, world: World, s: Floats, allowed: Floats, blocked: NDArray[np.bool_]) -> Floats:
        """How far it is (b, a) to where each driver must stop for others at zones; inf: nowhere."""
        nearest = np.full(s.size, np.inf)
        if len(self.one):
            stop = self.stop_of_rows(world, s.ravel(), allowed.ravel(), blocked.ravel())
            nearest[self.agents] = np.minimum.reduceat(stop, self.starts)
        return nearest.reshape(s.shape)

    def stop_of_rows(self, world: World, s: Floats, allowed: Floats, blocked: NDArray[np.bool_]) -> Floats:
        """The distance of each row's agent to the zone if it must stop before it, else inf."""
        i, j = self.one, self.other
        half, speed = world.length.ravel() / 2, world.state[..., 3].ravel()
        active, most, late = world.active.ravel(), world.most.ravel(), world.delay.ravel() * DT
        patience = world.patience.ravel()[i] + self.merges
        to_zone, other_to_zone = self.one_from - s[i] - half[i], self.other_from - s[j] - half[j]
        clears = np.where(self.merges, self.one_from + MERGE_LENGTH, self.one_to)
        other_clears = np.where(self.merges, self.other_from + MERGE_LENGTH, self.other_to)
        to_end, other_to_end = clears - s[i] + half[i], other_clears - s[j] + half[j]
        entered = other_to_zone < 0
        relevant = active[i] & active[j] & (to_zone > 0) & (to_zone < SIGHT) & (other_to_end > 0)

        enters = time_to(to_zone, speed[i], most[i], allowed[i])
        leaves = late[i] + time_to(to_end, speed[i], most[i], allowed[i])
        other_enters = time_to(other_to_zone, speed[j], most[j], allowed[j])
        other_leaves = other_to_end / np.maximum(speed[j], 0.5)
        passes = other_leaves + 0.5 < enters

        can_stop = to_zone > speed[i] ** 2 / (2 * FIRM) + speed[i] * DT
        on_foot = world.kind.ravel()[i] == PEDESTRIAN  # who wants more time than a driver
        needs = speed[j] ** 2 / (2 * np.where(on_foot, GENTLE, FIRM)) + speed[j] * np.where(on_foot, 1.0, DT)
        other_can_stop = other_to_zone > needs
        gap = np.where(self.first, 0.3, np.where(blocked[j], 0.3 - RESTART_S, patience))
        in_time = other_enters > leaves + gap
        stands_before = (speed[j] < 0.5) & (other_to_zone > world.held.ravel()[j] + 1.0)
        claims = np.where(self.first, ~other_can_stop, ~stands_before)
        must = ~passes & np.where(entered, True, claims & ~in_time & can_stop)
        return np.where(relevant & must, to_zone, np.inf)


def zone_rows(road_map: RoadMap, cast: Cast, first: int) -> list[tuple[float, ...]]:
    """The rows of one scene, its agents numbered from `first`."""
    moves = cast.present & (cast.kind != PARKED)
    on = [np.flatnonzero(moves & (cast.route == route)).tolist() for route in range(len(road_map.paths))]
    rows: list[tuple[float, ...]] = []
    for zone in road_map.zones:
        ways = ((zone.one_from, zone.one_to), (zone.other_from, zone.other_to))
        for a in on[zone.one]:
            for b in on[zone.other]:
                rows.append((first + a, first + b, *ways[0], *ways[1], zone.merges, zone.one_first))
                rows.append((first + b, first + a, *ways[1], *ways[0], zone.merges, not zone.one_first))
    return rows


def time_to(distance: Floats, speed: Floats, acceleration: Floats, most: Floats) -> Floats:
    """How long one takes for a distance that speeds up to `most` at the given acceleration; 0 where it is
    behind.
    """
    most = np.maximum(np.maximum(most, speed), 0.5)
    distance = np.maximum(distance, 0.0)
    speeding_up = (most**2 - speed**2) / (2 * acceleration)
    short = (np.sqrt(speed**2 + 2 * acceleration * distance) - speed) / acceleration
    long = (most - speed) / acceleration + (distance - speeding_up) / most
    return np.where(distance < speeding_up, short, long)


# --- Rolling out, and what is seen in it ---


def roll_out(world: World, steps: int) -> Log:
    """The log of `steps` steps with experts for egos, the start included: steps + 1 entries."""
    entries = [snapshot(world)]
    for _ in range(steps):
        world.step()
        entries.append(snapshot(world))
    return Log(*(np.stack(part) for part in zip(*entries, strict=True)))


def snapshot(world: World) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], Floats]:
    """One entry of a log."""
    return world.motion, world.active, world.lights, world.held[:, EGO]


def crashed(log: Log, world: World) -> NDArray[np.bool_]:
    """Whether any two agents of a scene (b,) collide, those on foot among themselves left out."""
    crash = np.zeros(len(world.casts), dtype=bool)
    pairs = np.triu(np.ones(2 * (world.kind.shape[1],), dtype=bool), 1)
    on_foot = world.kind == PEDESTRIAN
    counts = pairs & ~(on_foot[:, :, None] & on_foot[:, None])
    size = np.stack([world.length, world.width], axis=-1)
    for state, active in zip(log.state, log.active, strict=True):
        boxes = np.concatenate([state[..., :3], size], axis=-1)
        hit = overlap(boxes[:, :, None], boxes[:, None]) & active[:, :, None] & active[:, None]
        crash |= (hit & counts).any(axis=(1, 2))
    return crash
