"""The data sets `driving:small` and `driving:full`: scenes of the own world, rolled out and recorded.

Parts are split by map seed, so no map of one part is in another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S, SceneLog
from attnsweep.tasks.driving.records.sampling import samples_of
from attnsweep.tasks.driving.records.scenes import Job, Recording
from attnsweep.tasks.driving.world.cameras import Rig
from attnsweep.tasks.driving.world.cast import Cast, Crowd, draw_cast
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import KINDS, draw_map
from attnsweep.tasks.driving.world.roads import RoadMap
from attnsweep.tasks.driving.world.traffic import Log, World, crashed, roll_out

FIRST_SEED = {"train": 1_000, "val": 40_000, "test": 50_000}
BATCH = 8  # scenes that one process rolls out side by side
SAMPLES_PER_SCENE = 25  # about, of those that are kept
LEAST_WAY = 15.0  # m; an ego that goes less far has nothing to teach
WITH_CAMERAS = "+cameras"  # at the end of a data set's name


@dataclass(frozen=True)
class Preset:
    """What a data set holds: scenes per part, their length (s), who is in them, kinds of map, cameras."""

    name: str
    train: int
    val: int
    test: int
    seconds: float
    crowd: Crowd
    full: bool
    kinds: tuple[str, ...] = KINDS
    cameras: bool = False

    @property
    def train_size(self) -> int:
        return SAMPLES_PER_SCENE * self.train

    def seeds(self, part: str) -> range:
        """The map seeds of a part."""
        return range(FIRST_SEED[part], FIRST_SEED[part] + getattr(self, part))

    @property
    def label(self) -> str:
        return self.name.partition(":")[2]

    @property
    def total(self) -> int:
        return self.train + self.val + self.test

    def content(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if name != "cameras" or value}

    def jobs(self) -> Iterator[Job]:
        """Batches of scenes, none of two parts."""
        for part in FIRST_SEED:
            seeds = self.seeds(part)
            for start in range(0, len(seeds), BATCH):
                batch = seeds[start : start + BATCH]
                yield Job(record, (self, batch), len(batch))

    def split(self, kept: Sequence[Recording]) -> dict[str, list[Recording]]:
        """The scenes of each part, by their map seeds."""
        return {part: [one for one in kept if one.seed in self.seeds(part)] for part in FIRST_SEED}


PRESETS = {
    one.name: one
    for one in (
        Preset("driving:tiny", 8, 2, 2, 12.0, Crowd(drivers=6), full=False),  # to see that all works
        Preset("driving:small", 240, 40, 60, 20.0, Crowd(drivers=12), full=False),
        Preset("driving:full", 1200, 100, 150, 20.0, Crowd(12, pedestrians=4, parked=6), full=True),
    )
}


def find(name: object) -> Preset:
    """The preset of that name, which `+cameras` may follow. Raises UserError if there is none."""
    base, plus, _ = str(name).partition(WITH_CAMERAS)
    if base not in PRESETS or name not in (base, base + WITH_CAMERAS):
        raise UserError(
            f"dataset={name!r} is unknown{did_you_mean(name, PRESETS)}; use one of {', '.join(PRESETS)}, "
            f"or one with {WITH_CAMERAS} behind"
        )
    return replace(PRESETS[base], name=str(name), cameras=True) if plus else PRESETS[base]


# --- Recording ---


def record(preset: Preset, seeds: Sequence[int]) -> list[Recording]:
    """The recordings of scenes, rolled out side by side; each is the same whatever is beside it."""
    maps = [draw_map(seed, kinds=preset.kinds, full=preset.full) for seed in seeds]
    casts = [draw_cast(road_map, preset.crowd, dt=DT) for road_map in maps]
    world = World(maps, casts)
    rolled = roll_out(world, round(preset.seconds / DT))
    crashes = crashed(rolled, world)
    recordings = []
    for b, seed in enumerate(seeds):
        scene = scene_log(maps[b], casts[b], rolled, b)
        reason = why_dropped(scene, crash=bool(crashes[b]))
        samples = {} if reason else samples_of(scene, rig=Rig() if preset.cameras else None)
        recordings.append(Recording(seed, samples, reason))
    return recordings


def why_dropped(scene: SceneLog, *, crash: bool) -> str:
    """Why a scene is not kept, or nothing. Whoever is to blame for a collision, nobody shall learn of it."""
    if crash:
        return "collision"
    if np.hypot(*np.diff(scene.state[:, 0, :2], axis=0).T).sum() < LEAST_WAY:
        return "ego stands"
    if (len(scene.state) - 1) * scene.dt < KEY_S * (FUTURE + 4):
        return "too short"
    return ""


def scene_log(road_map: RoadMap, cast: Cast, log: Log, b: int) -> SceneLog:
    """One scene of a log, up to where the ego's route ends."""
    path = road_map.paths[cast.route[0]]
    way = np.hypot(*np.diff(log.state[:, b, 0, :2], axis=0).T).cumsum() + cast.s[0]
    end = min(int(np.searchsorted(way, cast.goal)) + 1, len(log.state))
    return SceneLog(
        number=road_map.seed,
        dt=DT,
        kind=cast.kind,
        size=np.stack([cast.length, cast.width], axis=1),
        state=log.state[:end, b],
        valid=log.active[:end, b],
        drivable=road_map.drivable,
        centres=tuple(lane.xy for lane in road_map.lanes if not lane.on_foot),
        dividers=road_map.dividers,
        paint=road_map.paint,
        route=path.xy,
        stop_lines=road_map.stop_lines,
        red=road_map.red(log.green[:end, b]),
        yields=log.to_stop[:end, b] < 20.0,
    )
