"""The data sets `driving:small` and `driving:full`: scenes of the world, recorded once and kept on disk.

Parts are split by map seed, so no map of one part is in another. A recorded set is a folder of one `.npy`
file per part and array, which readers map into memory, and a `manifest.json` with the checksum of each.
Any `Source` of scenes is kept that way.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from attnsweep.core import files
from attnsweep.core.errors import UserError, did_you_mean, writing
from attnsweep.tasks.driving.records.samples import FUTURE, KEY_S, Samples, SceneLog
from attnsweep.tasks.driving.records.sampling import samples_of
from attnsweep.tasks.driving.world.cameras import Rig
from attnsweep.tasks.driving.world.cast import Cast, Crowd, draw_cast
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import KINDS, draw_map
from attnsweep.tasks.driving.world.roads import RoadMap
from attnsweep.tasks.driving.world.traffic import Log, World, crashed, roll_out

VERSION = 2  # of what the world draws and the recorder writes; raise it when either changes
FIRST_SEED = {"train": 1_000, "val": 40_000, "test": 50_000}
BATCH = 8  # scenes that one process rolls out side by side
SAMPLES_PER_SCENE = 25  # about, of those that are kept
LEAST_WAY = 15.0  # m; an ego that goes less far has nothing to teach
WITH_CAMERAS = "+cameras"  # at the end of a data set's name
MANIFEST = "manifest.json"
WAITING = 512  # jobs that are handed out ahead of the one whose result is due
log = logging.getLogger("attnsweep")


@dataclass(frozen=True)
class Recording:
    """A scene's samples, or why it has none; `group` is the file or the drive that it comes from."""

    seed: int
    samples: Samples
    dropped: str = ""
    group: str = ""


@dataclass(frozen=True)
class Job:
    """What is recorded at once, in any process: `run(*args)`, which counts as so many scenes."""

    run: Callable[..., list[Recording]]
    args: tuple[object, ...]
    scenes: int


class Source(Protocol):
    """Where scenes come from. `label` names its folder, `content` is all that determines it, `split` shares
    the recordings that have samples out to the parts; `train_size` is about how many samples the training
    part has, which the recording counts.
    """

    @property
    def name(self) -> str: ...

    @property
    def cameras(self) -> bool: ...

    @property
    def train_size(self) -> int: ...

    @property
    def label(self) -> str: ...

    @property
    def total(self) -> int: ...

    def content(self) -> dict[str, object]: ...

    def jobs(self) -> Iterator[Job]: ...

    def split(self, kept: Sequence[Recording]) -> dict[str, list[Recording]]: ...


@dataclass(frozen=True)
class Preset:
    """What a data set holds: scenes per part, how long each is (s), who is in it, which kinds of map, and
    whether there are cameras.
    """

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

    def seeds(self, part: str) -> list[int]:
        """The map seeds of a part."""
        return list(range(FIRST_SEED[part], FIRST_SEED[part] + getattr(self, part)))

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
        return {part: [one for one in kept if part_of(one.seed) == part] for part in FIRST_SEED}


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


