"""Driving in closed loop: what a planner says is driven, the others react, and it plans anew.

The world runs at 10 Hz. Each half second the ego senses and plans; in between it tracks its plan by pure
pursuit on the kinematic bicycle. For the first 1.5 s, until four sweeps have been taken, the expert drives:
all planners take over from the same states. `Drive` is all that scores need to know of what happened, of
whatever world it happened in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.records.samples import KEY_S, Observer, Samples
from attnsweep.tasks.driving.world import kinematics
from attnsweep.tasks.driving.world.cameras import Rig
from attnsweep.tasks.driving.world.cast import EGO, Cast
from attnsweep.tasks.driving.world.geometry import Floats, corners, from_frame, project
from attnsweep.tasks.driving.world.roads import DrivableArea, RoadMap
from attnsweep.tasks.driving.world.traffic import DT, World

Policy = Callable[[Samples], Floats]
"""From what `samples.Observer` senses, a row per scene, to plans (b, 8, 3) in the frame of each ego."""

LOST_BRAKING = -4.0  # m/s2, of an ego whose plan cannot be driven
FARTHEST = 1e4  # m; a plan that goes farther is no plan
LATE = 1.0  # m beyond the goal, at which a scene needs no more steps
CORNER_CUT, SLACK = 1.2, 5.0  # a route may be this much longer than what is driven along it, and so many m


@dataclass(frozen=True)
class Drive:
    """What happened in `b` scenes with `a` places for agents, the ego first, an entry each `dt` seconds.

    `state` (t, b, a, 5): x, y, yaw, vx, vy in one frame per scene; `active` (t, b, a): who was there; `kind`
    (b, a) as in `cast`; `size` (b, a, 2): length and width. Of the ego: `progress` (t, b): metres along its
    route since the start; `aside` (t, b): metres from its route; `depth` (t, b): how deep its outermost
    corner lies within the drivable area, negative outside; `way` (b,): metres along its route from the start
    to the goal. Scenes go on until the last has reached its goal; scores look no further than each scene's
    own. `to_stop` (t, b): metres to where an expert had to stop for others, inf where it need not; `lost`
    (b,): the share of plans that could not be driven, because they held NaN, infinities or points farther
    off than 10 km.
    """

    dt: float
    state: Floats
    active: NDArray[np.bool_]
    kind: NDArray[np.int64]
    size: Floats
    progress: Floats
    aside: Floats
    depth: Floats
    way: Floats
    to_stop: Floats
    lost: Floats


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
    plan cannot be driven, the ego brakes at 4 m/s2 until the next one, and `lost` tells. Crowds must be of
    equal size. What comes out for a scene is the same, to the bit, whatever scenes are beside it, as far as
    the policy's plans are.
    """
    world = World(maps, casts)
    goal = np.array([cast.goal for cast in casts])
    driver = Driver(maps, world, policy, rig) if policy else None
    entries = [(world.motion, world.active, world.held[:, EGO])]
    for _ in range(round(seconds / DT)):
        world.step(driver.command() if driver else None)
        entries.append((world.motion, world.active, world.held[:, EGO]))
        if (world.progress > goal + LATE).all():
            break
    state, active, to_stop = (np.stack(part) for part in zip(*entries, strict=True))
    size = np.stack([world.length, world.width], axis=-1)
    ego = state[:, :, EGO]
    along = [
        along_way(ego[:, b], road_map, cast)
        for b, (road_map, cast) in enumerate(zip(maps, casts, strict=True))
    ]
    depth = [corner_depth(ego[:, b], size[b, EGO], road_map.drivable) for b, road_map in enumerate(maps)]
    return Drive(
        dt=DT,
        state=state,
        active=active,
        kind=world.kind,
        size=size,
        progress=np.stack([progress for progress, _ in along], axis=1),
        aside=np.stack([aside for _, aside in along], axis=1),
        depth=np.stack(depth, axis=1),
        way=goal - np.array([cast.s[EGO] for cast in casts]),
        to_stop=to_stop,
        lost=driver.lost_share if driver else np.zeros(len(maps)),
    )


class Driver:
    """Steers the egos of a world by a policy: `command` once before each step."""

    def __init__(self, maps: Sequence[RoadMap], world: World, policy: Policy, rig: Rig | None = None) -> None:
        self.world, self.policy = world, policy
        self.observer = Observer(maps, world, rig=rig)
        self.every = round(KEY_S / DT)
        self.plan: Floats | None = None  # (b, 9, 2) in the world, from where the ego was
        self.lost = np.zeros(len(maps), dtype=bool)
        self.plans, self.losses = 0, np.zeros(len(maps))

    @property
    def lost_share(self) -> Floats:
        return self.losses / max(self.plans, 1)

    def command(self) -> Floats | None:
        """The acceleration and steering (b, 2) of each ego, or None as long as the expert drives."""
        since = self.world.steps % self.every
        if since == 0:
            self.look()
        if self.plan is None:
            return None
        world = self.world
        followed = kinematics.pursue(
            world.state[:, EGO],
            self.plan,
            elapsed=since * DT,
            wheelbase=world.wheelbase[:, EGO],
            spacing=KEY_S,
        )
        return np.where(self.lost[:, None], np.array([LOST_BRAKING, 0.0]), followed)

    def look(self) -> None:
        """Senses, and plans once there is enough to plan by."""
        seen = self.observer.observe()
        if not seen:
            return
        pose = self.world.state[:, EGO, :3]
        local, self.lost = drivable_plan(self.policy(seen))
        self.plan = from_frame(np.pad(local, ((0, 0), (1, 0), (0, 0))), pose[:, None])
        self.plans += 1
        self.losses += self.lost


def drivable_plan(plan: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The positions (b, n, 2) of plans (b, n, 3), zeros where a plan cannot be driven (b,)."""
    plan = np.asarray(plan, dtype=np.float64)
    lost = np.asarray(~(np.abs(plan) < FARTHEST).all(axis=(1, 2)))
    return np.where(lost[:, None, None], 0.0, plan[..., :2]), lost


def along_way(ego: Floats, road_map: RoadMap, cast: Cast) -> tuple[Floats, Floats]:
    """Metres along the ego's route since its start (t,), and its distance (t,) from it, of states (t, 5)."""
    return progress_along(ego[:, :2], road_map.paths[cast.route[EGO]].xy, start=float(cast.s[EGO]))


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


def corner_depth(ego: Floats, size: Floats, area: DrivableArea) -> Floats:
    """How deep (t,) the outermost corner of an ego of that size lies within the area, of states (t, 5)."""
    boxes = np.concatenate([ego[:, :3], np.broadcast_to(size, (len(ego), 2))], axis=1)
    return area.at(corners(boxes)).min(axis=1)
