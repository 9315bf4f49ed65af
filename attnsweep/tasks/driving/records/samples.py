"""From the log of a scene to samples: what the ego senses at each key frame, and what there is to learn.

A key frame comes each half second. The frame of a sample is the ego's at its key frame: x forward, y left,
metres; rows of a grid run along x, columns along y. `SAMPLE` says what each array holds. Logs of any source
make the same samples.

A key frame makes a sample that has 1.5 s of past and 4 s of future. Of a log that is too short for one, every
key frame with any future makes a sample, or, where none has one, the first. What is not known there is
empty or zero: sweeps in the past, and in the future whatever `plan_mask`, `future_mask` and
`future_boxes_mask` say.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.world.cameras import Rig, render
from attnsweep.tasks.driving.world.geometry import (
    Flags,
    Floats,
    Indices,
    headings,
    project,
    resample,
    stations,
    to_frame,
    wrap,
)
from attnsweep.tasks.driving.world.roads import DrivableArea
from attnsweep.tasks.driving.world.sensor import Grid, Scan, Scanner, layers, rasterise, scan

KEY_S = 0.5  # s, from key frame to key frame
SWEEPS = 4  # laid over one another in a sample
FUTURE = 8  # key frames that are to be predicted
AGENTS = 24  # places for agents in a sample
LINES, LINE_POINTS = 32, 10  # places for map lines, and points on each
OCCUPANCY = 5  # times, a second apart
ROUTE_POINTS, ROUTE_STEP = 12, 4.0  # m
CENTRE, BOUNDARY, DIVIDER = range(3)  # classes of map lines
STRAIGHT, LEFT, RIGHT = range(3)  # commands
RED_REACH = 50.0  # m, at which a red light is seen
DEEPEST = 8.0  # m, at which depths are cut off
SAMPLE = {
    "bev": "(6, 64, 64) uint8: returns of the sweeps 1.5, 1.0, 0.5 and 0 s ago, seen paint of all of them, "
    "stop lines in sight whose light is not green",
    "route": "(12, 2) float32: points of the route, the first 4 m ahead, 4 m apart",
    "command": "int8: 0 straight on, 1 left, 2 right over the next 48 m of the route",
    "ego_state": "(5,) float32: speed, acceleration along and to the left, yaw rate, slip angle; over the "
    "last 0.1 s",
    "box": "(24, 7) float32: x, y, cosine and sine of yaw, length, width, kind of each agent in the grid "
    "that at least one ray of the last four sweeps hit",
    "velocity": "(24, 2) float32: of the same agents over the ground",
    "id": "(24,) int16: who it is, the same over a scene; -1: the place is empty",
    "mask": "(24,) bool: whether the place is taken",
    "future": "(24, 8, 2) float32: where it will be less where it is, each half second",
    "future_mask": "(24, 8) bool",
    "lines": "(32, 10, 2) float32: lines of the map in the grid, the nearest first",
    "line_kind": "(32,) int8: 0 middle of a lane, 1 border of the road, 2 divider; -1: the place is empty",
    "map": "(3, 64, 64) uint8: drivable, border, divider",
    "depth": "(64, 64) float16: how far a cell's middle lies within the drivable area, -8 to 8 m",
    "occupancy": "(5, 64, 64) uint8: 1 + the place of the agent that will cover the cell in 0, 1, ... 4 s",
    "plan": "(8, 3) float32: x, y, yaw of the expert each half second",
    "plan_mask": "(8,) bool: whether it was recorded then",
    "future_boxes": "(8, 24, 5) float32: x, y, yaw, length, width of the others each half second, seen or "
    "not",
    "future_boxes_mask": "(8, 24) bool",
    "scene": "int32: the scene's number, of ours the map seed",
    "time": "float32: s since the scene's start",
    "pose": "(3,) float64: of the ego in the world",
    "size": "(2,) float32: the ego's length and width",
    "previous": "int32: the index of the sample one key frame before in this part; -1: there is none",
    "motion": "(3,) float32: the ego's pose at the key frame before, in this frame",
    "is_turn": "bool: the route's direction changes by more than 0.35 rad over the next 30 m",
    "is_interactive": "bool: within 4 s the expert has to stop for others or a light less than 20 m ahead",
    "is_hard": "bool: at constant velocity the ego would be off by more than 6 m in 4 s, or by the end",
}
Samples = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class SceneLog:
    """A scene as it was driven, the ego first among its `n` agents, an entry each `dt` seconds.

    `state` (t, n, 5) holds x, y, yaw, vx, vy in the world, `valid` (t, n) who was there, the ego without a
    gap; `kind` (n,), `size`
    (n, 2). Lines are polylines in the world: `centres` of lanes, `dividers`, `paint` (points of all that is
    painted), `route` of the ego, `stop_lines` with `red` (t, lines). `yields` (t,) tells when the ego had to
    stop for others.
    """

    number: int
    dt: float
    kind: Indices
    size: Floats
    state: Floats
    valid: Flags
    drivable: DrivableArea
    centres: tuple[Floats, ...]
    dividers: tuple[Floats, ...]
    paint: Floats
    route: Floats
    stop_lines: tuple[Floats, ...]
    red: Flags
    yields: Flags


def samples_of(
    log: SceneLog, grid: Grid | None = None, scanner: Scanner | None = None, rig: Rig | None = None
) -> Samples:
    """The samples of a scene, a row each in every array. With a `rig` they hold what `cameras.CAMERAS` says
    besides.
    """
    grid, scanner = grid or Grid(), scanner or Scanner()
    log, padding = padded(log)
    keys = np.arange(0, len(log.state), round(KEY_S / log.dt))
    at = key_frames(log.valid[keys, 0], short=padding > 0)
    if not len(at):
        return {}
    state, valid = log.state[keys], log.valid[keys]
    pose = state[:, 0, :3]
    sensed, hits = sense(log, keys, at, grid, scanner)
    seen = sum(hits[at - k] for k in range(SWEEPS)) > 0
    slots = visible(state[at], valid[at] & seen, pose[at], grid)
    return {
        "bev": sensed,
        **navigation(log.route, pose[at]),
        "ego_state": ego_state(log.state[keys[at], 0], before(log, keys[at]), log.dt),
        **agents(log, state, valid, at, slots),
        **map_lines(log, pose[at], grid),
        **map_grids(log, pose[at], grid),
        "occupancy": occupancy(log, state, valid, at, slots, grid),
        **everyone(log, state, valid, at),
        "scene": np.full(len(at), log.number, dtype=np.int32),
        "time": ((keys[at] - padding) * log.dt).astype(np.float32),
        "pose": pose[at],
        "size": np.tile(log.size[0].astype(np.float32), (len(at), 1)),
        "previous": np.arange(-1, len(at) - 1, dtype=np.int32),
        "motion": in_frame(pose[at - 1], pose[at]).astype(np.float32),
        **slices(log, keys, at, state),
        **(views(log, keys[at], rig) if rig else {}),
    }


def padded(log: SceneLog) -> tuple[SceneLog, int]:
    """A log that is long enough for a sample, and how many entries were put before it. Nobody is there in the
    entries that are put before and behind one that is too short.
    """
    every = round(KEY_S / log.dt)
    keys = len(range(0, int(log.valid[:, 0].sum()), every))
    if keys >= SWEEPS + FUTURE:
        return log, 0
    first, last = (SWEEPS - 1) * every, FUTURE * every
    ends = ((first, last), (0, 0))
    return (
        replace(
            log,
            state=np.pad(log.state, (*ends, (0, 0)), mode="edge"),
            valid=np.pad(log.valid, ends),
            red=np.pad(log.red, ends, mode="edge"),
            yields=np.pad(log.yields, ends[:1]),
        ),
        first,
    )


def key_frames(known: Flags, *, short: bool) -> Indices:
    """The key frames that make samples (s,), of those at which the ego is there (k,); see the module."""
    if not short:
        return np.arange(SWEEPS - 1, len(known) - FUTURE)
    at = np.flatnonzero(known)
    with_future = at[[bool(known[k + 1 : k + 1 + FUTURE].any()) for k in at]]
    return with_future if len(with_future) else at[:1]


def before(log: SceneLog, entries: Indices) -> Floats:
    """The ego's states (s, 5) one entry before; where it was not there yet, as it would have to be to go on
    as it does next, or as it is.
    """
    now, known = log.state[entries, 0], log.valid[:, 0]
    onward = np.where(known[entries + 1, None], 2 * now - log.state[entries + 1, 0], now)
    return np.where(known[entries - 1, None], log.state[entries - 1, 0], onward)


def views(log: SceneLog, entries: Indices, rig: Rig) -> Samples:
    """What the cameras show at entries (s,) of a log."""
    images = []
    for k in entries:
        others = np.flatnonzero(log.valid[k, 1:]) + 1
        pose = log.state[k, 0, :3]
        boxes = np.concatenate([log.state[k, others, :3], log.size[others]], axis=1)
        red = red_points(log.stop_lines, log.red[k], pose)
        images.append(
            render(pose, boxes, log.kind[others], area=log.drivable, paint=log.paint, red=red, rig=rig)
        )
    return with_rig(images, rig)


def with_rig(images: list[NDArray[np.uint8]], rig: Rig) -> Samples:
    """Views, and where the cameras stand, a row each."""
    rows = (len(images), 1, 1, 1)
    return {
        "cams": np.stack(images),
        "intr": np.tile(rig.intr.astype(np.float32), rows),
        "extr": np.tile(rig.extr.astype(np.float32), rows),
    }


def plan_mask(samples: Samples) -> Flags:
    """Which key frames (s, 8) of the expert's plan were recorded; all, in samples from before there was such
    a mask.
    """
    every = np.ones((len(samples["plan"]), FUTURE), dtype=bool)
    return np.asarray(samples.get("plan_mask", every), dtype=bool)


def occupancy_mask(samples: Samples) -> Flags:
    """At which times (s, 5) of `occupancy` it was recorded who covers what: now, and where the plan was."""
    known = np.ones((len(samples["occupancy"]), OCCUPANCY), dtype=bool)
    if "plan_mask" in samples:
        every = round(1 / KEY_S)
        known[:, 1:] = samples["plan_mask"][:, every - 1 :: every]
    return known


def in_frame(poses: Floats, frame: Floats) -> Floats:
    """Poses (..., 3) in the frames (..., 3)."""
    turned = wrap(poses[..., 2] - frame[..., 2])
    return np.concatenate([to_frame(poses[..., :2], frame), turned[..., None]], axis=-1)


# --- What is sensed ---


def sense(
    log: SceneLog, keys: Indices, at: Indices, grid: Grid, scanner: Scanner
) -> tuple[NDArray[np.uint8], Indices]:
    """The grids (s, 6, cells, cells) of each sample, and how many rays hit each agent at each key frame
    (k, n).
    """
    state, valid = log.state[keys], log.valid[keys].copy()
    known = np.flatnonzero(valid[:, 0])
    valid[:, 0] = False  # the ego does not see itself
    pose = np.ascontiguousarray(state[:, 0, :3])
    size = np.broadcast_to(log.size, (*valid.shape, 2))
    scans = [no_scan(valid.shape[1])] * len(keys)
    scanned = scan(
        pose[known],
        np.concatenate([state[..., :3], size], axis=-1)[known],
        valid[known],
        paint=[log.paint] * len(known),
        seeds=[(log.number, k) for k in range(len(known))],
        scanner=scanner,
    )
    for k, one in zip(known, scanned, strict=True):
        scans[k] = one
    red = [red_points(log.stop_lines, log.red[keys[k]], pose[k]) for k in at]
    grids = [layers(scans[k - SWEEPS + 1 : k + 1], red[row], pose[k], grid) for row, k in enumerate(at)]
    return np.stack(grids), np.stack([one.hits for one in scans])


def no_scan(agents: int) -> Scan:
    """The scan of a key frame at which the ego was not there."""
    return Scan(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(agents, dtype=np.int64))


def red_points(stop_lines: tuple[Floats, ...], red: Flags, pose: Floats) -> Floats:
    """Points (n, 2) of the stop lines in sight whose light is not green."""
    lines = [line for line, shown in zip(stop_lines, red, strict=True) if shown]
    near = [line for line in lines if np.hypot(*(line.mean(axis=0) - pose[:2])) < RED_REACH]
    return np.concatenate([np.zeros((0, 2)), *(resample(line, 0.5) for line in near)])


def navigation(route: Floats, pose: Floats) -> Samples:
    """The points ahead on a route (n, 2) from each pose (s, 3), and the command: from the route alone."""
    s, _ = project(pose[:, :2], route)
    ahead = s[:, None] + ROUTE_STEP * np.arange(1, ROUTE_POINTS + 1)
    along = stations(route)
    points = np.stack([np.interp(ahead, along, route[:, k]) for k in range(2)], axis=-1)
    turn = route_turn(route, s, ROUTE_POINTS * ROUTE_STEP)
    command = np.where(turn > 0.5, LEFT, np.where(turn < -0.5, RIGHT, STRAIGHT))
    return {
        "route": to_frame(points, pose[:, None]).astype(np.float32),
        "command": command.astype(np.int8),
    }


def route_turn(route: Floats, s: Floats, reach: float) -> Floats:
    """By how much (s,) the route turns from arc lengths to `reach` metres on."""
    yaw, along = headings(route), stations(route)
    return np.interp(s + reach, along, yaw) - np.interp(s, along, yaw)


def ego_state(now: Floats, before: Floats, dt: float) -> NDArray[np.float32]:
    """Speed, accelerations, yaw rate and slip angle (s, 5) of states (s, 5) now and `dt` seconds before."""
    speed, rate = np.hypot(now[:, 3], now[:, 4]), wrap(now[:, 2] - before[:, 2]) / dt
    change = to_frame(now[:, 3:] - before[:, 3:], now[:, :3] * np.array([0, 0, 1])) / dt
    slip = np.where(speed > 0.1, wrap(np.arctan2(now[:, 4], now[:, 3]) - now[:, 2]), 0.0)
    return np.stack([speed, change[:, 0], change[:, 1], rate, slip], axis=1).astype(np.float32)


# --- What there is to learn ---


def visible(state: Floats, seen: Flags, pose: Floats, grid: Grid) -> Indices:
    """The agents (s, 24) of each sample in the order of their numbers; -1 where a place is empty.

    Of more than there are places for, the nearest.
    """
    local = to_frame(state[..., :2], pose[:, None])
    _, inside = grid.index(local)
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


def agents(
    log: SceneLog,
    state: Floats,
    valid: Flags,
    at: Indices,
    slots: Indices,
) -> Samples:
    """What is known of the agents in the slots (s, 24), from states at key frames (k, n, 5)."""
    taken, who = slots >= 0, np.maximum(slots, 0)
    frame = state[at, 0, :3][:, None]
    now = state[at[:, None], who]
    later = at[:, None] + np.arange(1, FUTURE + 1)
    then = state[later[:, None], who[:, :, None]]  # (s, 24, 8, 5)
    there = valid[later[:, None], who[:, :, None]] & taken[..., None]
    xy = to_frame(now[..., :2], frame)
    yaw = now[..., 2] - frame[..., 2]
    box = [xy, np.cos(yaw)[..., None], np.sin(yaw)[..., None], log.size[who], log.kind[who][..., None]]
    turned = frame * np.array([0, 0, 1])
    offsets = to_frame(then[..., :2], frame[:, :, None]) - xy[:, :, None]
    return {
        "box": np.where(taken[..., None], np.concatenate(box, axis=-1), 0).astype(np.float32),
        "velocity": np.where(taken[..., None], to_frame(now[..., 3:], turned), 0).astype(np.float32),
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
    nearest = order_of_approach(local[:, :, 1:], valid[later][:, :, 1:])[:, :others] + 1
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


def order_of_approach(local: Floats, valid: Flags) -> Indices:
    """The others (s, n) of each sample, those first who come nearest to where the ego is (s, t, n, 3)."""
    distance = np.where(valid, np.hypot(local[..., 0], local[..., 1]), np.inf).min(axis=1)
    return np.argsort(distance, axis=1, kind="stable")


def occupancy(
    log: SceneLog,
    state: Floats,
    valid: Flags,
    at: Indices,
    slots: Indices,
    grid: Grid,
) -> NDArray[np.uint8]:
    """1 + the slot of the agent whose box will cover each cell's middle (s, 5, cells, cells)."""
    later = at[:, None] + round(1 / KEY_S) * np.arange(OCCUPANCY)
    who = np.maximum(slots, 0)
    there = valid[later[..., None], who[:, None]] & (slots >= 0)[:, None]
    sample, time, slot = np.nonzero(there)
    agent = who[sample, slot]
    pose = state[later[sample, time], agent, :3]
    local = in_frame(pose, state[at[sample], 0, :3])
    reach = int(np.ceil(np.hypot(*log.size.max(axis=0)) / 2 / grid.size)) + 1
    span = np.arange(-reach, reach + 1)
    middle = np.floor((local[:, :2] - grid.corner) / grid.size).astype(np.int64)
    rows, columns = np.broadcast_arrays(
        middle[:, 0, None, None] + span[:, None], middle[:, 1, None, None] + span
    )
    centres = grid.corner + (np.stack([rows, columns], axis=-1) + 0.5) * grid.size
    inside = np.abs(to_frame(centres, local[:, None, None])) <= log.size[agent][:, None, None] / 2
    hit = inside.all(axis=-1) & (rows >= 0) & (rows < grid.cells) & (columns >= 0) & (columns < grid.cells)
    covered = np.zeros((len(at), OCCUPANCY, grid.cells, grid.cells), dtype=np.uint8)
    box = np.nonzero(hit)[0]
    covered[sample[box], time[box], rows[hit], columns[hit]] = slot[box] + 1
    return covered


