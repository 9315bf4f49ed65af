"""What the ego senses at a key frame: grids of returns, views of cameras, its route and its own motion."""

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.records.samples import (
    LEFT,
    RED_REACH,
    RIGHT,
    ROUTE_POINTS,
    ROUTE_STEP,
    STRAIGHT,
    SWEEPS,
    Samples,
    SceneLog,
)
from attnsweep.tasks.driving.world import geometry
from attnsweep.tasks.driving.world.cameras import Rig, render
from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices
from attnsweep.tasks.driving.world.sensor import Scan, Scanner, layers, scan


def sense(log: SceneLog, keys: Indices, at: Indices, scanner: Scanner) -> tuple[NDArray[np.uint8], Indices]:
    """The grids (s, 6, 64, 64) of samples, and how many rays hit each agent at each key frame (k, n)."""
    state, valid = log.state[keys], log.valid[keys].copy()
    known = np.flatnonzero(valid[:, 0])
    valid[:, 0] = False  # the ego does not see itself
    pose = np.ascontiguousarray(state[:, 0, :3])
    size = np.broadcast_to(log.size, (*valid.shape, 2))
    nothing = Scan(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(valid.shape[1], dtype=np.int64))
    scans = [nothing] * len(keys)  # where the ego was not there
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
    grids = [layers(scans[k - SWEEPS + 1 : k + 1], red[row], pose[k]) for row, k in enumerate(at)]
    return np.stack(grids), np.stack([one.hits for one in scans])


def red_points(stop_lines: tuple[Floats, ...], red: Flags, pose: Floats) -> Floats:
    """Points (n, 2) of the stop lines in sight whose light is not green."""
    lines = [line for line, shown in zip(stop_lines, red, strict=True) if shown]
    near = [line for line in lines if np.hypot(*(line.mean(axis=0) - pose[:2])) < RED_REACH]
    return np.concatenate([np.zeros((0, 2)), *(geometry.resample(line, 0.5) for line in near)])


def navigation(route: Floats, pose: Floats) -> Samples:
    """The points ahead on a route (n, 2) from each pose (s, 3), and the command: from the route alone."""
    s, _ = geometry.project(pose[:, :2], route)
    ahead = s[:, None] + ROUTE_STEP * np.arange(1, ROUTE_POINTS + 1)
    points = geometry.interpolated(ahead, geometry.stations(route), route)
    turn = route_turn(route, s, ROUTE_POINTS * ROUTE_STEP)
    command = np.where(turn > 0.5, LEFT, np.where(turn < -0.5, RIGHT, STRAIGHT))
    local = geometry.to_frame(points, pose[:, None]).astype(np.float32)
    return {"route": local, "command": command.astype(np.int8)}


def route_turn(route: Floats, s: Floats, reach: float) -> Floats:
    """By how much (s,) the route turns from arc lengths to `reach` metres on."""
    yaw, along = geometry.headings(route), geometry.stations(route)
    return np.interp(s + reach, along, yaw) - np.interp(s, along, yaw)


def ego_state(now: Floats, before: Floats, dt: float) -> NDArray[np.float32]:
    """Speed, accelerations, yaw rate and slip angle (s, 5) of states (s, 5) now and `dt` seconds before."""
    speed, rate = np.hypot(now[:, 3], now[:, 4]), geometry.wrap(now[:, 2] - before[:, 2]) / dt
    change = geometry.to_frame(now[:, 3:] - before[:, 3:], now[:, :3] * np.array([0, 0, 1])) / dt
    slip = np.where(speed > 0.1, geometry.wrap(np.arctan2(now[:, 4], now[:, 3]) - now[:, 2]), 0.0)
    return np.stack([speed, change[:, 0], change[:, 1], rate, slip], axis=1).astype(np.float32)


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
