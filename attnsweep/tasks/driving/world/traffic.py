"""The world in motion: all agents of many scenes at once.

Every vehicle is a kinematic bicycle on its path, whose driver goes by `drivers`. The ego is one of them, the
expert, unless it is steered from outside; the others react to it either way. A step is a fixed number of
array operations over scenes and agents, none of which mixes scenes.

In numpy, not torch: on one thread its largest operation takes 0.45 ms for 32 scenes against torch's 0.51, and
about as long as torch's for 100 (benchmarks/planning.py); and processes that record need not import torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnsweep.tasks.driving.world import cast, drivers, kinematics
from attnsweep.tasks.driving.world.cast import CAR, EGO, PARKED, PEDESTRIAN, Cast
from attnsweep.tasks.driving.world.drivers import CREEP, View
from attnsweep.tasks.driving.world.geometry import Flags, Floats, overlap, wrap
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.roads import CLEARING_S, GREEN_S, YELLOW_S, RoadMap
from attnsweep.tasks.driving.world.tables import PathTables, ZoneTable

HARDEST = 8.0  # m/s2, of braking
EMERGENCY = -4.5  # m/s2, at which comfort no longer counts
JERK, EMERGENCY_JERK = 3.5, 30.0  # m/s3
STOP_SHORT = 0.8  # m, that a driver wants to stop before where it must
OFF_PATH = 0.6  # 1/s, at which a driver corrects its distance from the path


@dataclass(frozen=True)
class Log:
    """What happened: x, y, yaw, vx, vy in the world (t, b, a, 5), who was there (t, b, a), which groups of
    lights showed green (t, b, 2), and how far it was to where the ego had to stop (t, b), inf: nowhere.
    """

    state: Floats
    active: Flags
    green: Flags
    to_stop: Floats


@dataclass
class Memory:
    """What drivers (b, a) have in mind: for how long each has `stood` where it lets someone out (s), how far
    it was to where it last had to stop, `held` (m, inf: nowhere), the acceleration that it last wished for
    before the pedals' limits, and those that followed from whom it saw, the last few of them (k, b, a).
    """

    stood: Floats
    held: Floats
    wish: Floats
    wanted: Floats


class World:
    """Scenes of equal crowds that run side by side: `b` scenes, `a` agents in each, the ego first."""

    def __init__(self, maps: Sequence[RoadMap], casts: Sequence[Cast]) -> None:
        self.manners = cast.side_by_side(casts)
        self.kind, self.length, self.width = self.manners.kind, self.manners.length, self.manners.width
        self.tables, self.zones = PathTables(maps, self.manners), ZoneTable(maps, self.manners)
        self.steps = 0
        self.active = self.manners.present
        self.state = self.tables.start(self.manners)  # (b, a, 4)
        self.slip, self.acceleration, none = (np.zeros(self.active.shape) for _ in range(3))
        kept = np.zeros((round(cast.LONGEST_DELAY_S / DT) + 1, *none.shape))
        self.memory = Memory(none, np.full(none.shape, np.inf), none, kept)
        self.before = self.motion  # a step ago
        self.situation = self.tables.look(self.state)

    @property
    def boxes(self) -> Floats:
        """(b, a, 5)"""
        return np.concatenate([self.state[..., :3], self.size], axis=-1)

    @property
    def size(self) -> Floats:
        """(b, a, 2)"""
        return np.stack([self.length, self.width], axis=-1)

    @property
    def motion(self) -> Floats:
        """x, y, yaw, vx, vy (b, a, 5)"""
        return kinematics.motion_of(self.state, self.slip)

    @property
    def own_s(self) -> Floats:
        """The arc length (b, a) of each agent along its path."""
        return np.ascontiguousarray(np.diagonal(self.situation.s, axis1=1, axis2=2))

    @property
    def progress(self) -> Floats:
        """The arc length (b,) of each ego along its path."""
        return self.situation.s[:, EGO, EGO]

    @property
    def lights(self) -> Flags:
        """Which groups of lights (b, 2) show green."""
        return self.light_phase() < GREEN_S

    def light_phase(self) -> Floats:
        """Seconds (b, 2) since each group of lights turned green."""
        half = GREEN_S + YELLOW_S + CLEARING_S
        since = self.steps * DT + self.manners.light_offset
        return np.stack([since % (2 * half), (since + half) % (2 * half)], axis=1)

    @property
    def view(self) -> View:
        """What drivers go by now."""
        return View(
            time=self.steps * DT,
            manners=self.manners,
            tables=self.tables,
            state=self.state,
            active=self.active,
            phase=self.light_phase(),
            situation=self.situation,
            s=self.own_s,
        )

    def step(self, ego: Floats | None = None) -> None:
        """Moves on by DT. `ego` (b, 2): acceleration and steering of the egos, who are experts without."""
        view = self.view
        self.before = self.motion
        acceleration = self.decide(view)
        steering = kinematics.steering_of(slip_along_path(view))
        if ego is not None:
            limit = kinematics.MAX_STEERING
            acceleration[:, EGO], steering[:, EGO] = ego[:, 0], np.clip(ego[:, 1], -limit, limit)
        moving = self.active & (self.kind != PARKED)
        acceleration = np.where(moving, np.maximum(acceleration, -self.state[..., 3] / DT), 0.0)
        steering = np.where(moving, steering, 0.0)
        self.state = kinematics.bicycle(self.state, acceleration, steering, self.manners.wheelbase, dt=DT)
        self.acceleration, self.slip = acceleration, kinematics.slip_of(steering)
        self.steps += 1
        self.situation = self.tables.look(self.state)
        gone = (self.own_s > self.tables.length - 2.0) & (self.kind == CAR)
        self.active = self.active & ~gone

    def decide(self, view: View) -> Floats:
        """The acceleration (b, a) of every agent. Its driver follows others a reaction time late, but is
        awake at zones and lights; the pedals limit how fast it changes.
        """
        memory, how = self.memory, self.manners
        allowed = how.eagerness * self.tables.speed_at(view.s)
        free = kinematics.free_road(view.speed, allowed, most=how.most)
        following, gap = drivers.leaders(view)
        to_stop = self.to_stop(view, allowed, gap)
        for_stop = np.where(np.isfinite(to_stop), free - stopping(view, to_stop), np.inf)
        wanted = np.minimum(self.remembered(free - following), for_stop)
        rests = drivers.waits(view) | ((to_stop < CREEP) & (view.speed < 1.0))
        wanted = np.where(rests, -2.0 * view.speed, np.clip(wanted, -HARDEST, how.most))
        wanted = np.maximum(wanted, -(0.7 + 2.0 * view.speed))  # the last of it is taken gently
        memory.wish = wanted
        at_once = (wanted < EMERGENCY) | (self.kind == PEDESTRIAN)
        down = np.where(at_once, EMERGENCY_JERK, JERK) * DT
        return np.clip(wanted, self.acceleration - down, self.acceleration + JERK * DT)

    def to_stop(self, view: View, allowed: Floats, gap: Floats) -> Floats:
        """How far it is (b, a) to where each driver must stop, inf: nowhere; for gaps (b, a) to whom is
        ahead.
        """
        memory = self.memory
        memory.stood = memory.stood + np.where(drivers.at_halt(view), DT, 0.0)
        to_rest = np.minimum(drivers.to_red_light(view), drivers.to_halt(view, memory.stood))
        stuck = (view.speed < 0.3) & (gap < self.manners.standing + 2.5)
        blocked = stuck | np.isfinite(to_rest) | drivers.waits(view)
        to_zone = drivers.to_zone(view, self.zones, allowed, blocked, memory.held)
        memory.held = np.minimum(to_rest, to_zone)
        return memory.held

    def remembered(self, wanted: Floats) -> Floats:
        """What each driver wanted (b, a) a reaction time ago, of what it wants now."""
        kept = self.memory.wanted
        slot = self.steps % len(kept)
        kept[slot] = wanted
        b, a = np.indices(wanted.shape)
        return kept[(slot - self.manners.delay) % len(kept), b, a]


def stopping(view: View, to_stop: Floats) -> Floats:
    """What a place to stop at takes off each driver's acceleration (b, a)."""
    how, gap = view.manners, np.maximum(to_stop - STOP_SHORT, 0.1)
    return kinematics.braking(
        view.speed, view.speed, gap, most=how.most, comfortable=how.comfortable,
        headway=0.4 * how.headway, standing=0.4,
    )  # fmt: skip


