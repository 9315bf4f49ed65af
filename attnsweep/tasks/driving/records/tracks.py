"""What recordings of real traffic have in common: tracks of agents, lanes, and the route that one of them
took. From these come scene logs like those of the own world.

A recording does not say what its driver intended. The route of an ego is the middle of the lanes that it
followed: which lanes is known from its future, as a navigation system would know it; where in a lane it
drove, how fast and when it stopped is not. A change of lane begins 15 m before the place where the ego
crossed and ends 15 m behind it. Beyond the last pose the route goes on along the straightest lane.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S, SWEEPS, SceneLog
from attnsweep.tasks.driving.records.scenes import LEAST_WAY
from attnsweep.tasks.driving.world.geometry import Floats, headings, project, resample, stations, wrap
from attnsweep.tasks.driving.world.roads import SPACING, DrivableArea, rounded
from attnsweep.tasks.driving.world.traffic import DT

SHORTEST_S = KEY_S * (FUTURE + SWEEPS - 1)  # s, that one sample needs
OFF_MAP = 5.0  # m from the middle of every lane, at which a vehicle is not on the map
TURNED = 3.0  # m, that a direction one rad off the lane's counts as
SWITCH = 6.0  # m, that going over to a lane that does not continue the last one counts as
CHANGE = 15.0  # m, before and behind the place of a change of lane
REACH = 60.0  # m, that a route goes on beyond the last pose
AROUND = 90.0  # m around where agents are, that count of a map
WIDEST = 20e3  # m, that a map may measure
LARGEST_AREA = 4e6  # m2, that may count of a map
LONGEST = 30.0  # m; longer agents, such as trains and buildings, are left out


@dataclass(frozen=True)
class Track:
    """One agent of a recording: its kind as in `cast`, length and width, and `n` poses (n, 3) at rising times
    (n,), with velocities (n, 2) in the world; None: by differences of the positions.

    Between poses no more than `gap` seconds apart it was there. One that has a single pose is there at the
    entry of a log that is nearest to it, and stands.
    """

    name: str
    kind: int
    size: tuple[float, float]
    time: Floats
    pose: Floats
    velocity: Floats | None
    gap: float


@dataclass(frozen=True)
class Surroundings:
    """What does not move: centre lines of lanes and the lanes that each leads to, and the rest as in
    `SceneLog`; `red` gives from times (t,) which stop lines (t, lines) show red then.
    """

    centres: tuple[Floats, ...]
    successors: tuple[tuple[int, ...], ...]
    drivable: DrivableArea
    dividers: tuple[Floats, ...] = ()
    paint: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    stop_lines: tuple[Floats, ...] = ()
    red: Callable[[Floats], NDArray[np.bool_]] = lambda times: np.zeros((len(times), 0), dtype=bool)


def log_of(tracks: Sequence[Track], ego: int, around: Surroundings, *, number: int) -> SceneLog | str:
    """The scene of one track as ego, as long as it was there; or why it makes none.

    Who is never there meanwhile is left out. `yields` stands for what a recording cannot tell: the ego
    stands, or brakes by more than 1 m/s2.
    """
    own = tracks[ego]
    late = np.flatnonzero(np.diff(own.time) > own.gap)
    if len(late):
        return f"not seen after {own.time[late[0]]:.1f} s"
    if own.time[-1] - own.time[0] < SHORTEST_S:
        return f"there for {own.time[-1] - own.time[0]:.1f} s, a sample needs {SHORTEST_S:.1f}"
    times = own.time[0] + DT * np.arange(int((own.time[-1] - own.time[0]) / DT + 1e-6) + 1)
    everyone = [own, *tracks[:ego], *tracks[ego + 1 :]]
    entries = [entries_of(track, times) for track in everyone]
    state, valid = (np.stack(part, axis=1) for part in zip(*entries, strict=True))
    if np.hypot(*np.diff(state[:, 0, :2], axis=0).T).sum() < LEAST_WAY:
        return "ego stands"
    route = route_of(state[:, 0, :3], around.centres, around.successors)
    if route is None:
        return f"more than {OFF_MAP:g} m from every lane"
    there = np.flatnonzero(valid.any(axis=0))
    kept = [everyone[i] for i in there]
    return SceneLog(
        number=number,
        dt=DT,
        kind=np.array([track.kind for track in kept]),
        size=np.array([track.size for track in kept]),
        state=state[:, there],
        valid=valid[:, there],
        drivable=around.drivable,
        centres=around.centres,
        dividers=around.dividers,
        paint=around.paint,
        route=route,
        stop_lines=around.stop_lines,
        red=around.red(times),
        yields=slows(np.hypot(state[:, 0, 3], state[:, 0, 4])),
    )


def entries_of(track: Track, times: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """A track's states (t, 5) at `times` (t,), between poses in proportion, and when it was there (t,)."""
    pose = np.column_stack([track.pose[:, :2], np.unwrap(track.pose[:, 2])])
    velocity = track.velocity
    if velocity is None:
        velocity = np.zeros((1, 2))
        if len(pose) > 1:
            velocity = np.gradient(pose[:, :2], track.time, axis=0)
    columns = [*pose.T, *velocity.T]
    state = np.stack([np.interp(times, track.time, column) for column in columns], axis=1)
    k = np.clip(np.searchsorted(track.time, times, side="right") - 1, 0, len(pose) - 1)
    after = np.minimum(k + 1, len(pose) - 1)
    between = (times >= track.time[k]) & (times < track.time[after])
    between &= track.time[after] - track.time[k] <= track.gap
    near = np.minimum(np.abs(times - track.time[k]), np.abs(times - track.time[after])) < DT / 2 - 1e-9
    return state, between | near


