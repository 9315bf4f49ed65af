"""What recordings of real traffic have in common: tracks of agents, and what stands around them. From these
come scene logs like those of the own world.

A scene is what one ego went through, as long as it was there: without a gap, and on a lane. Of several such
stretches the longest counts. It may be short: what is not known of its past or its future is masked in its
samples (`samples.samples_of`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from attnsweep.tasks.driving.records.presets import LEAST_WAY
from attnsweep.tasks.driving.records.routes import OFF_MAP, Lanes, Region, on_lanes, route_of, route_to
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S, SWEEPS, SceneLog
from attnsweep.tasks.driving.world.geometry import Flags, Floats, interpolated
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.roads import DrivableArea

WHOLE_S = KEY_S * (FUTURE + SWEEPS - 1)  # s, of a scene that makes a whole sample
STANDING = 0.5  # m/s, below which one stands
AROUND = 90.0  # m around where agents are, that count of a map
WIDEST = 20e3  # m, that a map may measure
LARGEST_AREA = 4e6  # m2, that may count of a map
LONGEST = 30.0  # m; longer agents, such as trains and buildings, are left out, but for walls
NO_LANE = f"more than {OFF_MAP:g} m from every lane"


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

    @property
    def seconds(self) -> float:
        """How long it was there."""
        return float(self.time[-1] - self.time[0])

    @property
    def has_future(self) -> bool:
        """Whether it was there from one key frame to the next."""
        return self.seconds > KEY_S - DT / 2

    def stands(self, *, lenient: bool) -> bool:
        """Whether it goes less than 15 m; or, where it is not there for a whole sample's time, or with
        `lenient`, is slower than 0.5 m/s on average.
        """
        if not self.seconds:
            return self.velocity is None or float(np.hypot(*self.velocity[0])) < STANDING
        way = float(np.hypot(*np.diff(self.pose[:, :2], axis=0).T).sum())
        return way < (STANDING * self.seconds if lenient or self.seconds < WHOLE_S else LEAST_WAY)


@dataclass(frozen=True)
class Surroundings:
    """What does not move: lanes, and the rest as in `SceneLog`; `red` gives from times (t,) which stop lines
    (t, lines) show red then.
    """

    lanes: Lanes
    drivable: DrivableArea
    dividers: tuple[Floats, ...] = ()
    paint: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    stop_lines: tuple[Floats, ...] = ()
    red: Callable[[Floats], Flags] = lambda times: np.zeros((len(times), 0), dtype=bool)


def log_of(
    tracks: Sequence[Track], ego: int, around: Surroundings, *, number: int, lenient: bool = False
) -> SceneLog | str:
    """The scene of one track as ego, as long as it was there; or why it makes none; `lenient`: though it
    goes less than 15 m, or is on a lane for a moment alone.

    `yields` stands for what a recording cannot tell: the ego stands, or brakes by more than 1 m/s2.
    """
    own = longest_stretch(tracks[ego], around)
    if own is None:
        return NO_LANE
    if own.seconds < tracks[ego].seconds and not (own.has_future or lenient):
        return f"seen on a lane for {own.seconds:.1f} s on end, less than from key frame to key frame"
    if own.stands(lenient=lenient):
        return "ego stands"
    times = own.time[0] + DT * np.arange(int(own.seconds / DT + 1e-6) + 1)
    state, _ = entries_of(own, times)
    route = route_of(state[:, :3], around.lanes)
    yields = slows(np.hypot(state[:, 3], state[:, 4]))
    everyone = [own, *tracks[:ego], *tracks[ego + 1 :]]
    return scene_of(everyone, around, times=times, route=route, yields=yields, number=number)


def longest_stretch(track: Track, around: Surroundings) -> Track | None:
    """The longest part of a track that has no gap and no pose off the lanes; None where every pose is."""
    on = np.flatnonzero(on_lanes(track.pose[:, :2], around.lanes))
    if not len(on):
        return None
    breaks = np.flatnonzero((np.diff(on) > 1) | (np.diff(track.time[on]) > track.gap)) + 1
    part = max(np.split(on, breaks), key=lambda one: track.time[one[-1]] - track.time[one[0]])
    velocity = None if track.velocity is None else track.velocity[part]
    return replace(track, time=track.time[part], pose=track.pose[part], velocity=velocity)


def log_to_goal(
    own: Track, goals: Sequence[Region], others: Sequence[Track], around: Surroundings, *, number: int
) -> SceneLog | str:
    """The 4 s of somebody whose initial state and goals are given, among others; or why there are none."""
    route = route_to(own.pose[0], goals, around.lanes)
    if route is None:
        return NO_LANE
    times = own.time[0] + DT * np.arange(round(KEY_S * FUTURE / DT) + 1)
    yields = np.zeros(len(times), dtype=bool)
    return scene_of([own, *others], around, times=times, route=route, yields=yields, number=number)


def scene_of(
    tracks: Sequence[Track], around: Surroundings, *, times: Floats, route: Floats, yields: Flags, number: int
) -> SceneLog:
    """The scene at `times` (t,) of tracks, the ego first. Who is never there meanwhile is left out."""
    entries = [entries_of(track, times) for track in tracks]
    state, valid = (np.stack(part, axis=1) for part in zip(*entries, strict=True))
    there = np.flatnonzero(valid.any(axis=0)).tolist()
    return SceneLog(
        number=number,
        dt=DT,
        kind=np.array([tracks[i].kind for i in there]),
        size=np.array([tracks[i].size for i in there]),
        state=state[:, there],
        valid=valid[:, there],
        drivable=around.drivable,
        centres=around.lanes.centres,
        dividers=around.dividers,
        paint=around.paint,
        route=route,
        stop_lines=around.stop_lines,
        red=around.red(times),
        yields=yields,
    )


def entries_of(track: Track, times: Floats) -> tuple[Floats, Flags]:
    """A track's states (t, 5) at `times` (t,), between poses in proportion, and when it was there (t,)."""
    pose = np.column_stack([track.pose[:, :2], np.unwrap(track.pose[:, 2])])
    velocity = track.velocity
    if velocity is None:
        velocity = np.zeros((1, 2))
        if len(pose) > 1:
            velocity = np.gradient(pose[:, :2], track.time, axis=0)
    state = interpolated(times, track.time, np.column_stack([pose, velocity]))
    k = np.clip(np.searchsorted(track.time, times, side="right") - 1, 0, len(pose) - 1)
    after = np.minimum(k + 1, len(pose) - 1)
    between = (times >= track.time[k]) & (times < track.time[after])
    between &= track.time[after] - track.time[k] <= track.gap
    near = np.minimum(np.abs(times - track.time[k]), np.abs(times - track.time[after])) < DT / 2 - 1e-9
    return state, between | near


def slows(speed: Floats) -> Flags:
    """Whether someone whose speed is (t,) stands or brakes hard, by the change of speed in half a second."""
    ahead = np.minimum(np.arange(len(speed)) + round(KEY_S / DT), len(speed) - 1)
    return (speed < STANDING) | (speed[ahead] - speed < -1.0 * KEY_S)


def part_of_map(points: Floats, agents: Floats) -> Floats | str:
    """The lowest and highest x and y (2, 2) of what counts of a map with points (n, 2), around agents (m, 2);
    or that it is more than memory should hold.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    if (high - low > WIDEST).any():
        return f"the map measures {(high - low).max() / 1e3:.0f} km; 20 km are the most"
    within = np.stack(
        [np.maximum(low, agents.min(axis=0) - AROUND), np.minimum(high, agents.max(axis=0) + AROUND)]
    )
    within[1] = np.maximum(within[1], within[0] + 1.0)
    if np.prod(within[1] - within[0]) > LARGEST_AREA:
        return f"agents are all over {np.prod(within[1] - within[0]) / 1e6:.0f} km2; 4 are the most"
    return within