def slip_along_path(view: View) -> Floats:
    """The slip angle (b, a) that brings each vehicle along its path."""
    side = np.ascontiguousarray(np.diagonal(view.situation.side, axis1=1, axis2=2))
    course = view.tables.yaw_at(view.s + view.speed * DT / 2)
    course = course - np.arctan2(OFF_PATH * (side - view.manners.side), view.speed + 0.5)
    return wrap(course - view.state[..., 2])


# --- Rolling out, and what is seen in it ---


def roll_out(world: World, steps: int) -> Log:
    """The log of `steps` steps with experts for egos, the start included: steps + 1 entries."""
    entries = [snapshot(world)]
    for _ in range(steps):
        world.step()
        entries.append(snapshot(world))
    return Log(*(np.stack(part) for part in zip(*entries, strict=True)))


def snapshot(world: World) -> tuple[Floats, Flags, Flags, Floats]:
    """One entry of a log."""
    return world.motion, world.active, world.lights, world.memory.held[:, EGO]


def crashed(log: Log, world: World) -> Flags:
    """Whether any two agents of a scene (b,) collide, those on foot among themselves left out."""
    crash = np.zeros(len(world.kind), dtype=bool)
    pairs = np.triu(np.ones(2 * (world.kind.shape[1],), dtype=bool), 1)
    on_foot = world.kind == PEDESTRIAN
    counts = pairs & ~(on_foot[:, :, None] & on_foot[:, None])
    for state, active in zip(log.state, log.active, strict=True):
        boxes = np.concatenate([state[..., :3], world.size], axis=-1)
        hit = overlap(boxes[:, :, None], boxes[:, None]) & active[:, :, None] & active[:, None]
        crash |= (hit & counts).any(axis=(1, 2))
    return crash
