"""The maps that policies are judged on, driven by the expert once."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnsweep.tasks.driving.judging.closed_loop import Drive, Policy, drive
from attnsweep.tasks.driving.judging.score import Scores, counted, gained, score_drive
from attnsweep.tasks.driving.records import presets
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S
from attnsweep.tasks.driving.world.cameras import Rig
from attnsweep.tasks.driving.world.cast import EGO, Cast, draw_cast
from attnsweep.tasks.driving.world.geometry import Flags, Floats
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import draw_map
from attnsweep.tasks.driving.world.roads import RoadMap

TURN, TURN_WITHIN = 0.35, 30.0  # rad within m, that make a turn
HARD = 6.0  # m, by which constant velocity is off after 4 s where it is hard
STOP_WITHIN = 20.0  # m, to where the expert must stop for others


@dataclass(frozen=True)
class Course:
    """Scenes that policies are judged on, and what the expert makes of them: metres gained along the route
    `expected` (b,), its `expert` scores, and which scenes (b,) have a turn, have others that it must
    stop for, or are hard: at most of their key frames constant velocity is off by more than 6 m in 4 s.
    """

    maps: tuple[RoadMap, ...]
    casts: tuple[Cast, ...]
    expected: Floats
    expert: Scores
    slices: dict[str, Flags]


@functools.lru_cache(maxsize=8)
def course(preset: str, part: str, count: int) -> Course:
    """The first `count` maps of a part of a preset, driven by the expert once per process."""
    how = presets.find(preset)
    seeds = range(presets.FIRST_SEED[part], presets.FIRST_SEED[part] + count)
    maps = tuple(draw_map(seed, kinds=how.kinds, full=how.full) for seed in seeds)
    casts = tuple(draw_cast(road_map, how.crowd, dt=DT) for road_map in maps)
    return course_of(maps, casts)


def course_of(maps: Sequence[RoadMap], casts: Sequence[Cast]) -> Course:
    """The course over these maps."""
    driven = drive(maps, casts, None)
    counts = counted(driven)
    expected = gained(driven, counts)
    scores = score_drive(driven, expected)
    return Course(tuple(maps), tuple(casts), expected, scores, slices(driven, counts))


def judge(course: Course, policy: Policy | None, rig: Rig | None = None) -> Scores:
    """A policy's scores on a course, with views of a `rig` or none, against what the expert gains there."""
    driven = drive(course.maps, course.casts, policy, rig=rig)
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
        "interactive": ((drive.to_stop < STOP_WITHIN) & counts).any(axis=0),
        "hard": 2 * ((off > HARD) & counts[span:])[::every].sum(axis=0) > counts[span::every].sum(axis=0),
    }


def turns(ego: Floats, progress: Floats) -> bool:
    """Whether states (t, 5) turn by more than 0.35 rad within 30 m."""
    yaw = np.unwrap(ego[:, 2])
    later = np.searchsorted(progress, progress + TURN_WITHIN)
    return bool((np.abs(yaw[np.minimum(later, len(yaw) - 1)] - yaw) > TURN).any())
