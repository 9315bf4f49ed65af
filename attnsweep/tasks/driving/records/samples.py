"""What a sample holds, and the log of a scene that samples are made of (see `sampling`).

A key frame comes each half second. The frame of a sample is the ego's at its key frame: x forward, y left,
metres; rows of a grid run along x, columns along y. `SAMPLE` says what each array holds. Logs of any source
make the same samples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.world.geometry import Flags, Floats, Indices, to_frame, wrap
from attnsweep.tasks.driving.world.roads import DrivableArea

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
    gap; `kind` (n,), `size` (n, 2). Lines are polylines in the world: `centres` of lanes, `dividers`, `paint`
    (points of all that is painted), `route` of the ego, `stop_lines` with `red` (t, lines). `yields` (t,)
    tells when the ego had to stop for others.
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


def occupancy_mask(samples: Samples) -> Flags:
    """At which times (s, 5) of `occupancy` it was recorded who covers what: now, and where the plan was."""
    every = round(1 / KEY_S)
    now = np.ones((len(samples["plan_mask"]), 1), dtype=bool)
    return np.concatenate([now, samples["plan_mask"][:, every - 1 :: every]], axis=1)


def in_frame(poses: Floats, frame: Floats) -> Floats:
    """Poses (..., 3) in the frames (..., 3)."""
    turned = wrap(poses[..., 2] - frame[..., 2])
    return np.concatenate([to_frame(poses[..., :2], frame), turned[..., None]], axis=-1)
