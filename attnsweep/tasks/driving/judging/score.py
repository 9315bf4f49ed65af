"""Scores of driving, from 0 to 1, by the rules and the constants of NAVSIM.

    score = NC x DAC x (5 TTC + 5 EP + 2 C) / 12

The PDM score of Dauner et al., "NAVSIM", NeurIPS 2024; constants as in its public code
(`pdm_scorer.py`, `pdm_comfort_metrics.py`, `pdm_scorer_utils.py` of github.com/autonomousvision/navsim,
commit 0811876). Where that code needs what not every world has, or was made for 4 s that nobody reacts in,
this differs, and says so in the function concerned.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from attnsweep.tasks.driving.judging.closed_loop import Drive, Policy, drive
from attnsweep.tasks.driving.records import scenes
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S
from attnsweep.tasks.driving.world.cameras import Rig
from attnsweep.tasks.driving.world.cast import EGO, PARKED, Cast, draw_cast
from attnsweep.tasks.driving.world.geometry import Floats, overlap, wrap
from attnsweep.tasks.driving.world.maps import draw_map
from attnsweep.tasks.driving.world.roads import RoadMap
from attnsweep.tasks.driving.world.traffic import DT

Flags = NDArray[np.bool_]

STOPPED = 0.05  # m/s, below which an ego is hit and does not hit
STANDING = 5e-3  # m/s, below which an ego has no time to collision
AHEAD = np.radians(30.0)  # from the way the ego points, seen from its rear axle
REAR_AXLE = 0.3  # of the length behind the centre
PROJECTED_S = (0.3, 0.6, 0.9)  # s ahead
LEAST_WAY = 5.0  # m; where the expert gains no more, progress counts as made
LANE_KEPT = 8.0  # m from the route, beyond which it is another road
# the limits of comfort
ALONG = (-4.05, 2.40)  # m/s2
ACROSS = 4.89  # m/s2
JERK, JERK_ALONG = 8.37, 4.13  # m/s3
YAW_RATE, YAW_ACCELERATION = 0.95, 1.93  # rad/s, rad/s2
WHOLE, SHORT, SHORTEST = 41, 8, 5  # entries of 0.1 s in the windows that smooth
TTC_WEIGHT, PROGRESS_WEIGHT, COMFORT_WEIGHT = 5, 5, 2
SUCCESS = 0.8  # of the expert's progress


@dataclass(frozen=True)
class Scores:
    """How each of `b` scenes was driven, every array (b,).

    `score` and what it is made of: `no_collision` 1, 0.5 or 0, `off_road`, `ttc` 1 where no collision was
    ever less than a second away, `progress` along the route as a share of the expert's, at most 1, `comfort`
    1 where no limit was passed. `at_fault`: in a collision that counts against the ego; `wrong_route`: was
    more than 8 m off the route; `success`: a score above 0 and at least 0.8 of the expert's progress;
    `finish_s`: s until the goal was reached, NaN where it was not; `lost`: share of plans that could not be
    driven.
    """

    score: Floats
    no_collision: Floats
    ttc: Floats
    progress: Floats
    comfort: Floats
    at_fault: Flags
    off_road: Flags
    wrong_route: Flags
    success: Flags
    finish_s: Floats
    lost: Floats

    def means(self, where: Flags | slice = slice(None)) -> dict[str, float]:
        """The mean of each over the scenes, or over some of them; NaN where none has a value."""
        columns = {field.name: np.asarray(getattr(self, field.name), float)[where] for field in fields(self)}
        return {name: mean_of(values[~np.isnan(values)]) for name, values in columns.items()}


def mean_of(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")


def interval(values: Floats, *, draws: int = 4000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of values (b,), by bootstrap over scenes (percentiles)."""
    picks = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(np.asarray(values, float)[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def score_drive(drive: Drive, expected: Floats | None = None) -> Scores:
    """The scores of a drive; `expected` (b,) is the metres along the route that the expert gains, without
    which the drive is measured by itself.
    """
    counts = counted(drive)
    own = gained(drive, counts)
    progress = share_of(own, own if expected is None else expected)
    close = near(drive)
    hit = touching(drive, close)
    blamed = contacts(drive, counts, hit)
    parked = drive.kind == PARKED
    no_collision = np.where(
        (blamed & ~parked).any(axis=1), 0.0, np.where((blamed & parked).any(axis=1), 0.5, 1.0)
    )
    off_road = np.asarray(((drive.depth < 0) & counts).any(axis=0))
    ttc = np.where(closes_in(drive, counts, close & ~np.logical_or.accumulate(hit, axis=0)), 0.0, 1.0)
    comfort = (~discomforts(drive, counts).any(axis=1)).astype(float)
    total = TTC_WEIGHT + PROGRESS_WEIGHT + COMFORT_WEIGHT
    weighted = (TTC_WEIGHT * ttc + PROGRESS_WEIGHT * progress + COMFORT_WEIGHT * comfort) / total
    score = no_collision * ~off_road * weighted
    there = (drive.progress >= drive.way) & counts
    return Scores(
        score=score,
        no_collision=no_collision,
        ttc=ttc,
        progress=progress,
        comfort=comfort,
        at_fault=no_collision < 1,
        off_road=off_road,
        wrong_route=np.asarray(((drive.aside > LANE_KEPT) & counts).any(axis=0)),
        success=(score > 0) & (progress >= SUCCESS),
        finish_s=np.where(there.any(axis=0), there.argmax(axis=0) * drive.dt, np.nan),
        lost=drive.lost,
    )


def counted(drive: Drive) -> Flags:
    """Which entries (t, b) count: up to the first at which the goal is reached or the ego is gone."""
    over = (drive.progress >= drive.way) | ~drive.active[:, :, EGO]
    return np.cumsum(over, axis=0) - over == 0


def gained(drive: Drive, counts: Flags) -> Floats:
    """Metres along the route (b,), no farther than to the goal, and until the route is left."""
    kept = np.cumsum(drive.aside > LANE_KEPT, axis=0) == 0
    return np.minimum(np.where(kept & counts, drive.progress, 0.0).max(axis=0), drive.way)


def share_of(own: Floats, expected: Floats) -> Floats:
    """Progress (b,) as a share of what was expected, at most 1; where no more than 5 m were, 1."""
    return np.where(expected > LEAST_WAY, np.minimum(own / np.maximum(expected, LEAST_WAY), 1.0), 1.0)


# --- Collisions ---


def contacts(drive: Drive, counts: Flags, hit: Flags) -> Flags:
    """With whom (b, a) the ego has a collision that counts against it, of those it touches (t, b, a).

    One does that begins while the ego moves, unless the other comes from behind its rear. NAVSIM also lets
    off an ego that is hit from the side in its own lane; here that would let off those who take the way of
    others at a junction, and all others yield by themselves.
    """
    begins = hit & ~np.concatenate([np.zeros_like(hit[:1]), hit[:-1]])
    ego = drive.state[:, :, EGO : EGO + 1]
    moving = np.hypot(ego[..., 3], ego[..., 4]) > STOPPED
    along = forward(drive.state[..., :2] - ego[..., :2], ego[..., 2])
    faults = begins & moving & (along > -drive.size[:, EGO : EGO + 1, 0] / 2)
    return np.asarray((faults & counts[..., None]).any(axis=0))


def touching(drive: Drive, close: Flags) -> Flags:
    """Which of the others that are close (t, b, a) the ego's box overlaps."""
    hit = close.copy()
    t, b, a = np.nonzero(close)
    ego, other = (np.concatenate([drive.state[t, b, i, :3], drive.size[b, i]], axis=1) for i in (EGO, a))
    hit[t, b, a] = overlap(ego, other)
    return hit


def forward(offset: Floats, yaw: Floats) -> Floats:
    """How far (...) offsets (..., 2) lie in directions (...)."""
    return offset[..., 0] * np.cos(yaw) + offset[..., 1] * np.sin(yaw)


def closes_in(drive: Drive, counts: Flags, close: Flags) -> Flags:
    """In which scenes (b,) the ego would ever touch another ahead of it within a second, if both kept their
    velocities; of those that are close (t, b, a) and that it has not touched.

    NAVSIM lets the others go where they will go; here they react, so theirs are kept, too. It also looks for
    them ahead of where the ego is, which blames an ego for who comes from behind; here it is ahead of where
    the ego will be.
    """
    speed = np.hypot(drive.state[:, :, EGO, 3], drive.state[:, :, EGO, 4])
    t, b, a = np.nonzero(close & (counts & (speed >= STANDING))[..., None])
    ego, other = drive.state[t, b, EGO], drive.state[t, b, a]
    back = REAR_AXLE * drive.size[b, EGO, :1] * np.stack([np.cos(ego[:, 2]), np.sin(ego[:, 2])], axis=1)
    touches = np.zeros(len(t), dtype=bool)
    for later in PROJECTED_S:
        boxes = [
            np.concatenate([one[:, :2] + later * one[:, 3:], one[:, 2:3], size], axis=1)
            for one, size in ((ego, drive.size[b, EGO]), (other, drive.size[b, a]))
        ]
        dx, dy = (boxes[1][:, :2] - boxes[0][:, :2] + back).T
        ahead = np.abs(wrap(np.arctan2(dy, dx) - ego[:, 2])) < AHEAD
        touches |= ahead & overlap(boxes[0], boxes[1])
    found = np.zeros(drive.active.shape[1], dtype=bool)
    found[b[touches]] = True
    return found


def near(drive: Drive) -> Flags:
    """Which others (t, b, a) are there and could be reached within a second."""
    ego = drive.state[:, :, EGO : EGO + 1]
    distance = np.hypot(drive.state[..., 0] - ego[..., 0], drive.state[..., 1] - ego[..., 1])
    speed = np.hypot(drive.state[..., 3], drive.state[..., 4])
    half = np.hypot(drive.size[..., 0], drive.size[..., 1]) / 2
    reach = speed + speed[:, :, EGO : EGO + 1] + half + half[:, EGO : EGO + 1]
    found = drive.active & (distance < reach)
    found[:, :, EGO] = False
    return found


# --- Comfort ---


def discomforts(drive: Drive, counts: Flags) -> Flags:
    """Which limits each scene's ego passes (b, 6): of acceleration along and across, jerk, jerk along, yaw
    acceleration, yaw rate.

    Smoothed as there by Savitzky and Golay's filter with a quadratic: accelerations over 4 s; for jerks
    accelerations over 0.8 s, whose derivative is taken over 4 s; yaw over 0.5 s. There 4 s are the whole
    drive, so that a drive of 4 s is judged alike; in longer ones the window slides.
    """
    ends, found = counts.sum(axis=0), np.zeros((counts.shape[1], 6), dtype=bool)
    for end in np.unique(ends):
        found[ends == end] = discomfort(drive.state[:end, ends == end, EGO], drive.dt)
    return found


def discomfort(ego: Floats, dt: float) -> Flags:
    """Which limits egos with states (t, b, 5) pass (b, 6), in the order of `discomforts`; of fewer than four
    entries none.
    """
    if len(ego) < 4:
        return np.zeros((ego.shape[1], 6), dtype=bool)
    change = np.diff(ego[..., 3:], axis=0, append=2 * ego[-1:, :, 3:] - ego[-2:-1, :, 3:]) / dt
    along = forward(change, ego[..., 2])
    across = forward(change, ego[..., 2] + np.pi / 2)
    yaw = np.unwrap(ego[..., 2], axis=0)
    jerk, jerk_along = (
        smoothed(smoothed(values, SHORT), WHOLE, dt=dt, order=1)
        for values in (np.hypot(along, across), along)
    )
    along, across = smoothed(along, WHOLE), smoothed(across, WHOLE)
    passed = [
        (along <= ALONG[0]) | (along >= ALONG[1]),
        np.abs(across) >= ACROSS,
        np.abs(jerk) >= JERK,
        np.abs(jerk_along) >= JERK_ALONG,
        np.abs(smoothed(yaw, SHORTEST, dt=dt, order=2)) >= YAW_ACCELERATION,
        np.abs(smoothed(yaw, SHORTEST, dt=dt, order=1)) >= YAW_RATE,
    ]
    return np.stack([one.any(axis=0) for one in passed], axis=1)


def smoothed(values: Floats, window: int, *, dt: float = 1.0, order: int = 0) -> Floats:
    """The values (t, b), or their first or second derivative, smoothed by Savitzky and Golay's filter (1964):
    that of the parabola, for the second derivative the cubic, fitted to the window around each entry, which
    at the ends lies to one side of it.
    """
    window = min(window, len(values))
    weights = window_weights(window, 3 if order == 2 else 2, order) / dt**order
    entry = np.arange(len(values))
    start = np.clip(entry - window // 2, 0, len(values) - window)
    result = np.zeros_like(values)
    for k in range(window):  # summed in one order, whatever is side by side
        result += weights[entry - start, k, None] * values[start + k]
    return result


@functools.lru_cache
def window_weights(window: int, degree: int, order: int) -> Floats:
    """How much (window, window) each entry of a window adds to the derivative of the fit at each place."""
    place = np.arange(window) - (window - 1) / 2
    powers = np.vander(place, degree + 1, increasing=True)
    derived = np.stack(
        [np.polynomial.Polynomial(one).deriv(order)(place) for one in np.eye(degree + 1)], axis=1
    )
    return derived @ np.linalg.pinv(powers)


# --- The maps on which planners are judged ---


@dataclass(frozen=True)
class Course:
    """Scenes that planners are judged on, and what the expert makes of them: metres gained along the route
    `expected` (b,), its `expert` scores, and which scenes (b,) have a turn, have others that it must
    stop for, or are hard: at most of their key frames constant velocity is off by more than 6 m in 4 s.
    """

    maps: tuple[RoadMap, ...]
    casts: tuple[Cast, ...]
    seconds: float
    expected: Floats
    expert: Scores
    slices: dict[str, Flags]


@functools.lru_cache(maxsize=8)
def course(preset: str, part: str, count: int, *, seconds: float = 15.0) -> Course:
    """The first `count` maps of a part of a preset, driven by the expert once per process."""
    how = scenes.find(preset)
    seeds = range(scenes.FIRST_SEED[part], scenes.FIRST_SEED[part] + count)
    maps = tuple(draw_map(seed, kinds=how.kinds, full=how.full) for seed in seeds)
    casts = tuple(draw_cast(road_map, how.crowd, dt=DT) for road_map in maps)
    return course_of(maps, casts, seconds=seconds)


def course_of(maps: Sequence[RoadMap], casts: Sequence[Cast], *, seconds: float = 15.0) -> Course:
    """The course over these maps."""
    driven = drive(maps, casts, None, seconds=seconds)
    counts = counted(driven)
    expected = gained(driven, counts)
    scores = score_drive(driven, expected)
    return Course(tuple(maps), tuple(casts), seconds, expected, scores, slices(driven, counts))


def judge(course: Course, policy: Policy | None, rig: Rig | None = None) -> Scores:
    """The scores of a policy, shown the views of a `rig` or none, on a course, against what the expert gains
    there.
    """
    driven = drive(course.maps, course.casts, policy, seconds=course.seconds, rig=rig)
    return score_drive(driven, course.expected)


def slices(drive: Drive, counts: Flags) -> dict[str, Flags]:
    """Which scenes (b,) of an expert's drive belong to the slices of reports."""
    every, span = round(KEY_S / drive.dt), round(KEY_S * FUTURE / drive.dt)
    ego = drive.state[:, :, EGO]
    off = np.hypot(*np.moveaxis(ego[span:, :, :2] - ego[:-span, :, :2] - 4.0 * ego[:-span, :, 3:], -1, 0))
    return {
        "turn": np.array(
            [turns(ego[:end, b], drive.progress[:end, b]) for b, end in enumerate(counts.sum(axis=0))]
        ),
        "interactive": ((drive.to_stop < 20.0) & counts).any(axis=0),
        "hard": 2 * ((off > 6.0) & counts[span:])[::every].sum(axis=0) > counts[span::every].sum(axis=0),
    }


def turns(ego: Floats, progress: Floats) -> bool:
    """Whether states (t, 5) turn by more than 0.35 rad within 30 m."""
    yaw = np.unwrap(ego[:, 2])
    later = np.searchsorted(progress, progress + 30.0)
    return bool((np.abs(yaw[np.minimum(later, len(yaw) - 1)] - yaw) > 0.35).any())