def identity(source: Source) -> str:
    """SHA-256 of all that determines the data set: its content and the version of the generator."""
    content = json.dumps({"version": VERSION, **source.content()}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


# --- Recording ---


def record(preset: Preset, seeds: list[int]) -> list[Recording]:
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


def part_of(seed: int) -> str:
    """The part that a map seed belongs to."""
    return max(FIRST_SEED, key=lambda part: FIRST_SEED[part] if FIRST_SEED[part] <= seed else -1)


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


# --- The recorded set on disk ---


@dataclass(frozen=True)
class SceneSet:
    """Scenes of a source as a data set of the task (`tasks.task.DataSet`); `is_folder`: a user's own."""

    source: Source
    is_folder: bool

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def train_size(self) -> int:
        return self.source.train_size

    def checksum(self, data_dir: Path) -> str:
        """Names the generator or the reader, and the preset or the contents of all files; whether the scenes
        have been recorded or not.
        """
        return identity(self.source)

    def is_here(self, data_dir: Path) -> bool:
        """Whether its scenes have been recorded."""
        return is_recorded(folder(self.source, data_dir))

    def ensure(self, data_dir: Path, progress: object = None) -> None:
        """Nothing is downloaded: the files of a folder were there when it was found."""

    def prepare(
        self,
        data_dir: Path,
        *,
        workers: Callable[[], concurrent.futures.Executor],
        progress: Callable[[int, int], None],
    ) -> None:
        """Records the scenes that are not there yet, and says which files give none."""
        ensure(self.source, data_dir, workers=workers(), on_scene=progress)
        if skipped := skipped_of(self.source, data_dir):
            log.warning("%s: %s", self.name, skipped)


def is_recorded(where: Path) -> bool:
    """Whether a folder holds a whole data set: its manifest is written last."""
    return (where / MANIFEST).is_file()


def manifest_of(source: Source, data_dir: Path) -> dict[str, Any]:
    """What is told of a recorded set. Raises UserError where it has not been recorded."""
    where = folder(source, data_dir)
    if not is_recorded(where):
        raise UserError(f"{source.name} has not been recorded in {where}; record it first")
    found: dict[str, Any] = json.loads((where / MANIFEST).read_text())
    return found


def folder(source: Source, data_dir: Path) -> Path:
    """Where the data set lies."""
    return data_dir / "driving" / f"{source.label}-{identity(source)[:12]}"


def ensure(
    source: Source,
    data_dir: Path,
    *,
    processes: int | None = None,
    workers: concurrent.futures.Executor | None = None,
    on_scene: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """The folder of the data set, recorded first if it is not there, by `workers`, or else by processes of
    this machine, as many as it has cores; `on_scene` is told of scenes done and of all.

    Raises UserError where the source cannot be read, or has no scene for a part.
    """
    where = folder(source, data_dir)
    if is_recorded(where):
        return where
    with writing(where), alone(where) as first:
        if not first:  # another process of this machine has recorded it meanwhile
            return where
        draft = where.parent / f".{where.name}-{secrets.token_hex(8)}"
        draft.mkdir()
        own = contextlib.nullcontext(workers) if workers else pool(processes or len(os.sched_getaffinity(0)))
        try:
            with own as hands:
                write_set(source, draft, hands, on_scene)
            put_in_place(draft, where)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return where


@contextlib.contextmanager
def alone(where: Path) -> Iterator[bool]:
    """While no other process of this machine records; tells whether the set is still to be recorded."""
    where.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(where.parent.with_suffix(".lock"), where.name, wait=True):
        yield not is_recorded(where)


def put_in_place(draft: Path, where: Path) -> None:
    """Renames the finished folder; if another process was faster, its folder stays."""
    try:
        draft.rename(where)
    except OSError:
        if not is_recorded(where):
            raise


def write_set(
    source: Source,
    where: Path,
    workers: concurrent.futures.Executor,
    on_scene: Callable[[int, int], None],
) -> None:
    """Records all parts and writes their arrays, then the manifest."""
    found: list[Recording] = []
    done, total = 0, source.total
    for job, recordings in results(source.jobs(), workers):
        for _ in range(job.scenes):
            done += 1
            on_scene(done, total)
        found += recordings
    kept = [one for one in found if not one.dropped]
    skipped = skipped_groups(found)
    if not kept and skipped:
        raise UserError(f"{'; '.join(skipped.values())}. So {source.name} has no scene; name other files")
    files, counts = {}, {}
    for part, recorded in source.split(kept).items():
        if not recorded:
            why = "; ".join([one.dropped for one in found if one.dropped][:3]) or "there is none"
            raise UserError(f"{source.name} has no scene for the part {part}: {why}")
        arrays = joined([one.samples for one in recorded])
        counts[part] = {"scenes": len(recorded), "samples": len(arrays["bev"])}
        for name, array in arrays.items():
            np.save(where / f"{part}-{name}.npy", array)
            files[f"{part}-{name}.npy"] = sha256_of(where / f"{part}-{name}.npy")
    manifest = {"identity": identity(source), "version": VERSION, **source.content(), "counts": counts}
    manifest |= {"dropped": {one.seed: one.dropped for one in found if one.dropped}}
    manifest |= {
        "skipped": list(skipped.values()),
        "groups": len({one.group for one in found}),
        "files": files,
    }
    (where / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def skipped_groups(found: Sequence[Recording]) -> dict[str, str]:
    """The files or drives that gave no scene, and why, naming each."""
    kept = {one.group for one in found if not one.dropped}
    reasons: dict[str, str] = {}
    for one in found:
        if one.group and one.group not in kept:
            reasons.setdefault(one.group, one.dropped)
    return reasons


def skipped_of(source: Source, data_dir: Path) -> str:
    """What a data set left out, such as `1 of 69 skipped: ...`, with the reason for each; nothing where it
    has them all.
    """
    manifest = manifest_of(source, data_dir)
    skipped: list[str] = manifest.get("skipped", [])
    return f"{len(skipped)} of {manifest['groups']} skipped: {'; '.join(skipped)}" if skipped else ""


def pool(processes: int) -> concurrent.futures.ProcessPoolExecutor:
    """Fresh processes, so that what the caller has loaded and how it was started play no part."""
    return concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))


def results(
    jobs: Iterator[Job], workers: concurrent.futures.Executor
) -> Iterator[tuple[Job, list[Recording]]]:
    """Each job with its recordings, in the order of the jobs; the rest is called off where one fails."""
    waiting: collections.deque[tuple[Job, concurrent.futures.Future[list[Recording]]]] = collections.deque()
    try:
        for job in jobs:
            waiting.append((job, workers.submit(job.run, *job.args)))
            if len(waiting) == WAITING:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def joined(parts: list[Samples]) -> Samples:
    """The samples of several scenes in one; `previous` counts on."""
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    starts = np.repeat(
        np.cumsum([0] + [len(part["previous"]) for part in parts[:-1]]),
        [len(part["previous"]) for part in parts],
    )
    previous = arrays["previous"]
    arrays["previous"] = np.where(previous >= 0, previous + starts, -1).astype(np.int32)
    return arrays


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(source: Source, data_dir: Path, part: str, *, check: bool = True) -> Samples:
    """The arrays of a part, mapped into memory; what is written to them stays with the process.

    Raises UserError where the set has not been recorded, or a file is not what was written (`check`).
    """
    where, files, arrays = folder(source, data_dir), manifest_of(source, data_dir)["files"], Samples()
    for name, sha256 in files.items():
        if not name.startswith(f"{part}-"):
            continue
        if check and (not (where / name).is_file() or sha256_of(where / name) != sha256):
            raise UserError(
                f"{where / name} is not what was recorded; delete {where} and it is recorded anew"
            )
        arrays[name.removeprefix(f"{part}-").removesuffix(".npy")] = np.load(where / name, mmap_mode="c")
    return arrays
