"""Data sets of recorded traffic, `commonroad:PATH` and `nuscenes:PATH`, where PATH is a folder.

They are read once and kept like the scenes of the own world (`scenes.ensure`, `scenes.load`). Of each five
recordings in the order of their names the second is for validation and the third for the test, so that no
moment is in two parts; a recording is a CommonRoad file, or a drive (`log`) of nuScenes. With fewer than
three recordings the scenes themselves are split that way: good enough to see that all works, but the parts
then show the same traffic from different vehicles, and scores on them prove nothing. Recordings of one place
share its map either way.
"""

import concurrent.futures
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records import commonroad, nuscenes, scenes
from attnsweep.tasks.driving.records.samples import SceneLog, samples_of
from attnsweep.tasks.driving.records.scenes import Job, Recording, identity

READER = 2  # version of what is made of files; raise it when that changes
FORMATS = ("commonroad", "nuscenes")
PARTS = ("train", "val", "test", "train", "train")  # of each five
LEAST_RECORDINGS = 3  # to be split; with fewer, scenes are
SAMPLES_PER_RECORDING = 50  # about
APART = 1000  # numbers of scenes, from one CommonRoad file to the next


@dataclass(frozen=True)
class Recorded:
    """A folder of recordings in one of the formats, a `scenes.Source`."""

    name: str
    format: str
    root: Path

    is_folder, cameras = True, False

    @property
    def sha256(self) -> str:
        """Names the reader and the contents of all files."""
        return identity(self)

    @property
    def train_size(self) -> int:
        """About how many samples the training part has; reading counts them."""
        return SAMPLES_PER_RECORDING * self.total

    def checksum(self, data_dir: Path) -> str:
        """`sha256`, whether it has been recorded there or not."""
        return self.sha256

    def is_here(self, data_dir: Path) -> bool:
        """Whether its scenes have been recorded."""
        return (scenes.folder(self, data_dir) / "manifest.json").is_file()

    def ensure(self, data_dir: Path) -> None:
        """`find` has seen that the files are there."""

    def prepare(
        self,
        data_dir: Path,
        *,
        workers: Callable[[], concurrent.futures.Executor],
        progress: Callable[[int, int], None],
    ) -> None:
        """Records the scenes that are not there yet; see `scenes.ensure`."""
        scenes.ensure(self, data_dir, workers=workers(), on_scene=progress)

    @property
    def label(self) -> str:
        return f"{self.format}-{self.root.name}"

    @property
    def files(self) -> list[Path]:
        """All files that are read, in the order of their paths."""
        if self.format == "nuscenes":
            return nuscenes.files_of(self.root)
        return sorted(self.root.rglob("*.xml"))

    @property
    def total(self) -> int:
        """How many files, or scenes of nuScenes, there are to read."""
        if self.format == "nuscenes":
            return len(nuscenes.scene_rows(self.root))
        return len(self.files)

    def content(self) -> dict[str, object]:
        names = {os.path.relpath(path, self.root): path for path in self.files}
        return {
            "format": self.format,
            "reader": READER,
            "recorded": {name: checksum(path) for name, path in names.items()},
        }

    def jobs(self) -> Iterator[Job]:
        """A job for each CommonRoad file, or for each scene of nuScenes; both are read here, since another
        machine of a cluster may not have them.
        """
        if self.format == "nuscenes":
            drives = dict.fromkeys(row["log_token"] for row in nuscenes.scene_rows(self.root))
            yield from scene_jobs(list(drives), nuscenes.scenes_of(self.root))
            return
        files = self.files
        for i, path in enumerate(files):
            part = PARTS[i % len(PARTS)] if len(files) >= LEAST_RECORDINGS else ""
            yield Job(record_file, (path, commonroad.read(path), i * APART, part), 1)


def find(name: object) -> Recorded:
    """The data set of that name. Raises UserError where PATH holds nothing to read."""
    kind, _, path = str(name).partition(":")
    if kind not in FORMATS or not path:
        raise UserError(f"dataset={name!r} is unknown; use {' or '.join(f'{one}:PATH' for one in FORMATS)}")
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"dataset={name!r}: {root} is not a folder")
    found = Recorded(f"{kind}:{root}", kind, root)
    missing = [path for path in found.files if not path.is_file()]
    if missing:
        raise UserError(f"dataset={name!r}: {missing[0]} is missing")
    if not found.files:
        raise UserError(f"dataset={name!r}: {root} holds no .xml file")
    return found


def checksum(path: Path) -> str:
    """SHA-256 of a file, computed again when it has changed."""
    state = path.stat()
    return checksum_of(path, state.st_size, state.st_mtime_ns)


@functools.cache
def checksum_of(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_file(path: Path, content: bytes, number: int, part: str) -> list[Recording]:
    """The recordings of a CommonRoad file, all for one part, or shared out where none is given."""
    recordings: list[Recording] = []
    kept = 0
    for k, (name, log) in enumerate(commonroad.logs_of(path, number=number, content=content)):
        recordings.append(recording_of(name, log, number + k, part or PARTS[kept % len(PARTS)]))
        kept += not recordings[-1].dropped
    return recordings


def scene_jobs(drives: list[str], scenes: Iterator[nuscenes.Scene]) -> Iterator[Job]:
    """A job for each scene of nuScenes; `drives` are all there are."""
    for k, scene in enumerate(scenes):
        turn = drives.index(scene.drive) if len(drives) >= LEAST_RECORDINGS else k
        yield Job(record_log, (scene.name, scene.log, k, PARTS[turn % len(PARTS)]), 1)


def record_log(name: str, log: SceneLog | str, number: int, part: str) -> list[Recording]:
    """The recording of one scene."""
    return [recording_of(name, log, number, part)]


def recording_of(name: str, log: SceneLog | str, number: int, part: str) -> Recording:
    """The samples of a log, or why there is none."""
    if isinstance(log, str):
        return Recording(number, {}, f"{name}: {log}", part)
    return Recording(number, samples_of(log), "", part)
