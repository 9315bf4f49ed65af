"""What there is to learn at a key frame: the agents, where all will be, the map and the kind of situation."""

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.records.samples import (
    AGENTS,
    BOUNDARY,
    CENTRE,
    DEEPEST,
    DIVIDER,
    FUTURE,
    KEY_S,
    LINE_POINTS,
    LINES,
    OCCUPANCY,
    Samples,
    SceneLog,
    in_frame,
)
from attnsweep.tasks.driving.records.sensed import route_turn
from attnsweep.tasks.driving.world import geometry
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices
from attnsweep.tasks.driving.world.sensor import GRID, rasterise


def visible(state: Floats, seen: Flags, pose: Floats) -> Indices:
    """The agents (s, 24) of each sample in the order of their numbers; -1 where a place is empty.

    Of more than there are places for, the nearest.
    """
    local = geometry.to_frame(state[..., :2], pose[:, None])
    _, inside = GRID.index(local)
    wanted = inside & seen
    wanted[:, 0] = False
    distance = np.where(wanted, np.hypot(local[..., 0], local[..., 1]), np.inf)
    nearest = np.sort(distance, axis=1)[:, min(AGENTS, distance.shape[1]) - 1]
    wanted &= distance <= nearest[:, None]
    slots = np.full((len(state), AGENTS), -1)
    rows, who = np.nonzero(wanted)
    place = np.cumsum(wanted, axis=1)[rows, who] - 1
    slots[rows[place < AGENTS], place[place < AGENTS]] = who[place < AGENTS]
    return slots


def agents(log: SceneLog, state: Floats, valid: Flags, at: Indices, slots: Indices) -> Samples:
    """What is known of the agents in the slots (s, 24), from states at key frames (k, n, 5)."""
    taken, who = slots >= 0, np.maximum(slots, 0)
    frame = state[at, 0, :3][:, None]
    now = state[at[:, None], who]
    later = at[:, None] + np.arange(1, FUTURE + 1)
    then = state[later[:, None], who[:, :, None]]  # (s, 24, 8, 5)
    there = valid[later[:, None], who[:, :, None]] & taken[..., None]
    xy = geometry.to_frame(now[..., :2], frame)
    yaw = now[..., 2] - frame[..., 2]
    box = [xy, np.cos(yaw)[..., None], np.sin(yaw)[..., None], log.size[who], log.kind[who][..., None]]
    turned = frame * np.array([0, 0, 1])
    offsets = geometry.to_frame(then[..., :2], frame[:, :, None]) - xy[:, :, None]
    return {
        "box": np.where(taken[..., None], np.concatenate(box, axis=-1), 0).astype(np.float32),
        "velocity": np.where(taken[..., None], geometry.to_frame(now[..., 3:], turned), 0).astype(np.float32),
        "id": slots.astype(np.int16),
        "mask": taken,
        "future": np.where(there[..., None], offsets, 0).astype(np.float32),
        "future_mask": there,
    }


def everyone(log: SceneLog, state: Floats, valid: Flags, at: Indices) -> Samples:
    """The expert's plan, and where all others will be, seen or not."""
    later = at[:, None] + np.arange(1, FUTURE + 1)
    frame = state[at, 0, :3]
    local = in_frame(state[later][..., :3], frame[:, None, None])  # (s, 8, n, 3)
    others = min(local.shape[2] - 1, AGENTS)
    distance = np.where(valid[later], np.hypot(local[..., 0], local[..., 1]), np.inf)[:, :, 1:].min(axis=1)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :others] + 1  # who comes nearest first
    boxes = np.zeros((len(at), FUTURE, AGENTS, 5), dtype=np.float32)
    mask = np.zeros((len(at), FUTURE, AGENTS), dtype=bool)
    pick = nearest[:, None, :]
    there = np.take_along_axis(valid[later], np.broadcast_to(pick, (len(at), FUTURE, others)), axis=2)
    poses = np.take_along_axis(local, np.broadcast_to(pick[..., None], (len(at), FUTURE, others, 3)), axis=2)
    size = np.broadcast_to(log.size[nearest][:, None], (len(at), FUTURE, others, 2))
    boxes[:, :, :others] = np.where(there[..., None], np.concatenate([poses, size], axis=-1), 0)
    mask[:, :, :others] = there
    known = valid[later][:, :, 0]
    return {
        "plan": np.where(known[..., None], local[:, :, 0], 0).astype(np.float32),
        "plan_mask": known,
        "future_boxes": boxes,
        "future_boxes_mask": mask,
    }