def slows(speed: Floats) -> NDArray[np.bool_]:
    """Whether someone whose speed is (t,) stands or brakes hard, by the change of speed in half a second."""
    ahead = np.minimum(np.arange(len(speed)) + round(KEY_S / DT), len(speed) - 1)
    return (speed < 0.5) | (speed[ahead] - speed < -1.0 * KEY_S)


def part_of_map(points: Floats, agents: Floats, where: str) -> Floats:
    """The lowest and highest x and y (2, 2) of what counts of a map with points (n, 2), around agents (m, 2).

    Raises UserError where that is more than memory should hold.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    if (high - low > WIDEST).any():
        raise UserError(f"{where}: the map measures {(high - low).max() / 1e3:.0f} km; 20 km are the most")
    within = np.stack(
        [np.maximum(low, agents.min(axis=0) - AROUND), np.minimum(high, agents.max(axis=0) + AROUND)]
    )
    within[1] = np.maximum(within[1], within[0] + 1.0)
    if np.prod(within[1] - within[0]) > LARGEST_AREA:
        raise UserError(
            f"{where}: agents are all over {np.prod(within[1] - within[0]) / 1e6:.0f} km2; 4 are the most"
        )
    return within


# --- The route ---


def route_of(
    poses: Floats, centres: Sequence[Floats], successors: Sequence[tuple[int, ...]]
) -> Floats | None:
    """The line (n, 2), a point each 0.5 m, along the lanes that someone with poses (t, 3) followed; None if
    it left them.
    """
    taken = lanes_taken(poses, centres, successors)
    if taken is None:
        return None
    starts = np.flatnonzero(np.diff(taken, prepend=-1))
    ends = np.append(starts[1:], len(taken)) - 1
    pieces, comes_over = [], False
    for start, end in zip(starts, ends, strict=True):
        lane, centre = taken[start], centres[taken[start]]
        (first, last), _ = project(poses[[start, end], :2], centre)
        goes_over = end + 1 < len(taken) and taken[end + 1] not in successors[lane]
        low = first + CHANGE if comes_over else 0.0
        high = last - CHANGE if goes_over else stations(centre)[-1]
        middle = (low + high) / 2
        pieces.append(between(centre, min(low, middle), max(high, middle)))
        comes_over = goes_over
    line = distinct(np.concatenate([*pieces, *onward(poses[-1], int(taken[-1]), centres, successors)]))
    return rounded(resample(line, SPACING))


def lanes_taken(
    poses: Floats, centres: Sequence[Floats], successors: Sequence[tuple[int, ...]]
) -> NDArray[np.int64] | None:
    """The lane (t,) of each pose (t, 3); None if a pose is on none.

    The cheapest chain, where being off a lane's middle or direction costs, and so does going over to a lane
    that does not continue the last one; by dynamic programming (Viterbi, 1967).
    """
    aside, turned = np.empty((2, len(poses), len(centres)))
    for lane, centre in enumerate(centres):
        s, left = project(poses[:, :2], centre)
        aside[:, lane] = np.abs(left)
        turned[:, lane] = np.abs(wrap(np.interp(s, stations(centre), headings(centre)) - poses[:, 2]))
    if not len(centres) or (aside.min(axis=1) > OFF_MAP).any():
        return None
    step = np.full((len(centres), len(centres)), SWITCH)
    np.fill_diagonal(step, 0.0)
    for lane, ahead in enumerate(successors):
        step[lane, list(ahead)] = 0.0
    cost = aside + TURNED * turned
    total, back = cost[0], []
    for now in cost[1:]:
        ways = total[:, None] + step
        back.append(ways.argmin(axis=0))
        total = ways.min(axis=0) + now
    chain = [int(total.argmin())]
    for best in reversed(back):
        chain.append(int(best[chain[-1]]))
    return np.array(chain[::-1])


def onward(
    pose: Floats, lane: int, centres: Sequence[Floats], successors: Sequence[tuple[int, ...]]
) -> list[Floats]:
    """The lines that continue a lane until `REACH` beyond a pose (3,) on it, the straightest each time; where
    lanes end, straight on.
    """
    s, _ = project(pose[None, :2], centres[lane])
    rest = REACH - (stations(centres[lane])[-1] - s[0])
    lines = [centres[lane]]
    while rest > 0 and successors[lane]:
        lane = min(successors[lane], key=lambda one: abs(headings(centres[one])[[0, -1]] @ [-1, 1]))
        lines.append(centres[lane])
        rest -= max(stations(centres[lane])[-1], 1.0)
    if rest > 0:
        way = lines[-1][-1] - lines[-1][-2]
        lines.append((lines[-1][-1] + rest * way / np.hypot(*way))[None])
    return lines[1:]


def between(xy: Floats, start: float, end: float) -> Floats:
    """The part of a polyline (n, 2) from one arc length to another."""
    along = stations(xy)
    s = np.concatenate([[start], along[(along > start) & (along < end)], [end]])
    return np.stack([np.interp(s, along, xy[:, k]) for k in range(2)], axis=1)


def distinct(xy: Floats) -> Floats:
    """The polyline without points that repeat the one before."""
    moves = np.hypot(*np.diff(xy, axis=0).T) > 1e-6
    return xy[np.concatenate([[True], moves])]