def map_grids(log: SceneLog, pose: Floats, grid: Grid) -> Samples:
    """The map as grids around each pose."""
    centres = grid.centres()
    cos, sin = np.cos(pose[:, 2])[:, None, None], np.sin(pose[:, 2])[:, None, None]
    x = pose[:, 0, None, None] + cos * centres[..., 0] - sin * centres[..., 1]
    y = pose[:, 1, None, None] + sin * centres[..., 0] + cos * centres[..., 1]
    depth = np.clip(log.drivable.at(np.stack([x, y], axis=-1)), -DEEPEST, DEEPEST)
    points = (
        np.concatenate([resample(line, 0.5) for line in log.dividers]) if log.dividers else np.zeros((0, 2))
    )
    divider = np.stack([rasterise(points, one, grid) > 0 for one in pose])
    layers = np.stack([depth > 0, np.abs(depth) < 0.6 * grid.size, divider], axis=1)
    return {"map": layers.astype(np.uint8), "depth": depth.astype(np.float16)}


def map_lines(log: SceneLog, pose: Floats, grid: Grid) -> Samples:
    """The map's lines as far as they lie in the grid around each pose."""
    kinds = [(CENTRE, log.centres), (BOUNDARY, log.drivable.contours()), (DIVIDER, log.dividers)]
    lines = [(kind, resample(line, 1.0)) for kind, group in kinds for line in group]
    points = np.concatenate([line for _, line in lines])
    line_of = np.repeat(np.arange(len(lines)), [len(line) for _, line in lines])
    kind_of = np.array([kind for kind, _ in lines])
    found = np.zeros((len(pose), LINES, LINE_POINTS, 2), dtype=np.float32)
    kind = np.full((len(pose), LINES), -1, dtype=np.int8)
    for row, one in enumerate(pose):
        local = to_frame(points, one)
        _, inside = grid.index(local)
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
    s, _ = project(ego[at, :2], log.route)
    ahead = (log.valid[keys, 0][at[:, None] + np.arange(1, FUTURE + 1)]).sum(
        axis=1
    )  # key frames, without gaps
    end = ego[at + ahead, :2]
    straight_on = ego[at, :2] + ego[at, 3:] * (KEY_S * ahead)[:, None]
    span = round(KEY_S / log.dt) * FUTURE
    return {
        "is_turn": np.abs(route_turn(log.route, s, 30.0)) > 0.35,
        "is_interactive": np.array([log.yields[k : k + span + 1].any() for k in keys[at]]),
        "is_hard": np.hypot(*(end - straight_on).T) > 6.0,
    }