def occupancy(log: SceneLog, state: Floats, valid: Flags, at: Indices, slots: Indices) -> NDArray[np.uint8]:
    """1 + the slot of the agent whose box will cover each cell's middle (s, 5, 64, 64)."""
    later = at[:, None] + round(1 / KEY_S) * np.arange(OCCUPANCY)
    who = np.maximum(slots, 0)
    there = valid[later[..., None], who[:, None]] & (slots >= 0)[:, None]
    sample, time, slot = np.nonzero(there)
    agent = who[sample, slot]
    pose = state[later[sample, time], agent, :3]
    local = in_frame(pose, state[at[sample], 0, :3])
    reach = int(np.ceil(np.hypot(*log.size.max(axis=0)) / 2 / GRID.size)) + 1
    span = np.arange(-reach, reach + 1)
    middle = np.floor((local[:, :2] - GRID.corner) / GRID.size).astype(np.int64)
    rows, columns = np.broadcast_arrays(
        middle[:, 0, None, None] + span[:, None], middle[:, 1, None, None] + span
    )
    centres = GRID.corner + (np.stack([rows, columns], axis=-1) + 0.5) * GRID.size
    inside = np.abs(geometry.to_frame(centres, local[:, None, None])) <= log.size[agent][:, None, None] / 2
    hit = inside.all(axis=-1) & (rows >= 0) & (rows < GRID.cells) & (columns >= 0) & (columns < GRID.cells)
    covered = np.zeros((len(at), OCCUPANCY, GRID.cells, GRID.cells), dtype=np.uint8)
    box = np.nonzero(hit)[0]
    covered[sample[box], time[box], rows[hit], columns[hit]] = slot[box] + 1
    return covered


def map_grids(log: SceneLog, pose: Floats) -> Samples:
    """The map as grids around each pose."""
    centres = geometry.from_frame(GRID.centres(), pose[:, None, None])
    depth = np.clip(log.drivable.at(centres), -DEEPEST, DEEPEST)
    points = np.concatenate([np.zeros((0, 2)), *(geometry.resample(line, 0.5) for line in log.dividers)])
    divider = np.stack([rasterise(points, one, GRID) > 0 for one in pose])
    layers = np.stack([depth > 0, np.abs(depth) < 0.6 * GRID.size, divider], axis=1)
    return {"map": layers.astype(np.uint8), "depth": depth.astype(np.float16)}


def map_lines(log: SceneLog, pose: Floats) -> Samples:
    """The map's lines as far as they lie in the grid around each pose."""
    kinds = [(CENTRE, log.centres), (BOUNDARY, log.drivable.contours()), (DIVIDER, log.dividers)]
    lines = [(kind, geometry.resample(line, 1.0)) for kind, group in kinds for line in group]
    points = np.concatenate([line for _, line in lines])
    line_of = np.repeat(np.arange(len(lines)), [len(line) for _, line in lines])
    kind_of = np.array([kind for kind, _ in lines])
    found = np.zeros((len(pose), LINES, LINE_POINTS, 2), dtype=np.float32)
    kind = np.full((len(pose), LINES), -1, dtype=np.int8)
    for row, one in enumerate(pose):
        local = geometry.to_frame(points, one)
        _, inside = GRID.index(local)
        starts, ends = runs(inside, line_of)
        long = ends - starts > 3
        starts, ends = starts[long], ends[long]
        at = starts[:, None] + (ends - 1 - starts)[:, None] * np.linspace(0, 1, LINE_POINTS)
        low = np.minimum(at.astype(np.int64), ends[:, None] - 2)
        share = (at - low)[..., None]
        clipped = local[low] * (1 - share) + local[low + 1] * share
        near = np.argsort(np.hypot(clipped[..., 0], clipped[..., 1]).min(axis=1), kind="stable")[:LINES]
        found[row, : len(near)] = clipped[near]
        kind[row, : len(near)] = kind_of[line_of[starts[near]]]
    return {"lines": found, "line_kind": kind}


def runs(inside: Flags, line_of: Indices) -> tuple[Indices, Indices]:
    """Where stretches of points that lie inside and on one line begin (r,) and end (r,)."""
    joined = inside[1:] & inside[:-1] & (line_of[1:] == line_of[:-1])
    starts = np.flatnonzero(inside & ~np.concatenate([[False], joined]))
    ends = np.flatnonzero(inside & ~np.concatenate([joined, [False]])) + 1
    return starts, ends


def slices(log: SceneLog, keys: Indices, at: Indices, state: Floats) -> Samples:
    """The kinds of situation that reports tell apart."""
    ego = state[:, 0]
    s, _ = geometry.project(ego[at, :2], log.route)
    later = at[:, None] + np.arange(1, FUTURE + 1)
    ahead = log.valid[keys, 0][later].sum(axis=1)  # key frames, without gaps
    end = ego[at + ahead, :2]
    straight_on = ego[at, :2] + ego[at, 3:] * (KEY_S * ahead)[:, None]
    span = round(KEY_S / log.dt) * FUTURE
    return {
        "is_turn": np.abs(route_turn(log.route, s, 30.0)) > 0.35,
        "is_interactive": np.array([log.yields[k : k + span + 1].any() for k in keys[at]]),
        "is_hard": np.hypot(*(end - straight_on).T) > 6.0,
    }
