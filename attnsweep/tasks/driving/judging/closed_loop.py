"""Driving in closed loop: a policy's plan is driven, the others react, and it plans anew.

The world runs at 10 Hz. Each half second the ego senses and plans; in between it tracks its plan by pure
pursuit on the kinematic bicycle. For the first 1.5 s, until four sweeps have been taken, the expert drives:
all policies take over from the same states. `Drive` is all that scores need to know of what happened, in
whatever world it happened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from attnsweep.tasks.driving.records.observer import observer_of
from attnsweep.tasks.driving.records.samples import KEY_S, SWEEPS, Samples
from attnsweep.tasks.driving.world import kinematics
from attnsweep.tasks.driving.world.cameras import Rig
from attnsweep.tasks.driving.world.cast import EGO, Cast
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices, from_frame, project
from attnsweep.tasks.driving.world.ground import Placement
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.roads import GREEN_S, YELLOW_S, RoadMap
from attnsweep.tasks.driving.world.traffic import World

Policy = Callable[[Samples], Floats]
"""From what an `observer.Observer` senses, a row per scene, to plans (b, 8, 3) in the frame of each ego."""

EVERY = round(KEY_S / DT)  # steps from plan to plan
HANDOVER = (SWEEPS - 1) * EVERY  # the step at which the policy takes over
LOST_BRAKING = -4.0  # m/s2, of an ego whose plan cannot be driven
FARTHEST = 1e4  # m; a plan that goes farther is no plan
LATE = 1.0  # m beyond the goal, at which a scene needs no more steps
CORNER_CUT, SLACK = 1.2, 5.0  # a route may be this much longer than what is driven along it, and so many m
SLOW = 0.4  # of the speed that the expert wants, below which an ego may hold up traffic
FREE = 0.5  # of the acceleration that the expert has, from which on nothing holds it back


@dataclass(frozen=True)
class Drive:
    """What happened in `b` scenes with `a` places for agents, the ego first, an entry each `dt` seconds.

    `state` (t, b, a, 5): x, y, yaw, vx, vy in one frame per scene; `active` (t, b, a): who was there; `kind`
    (b, a) as in `cast`; `size` (b, a, 2): length and width. `handover`: the entry at which the policy takes
    over. Of the ego: `placement`: arrays (t, b) of where on the road it is; `progress` (t, b): metres along
    its route since the start; `lateral_offset` (t, b): metres from its route; `ran_red` (t, b): whether its
    front passes the stop line of a red light; `impeding` (t, b): whether it holds up traffic, being far
    slower than the expert would be in its place and not speeding up; `way` (b,): metres along its route from
    the start to the goal. Scenes go on until the last has reached its goal; scores look no further than each
    scene's own. `to_stop` (t, b): metres to where an expert would have to stop, inf where it need not; `lost`
    (b,): the share of plans that could not be driven, because they held NaN, infinities or points farther
    off than 10 km. Where nothing tells of red lights, of traffic held up or of stops, one value stands for
    all: false, false and inf.
    """

    dt: float
    state: Floats
    active: Flags
    kind: Indices
    size: Floats
    handover: int
    placement: Placement
    progress: Floats
    lateral_offset: Floats
    way: Floats
    lost: Floats
    ran_red: Flags = field(default_factory=lambda: np.zeros((), dtype=bool))
    impeding: Flags = field(default_factory=lambda: np.zeros((), dtype=bool))
    to_stop: Floats = field(default_factory=lambda: np.array(np.inf))


def drive(
    maps: Sequence[RoadMap],
    casts: Sequence[Cast],
    policy: Policy | None,
    *,
    seconds: float = 15.0,
    rig: Rig | None = None,
) -> Drive:
    """The maps driven side by side for `seconds`, or until all egos are past the ends of their routes.

    Without a policy the expert drives; with a `rig` a policy is shown the views of its cameras, too. Where a
    plan cannot be driven, the ego brakes at 4 m/s2 until the next one, and `lost` counts it. Crowds must be
    of equal size. What comes out for a scene is the same, to the bit, whatever scenes are beside it, as far
    as the policy's plans are.
    """
    world = World(maps, casts)
    goal, start = world.manners.goal, world.manners.s[:, EGO]
    follower = PlanFollower(policy, observer_of(maps, world, rig).observe) if policy else None
    entries = [snapshot(world)]
    for step in range(round(seconds / DT)):
        ego = world.state[:, EGO]
        world.step(follower.command(step, ego, world.manners.wheelbase[:, EGO]) if follower else None)
        entries.append(snapshot(world))
        if (world.progress > goal + LATE).all():
            break
    state, active, to_stop, red, impeding = (np.stack(part) for part in zip(*entries, strict=True))
    size = world.size
    routes = [m.paths[route].xy for m, route in zip(maps, world.manners.route[:, EGO], strict=True)]
    progress, lateral_offset = along_routes(state[:, :, EGO], routes, start)
    front = start + progress + size[:, EGO, 0] / 2
    passed = np.maximum.accumulate(front >= world.tables.light_at[:, EGO], axis=0)
    return Drive(
        dt=DT,
        state=state,
        active=active,
        kind=world.kind,
        size=size,
        handover=HANDOVER,
        placement=stacked([m.ground.placement(state[:, b, EGO], size[b, EGO]) for b, m in enumerate(maps)]),
        progress=progress,
        lateral_offset=lateral_offset,
        ran_red=red & passed & ~np.concatenate([passed[:1], passed[:-1]]),
        impeding=impeding,
        way=goal - start,
        to_stop=to_stop,
        lost=follower.lost_share if follower else np.zeros(len(maps)),
    )


def snapshot(world: World) -> tuple[Floats, Flags, Floats, Flags, Flags]:
    """One entry of a drive: motion (b, a, 5) and who is there (b, a); of the egos (b,) how far it is to where
    an expert must stop, whether their light is red, and whether they hold up traffic.
    """
    group = world.tables.light[:, EGO]
    phase = world.light_phase()[np.arange(len(group)), np.maximum(group, 0)]
    red = (group >= 0) & (phase >= GREEN_S + YELLOW_S)
    return world.motion, world.active, world.memory.held[:, EGO], red, impeding(world)


def impeding(world: World) -> Flags:
    """Which egos (b,) hold up traffic: they go at less than 0.4 of the speed that the expert wants there,
    would speed up by at least half of what it can if it drove, and do not.
    """
    how, wish = world.manners, world.memory.wish[:, EGO]
    wanted = how.eagerness[:, EGO] * world.tables.speed_at(world.own_s)[:, EGO]
    free = wish >= FREE * how.most[:, EGO]
    idle = world.acceleration[:, EGO] < 0.5 * wish
    return np.asarray((world.state[:, EGO, 3] < SLOW * wanted) & free & idle)


def stacked(parts: Sequence[Placement]) -> Placement:
    """The placements of several scenes (t,) as arrays (t, b)."""
    names = [field.name for field in fields(Placement)]
    return Placement(**{name: np.stack([getattr(part, name) for part in parts], axis=1) for name in names})


class PlanFollower:
    """Drives egos by a policy; `observe`, called at each key frame, returns nothing until that is enough."""

    def __init__(self, policy: Policy, observe: Callable[[], Samples]) -> None:
        self.policy, self.observe = policy, observe
        self.plan: Floats | None = None  # (b, 9, 2) in the world, from where the ego was
        self.lost: Flags = np.zeros(1, dtype=bool)
        self.plans, self.losses = 0, np.zeros(1)

    @property
    def lost_share(self) -> Floats:
        """Of the plans so far (b,), how many could not be driven."""
        return self.losses / max(self.plans, 1)

    def command(self, step: int, ego: Floats, wheelbase: Floats) -> Floats | None:
        """The acceleration and steering (b, 2) of egos that are bicycles (b, 4) with a wheelbase (b,), once
        before each step; None as long as the policy has not taken over.
        """
        since = step % EVERY
        if since == 0 and (seen := self.observe()):
            self.plan_anew(seen, ego[:, :3])
        if self.plan is None:
            return None
        followed = kinematics.pursue(ego, self.plan, elapsed=since * DT, wheelbase=wheelbase, spacing=KEY_S)
        return np.where(self.lost[:, None], np.array([LOST_BRAKING, 0.0]), followed)

    def plan_anew(self, seen: Samples, pose: Floats) -> None:
        """Asks the policy for plans from poses (b, 3)."""
        local, self.lost = drivable_plan(self.policy(seen))
        self.plan = from_frame(np.pad(local, ((0, 0), (1, 0), (0, 0))), pose[:, None])
        self.plans += 1
        self.losses = self.losses + self.lost


def drivable_plan(plan: Floats) -> tuple[Floats, Flags]:
    """The positions (b, n, 2) of plans (b, n, 3), zeros where a plan cannot be driven (b,)."""
    plan = np.asarray(plan, dtype=np.float64)
    lost = np.asarray(~(np.abs(plan) < FARTHEST).all(axis=(1, 2)))
    return np.where(lost[:, None, None], 0.0, plan[..., :2]), lost


def along_routes(ego: Floats, routes: Sequence[Floats], start: Floats) -> tuple[Floats, Floats]:
    """Metres along routes (n, 2) since arc lengths (b,), and metres off them (t, b), of states (t, b, 5)."""
    found = [progress_along(ego[:, b, :2], route, start=start[b]) for b, route in enumerate(routes)]
    progress, lateral_offset = (np.stack(part, axis=1) for part in zip(*found, strict=True))
    return progress, lateral_offset


def progress_along(xy: Floats, route: Floats, *, start: float) -> tuple[Floats, Floats]:
    """Metres gained (t,) along a route (n, 2) since arc length `start` by someone at positions (t, 2), and
    the distance (t,) to it.

    Where a route comes back close to itself, an arc length that is out of reach by what has been driven gains
    nothing.
    """
    s, side = project(xy, route)
    driven = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    gained = np.where(s - start <= CORNER_CUT * driven + SLACK, s - start, -np.inf)
    return np.maximum(np.maximum.accumulate(gained), 0.0), np.abs(side)
