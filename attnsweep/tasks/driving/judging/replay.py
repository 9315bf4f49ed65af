"""Driving a plan among what was recorded: the non-reactive score of 4 s, which needs samples and no world."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.judging.closed_loop import LOST_BRAKING, Drive, along_routes, drivable_plan
from attnsweep.tasks.driving.judging.score import Scores, counted, gained, score_drive
from attnsweep.tasks.driving.records.samples import CENTRE, DEEPEST, FUTURE, KEY_S, Samples
from attnsweep.tasks.driving.world import kinematics
from attnsweep.tasks.driving.world.cast import CAR
from attnsweep.tasks.driving.world.geometry import Flags, Floats, between_cells, corners, wrap
from attnsweep.tasks.driving.world.ground import Placement
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.sensor import GRID

WHEELBASE = 0.6  # of the length
BEYOND = 30.0  # m, by which a route that is known for 48 m goes straight on
LANE = 1.75  # m from the middle of a lane, within which one is on it
CROSSING = 0.5  # rad, between lanes that cross and do not run side by side


def score_plans(samples: Samples, plans: Floats) -> Scores:
    """The scores of plans (s, 8, 3), each driven for 4 s in the frame of its sample.

    The others go where they went, whatever the ego does. Progress is measured by that of the expert's plan,
    driven in the same way. Samples do not say which lights are red, nor of what kind the others are: no red
    light is run, and hitting what is parked costs all. Nobody is held up, for nobody reacts. The border of
    the road is that of `depth`, to about 0.2 m. Where the recording of the expert ends earlier (`plan_mask`),
    so does the drive; where there is none at all, it is driven to its end, and any progress will do. A plan
    that cannot be driven scores nothing: within 4 s of braking nothing shows that nobody drives.
    """
    expert = replay(samples, extended(samples))
    driven = replay(samples, plans)
    scores, can_be_driven = score_drive(driven, gained(expert, counted(expert))), driven.lost == 0
    score, success = np.where(can_be_driven, scores.score, 0.0), scores.success & can_be_driven
    return replace(scores, score=score, success=success)


def replay(samples: Samples, plans: Floats) -> Drive:
    """The drives that track plans (s, 8, 3) from where and as fast as the ego was, at 10 Hz for 4 s."""
    ego, lost = track(samples, plans)
    there = np.asarray(samples["future_boxes_mask"], bool)
    others, there = between(samples["future_boxes"].astype(float), there)
    state = np.concatenate([ego[:, :, None], others], axis=2)
    count, agents = state.shape[1:3]
    own = samples["size"].astype(float)[:, None]
    size = np.concatenate([own, samples["future_boxes"][..., 3:].astype(float).max(axis=1)], axis=1)
    routes = [way_of(route) for route in samples["route"]]
    progress, lateral_offset = along_routes(ego, routes, np.zeros(count))
    there = np.concatenate([recorded(samples)[..., None], there], axis=2)
    return Drive(
        dt=DT,
        state=state,
        active=there,
        kind=np.full((count, agents), CAR),
        size=size,
        handover=0,
        placement=placement(samples, ego),
        progress=progress,
        lateral_offset=lateral_offset,
        way=np.full(count, np.inf),
        lost=lost.astype(float),
    )


def recorded(samples: Samples) -> Flags:
    """At which entries (t, s) a drive is judged: while the expert was recorded, or all where it was not."""
    known = samples["plan_mask"].sum(axis=1)  # key frames, without gaps
    last = np.where(known > 0, known, FUTURE) * round(KEY_S / DT)
    return np.arange(FUTURE * round(KEY_S / DT) + 1)[:, None] <= last


def extended(samples: Samples) -> Floats:
    """The expert's plans (s, 8, 3); beyond what was recorded they go on as in the last half second."""
    plan, known = np.pad(samples["plan"].astype(float), ((0, 0), (1, 0), (0, 0))), samples["plan_mask"]
    for k in range(FUTURE):
        onward = 2 * plan[:, k] - plan[:, max(k - 1, 0)]
        plan[:, k + 1] = np.where(known[:, k, None], plan[:, k + 1], onward)
    return plan[:, 1:]


def placement(samples: Samples, ego: Floats) -> Placement:
    """Where egos with states (t, s, 5) are, arrays (t, s), by the depth of the road and the middles of lanes
    that samples hold; their widths they do not, so that nobody is between lanes.
    """
    size = np.broadcast_to(samples["size"].astype(float), (*ego.shape[:2], 2))
    edges = np.moveaxis(corners(np.concatenate([ego[..., :3], size], axis=-1)), 0, 1)
    with_traffic, at_junction = along_lanes(samples, ego[..., :2])
    return Placement(
        off_road=np.any(depth_at(samples["depth"], edges) < 0, axis=2).T,
        between_lanes=np.zeros(ego.shape[:2], dtype=bool),
        at_junction=at_junction,
        with_traffic=with_traffic,
    )


def along_lanes(samples: Samples, xy: Floats) -> tuple[Floats, Flags]:
    """By how many metres egos at positions (t, s, 2) moved in the direction of traffic since the entry
    before, by the lane they are on that fits best, 0 off all lanes; and whether they are where lanes cross,
    (t, s) each.
    """
    step = np.diff(xy, axis=0, prepend=xy[:1])
    moved, crosses = np.zeros(xy.shape[:2]), np.zeros(xy.shape[:2], dtype=bool)
    for b, (lines, kind) in enumerate(zip(samples["lines"], samples["line_kind"], strict=True)):
        middles = lines[kind == CENTRE].astype(float)
        if not len(middles):
            continue
        start, way = middles[:, :-1].reshape(-1, 2), np.diff(middles, axis=1).reshape(-1, 2)
        length = np.maximum(np.hypot(*way.T), 1e-6)
        off = xy[:, b, None] - start  # (t, k, 2)
        share = np.clip((off * way).sum(axis=2) / length**2, 0, 1)
        on = np.hypot(*np.moveaxis(off - share[..., None] * way, -1, 0)) < LANE
        along = np.where(on, (step[:, b, None] * way).sum(axis=2) / length, -np.inf).max(axis=1)
        moved[:, b] = np.where(on.any(axis=1), along, 0.0)
        double = 2 * np.arctan2(way[:, 1], way[:, 0])  # of which lines that run side by side have the same
        spread = np.abs(wrap(double - double[on.argmax(axis=1)][:, None]))
        crosses[:, b] = (on & (spread > 2 * CROSSING)).any(axis=1)
    return moved, crosses


def track(samples: Samples, plans: Floats) -> tuple[Floats, Flags]:
    """The states (t, s, 5) of egos that track plans, each in the frame of its sample, and which of the plans
    cannot be driven: there the ego brakes.
    """
    local, lost = drivable_plan(plans)
    plan = np.pad(local, ((0, 0), (1, 0), (0, 0)))
    wheelbase = WHEELBASE * samples["size"][:, 0].astype(float)
    state = np.zeros((len(plan), 4))
    state[:, 3] = samples["ego_state"][:, 0]
    slip = samples["ego_state"][:, 4].astype(float)
    entries = [kinematics.motion_of(state, slip)]
    for step in range(round(FUTURE * KEY_S / DT)):
        command = kinematics.pursue(state, plan, elapsed=step * DT, wheelbase=wheelbase, spacing=KEY_S)
        command = np.where(lost[:, None], np.array([LOST_BRAKING, 0.0]), command)
        acceleration = np.maximum(command[:, 0], -state[:, 3] / DT)
        state = kinematics.bicycle(state, acceleration, command[:, 1], wheelbase, dt=DT)
        entries.append(kinematics.motion_of(state, kinematics.slip_of(command[:, 1])))
    return np.stack(entries), lost


def between(boxes: Floats, there: Flags) -> tuple[Floats, Flags]:
    """States (t, s, n, 5) each 0.1 s, from 0 to 4 s, of boxes (s, 8, n, 5) each half second, and who was
    there (t, s, n): at constant velocity from key frame to key frame, and so before the first. One that was
    there at a single key frame is there at that entry, and stands.
    """
    every = round(KEY_S / DT)
    entries = FUTURE * every + 1
    state = np.zeros((entries, *boxes[:, 0].shape))
    known = np.zeros((entries, *there[:, 0].shape), dtype=bool)
    for k in range(FUTURE):
        state[(k + 1) * every, ..., :3] = boxes[:, k, :, :3]
        known[(k + 1) * every] = there[:, k]
    for k in range(FUTURE - 1):  # from one key frame to the next, the first of them from 0 s on
        rows = slice((k + 1) * every if k else 0, (k + 2) * every + 1)
        share = (np.arange(entries)[rows] / every - 1 - k)[:, None, None]
        one, other, both = boxes[:, k], boxes[:, k + 1], there[:, k] & there[:, k + 1]
        step = other[..., :2] - one[..., :2]
        xy = one[..., :2] + share[..., None] * step
        yaw = one[..., 2] + share * wrap(other[..., 2] - one[..., 2])
        velocity = np.broadcast_to(step / KEY_S, xy.shape)
        moving = np.concatenate([xy, yaw[..., None], velocity], axis=-1)
        state[rows] = np.where(both[..., None], moving, state[rows])
        known[rows] |= both
    return state, known


def way_of(route: NDArray[np.generic]) -> Floats:
    """A sample's route (12, 2) as a polyline (14, 2) that begins beside the ego and goes on at its end."""
    points = route.astype(np.float64)
    before, after = 2 * points[:1] - points[1:2], points[-1:] - points[-2:-1]
    after = after * BEYOND / max(float(np.hypot(*after[0])), 1e-3)
    return np.concatenate([before, points, points[-1:] + after])


def depth_at(depth: NDArray[np.generic], points: Floats) -> Floats:
    """How deep points (s, ..., 2) lie in the drivable area of grids (s, 64, 64), all of it off the grid."""
    place = (points - GRID.corner) / GRID.size
    inside = ((place >= 0) & (place < GRID.cells)).all(axis=-1)
    rows = np.arange(len(points)).reshape(-1, *(1,) * (points.ndim - 2))
    return np.where(inside, between_cells(depth.astype(np.float64), place, rows), DEEPEST)
