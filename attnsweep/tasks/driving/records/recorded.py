"""Data sets of recorded traffic: `commonroad:PATH`, where PATH is a folder or one .xml file, and
`nuscenes:PATH`, a folder.

They are read once and kept like the scenes of the own world (`scenes.ensure`, `scenes.load`). Of each five
recordings that give scenes, in the order of their names, the second is for validation and the third for the
test, so that no moment is in two parts; a recording is a CommonRoad file, or a drive (`log`) of nuScenes.
With fewer than three recordings the scenes themselves are split that way, and with fewer than three scenes
each part has all of them: good enough to see that all works, but the parts then show the same traffic, and
scores on them prove nothing. Recordings of one place share its map either way.

A file that cannot be read, or gives no scene, is skipped; the manifest says why.
"""

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnsweep.core import files
from attnsweep.core.errors import UserError, reason
from attnsweep.core.files import is_ignored
from attnsweep.tasks.driving.records import commonroad, nuscenes, nuscenes_tables
from attnsweep.tasks.driving.records.commonroad_xml import read
from attnsweep.tasks.driving.records.samples import SceneLog
from attnsweep.tasks.driving.records.sampling import samples_of
from attnsweep.tasks.driving.records.scenes import Job, Recording

READER = 7  # version of what is made of files; raise it when that changes
FORMATS = ("commonroad", "nuscenes")
PARTS = ("train", "val", "test", "train", "train")  # of each five
LEAST = 3  # recordings, to be split, or else scenes
SAMPLES_PER_RECORDING = 50  # about
APART = 1000  # numbers of scenes, from one CommonRoad file to the next


@dataclass(frozen=True)
class Recorded:
    """Recordings in one of the formats, a folder or a file: a `scenes.Source`."""

    name: str
    format: str
    root: Path

    cameras = False

    @property
    def train_size(self) -> int:
        return SAMPLES_PER_RECORDING * self.total

    @property
    def label(self) -> str:
        return f"{self.format}-{self.root.name}"

    @property
    def files(self) -> list[Path]:
        """All files that are read, by their paths, but for hidden ones and what systems leave."""
        if self.format == "nuscenes":
            return nuscenes_tables.files_of(self.root)
        if self.root.is_file():
            return [self.root]
        found = sorted(path for path in self.root.rglob("*") if is_xml(path) and not path.is_dir())
        return [one for one in found if not any(map(is_ignored, one.relative_to(self.root).parts))]

    @property
    def total(self) -> int:
        """How many files, or scenes of nuScenes, there are to read."""
        if self.format == "nuscenes":
            return nuscenes_tables.count_scenes(self.root)
        return len(self.files)

    def content(self) -> dict[str, object]:
        """What the checksum of the data is taken of: the format, its reader, and each file's own checksum."""
        folder = self.root.parent if self.root.is_file() else self.root
        checksums = {os.path.relpath(path, folder): checksum(path) for path in self.files}
        return {"format": self.format, "reader": READER, "recorded": checksums}

    def jobs(self) -> Iterator[Job]:
        """A job for each file, or scene of nuScenes, read here: other machines may not have them."""
        if self.format == "nuscenes":
            for number, scene in enumerate(nuscenes.scenes_of(self.root)):
                yield Job(record_logs, ([(scene.name, scene.log)], number, scene.drive), 1)
            return
        for i, path in enumerate(self.files):
            yield Job(record_file, (path, content_of(path), i * APART), 1)

    def split(self, kept: Sequence[Recording]) -> dict[str, list[Recording]]:
        """The scenes of each part; see the module."""
        groups = list(dict.fromkeys(one.group for one in kept))
        by_group = len(groups) >= LEAST
        parts: dict[str, list[Recording]] = {part: [] for part in dict.fromkeys(PARTS)}
        for k, one in enumerate(kept):
            turn = groups.index(one.group) if by_group else k
            for part in parts if len(kept) < LEAST else [PARTS[turn % len(PARTS)]]:
                parts[part].append(one)
        return parts


def find(name: object) -> Recorded:
    """The data set of that name. Raises UserError where PATH holds nothing to read."""
    kind, _, path = str(name).partition(":")
    if kind not in FORMATS or not path:
        raise UserError(f"dataset={name!r} is unknown; use {' or '.join(f'{one}:PATH' for one in FORMATS)}")
    root = place_of(path)
    is_file = kind == "commonroad" and root is not None and root.is_file() and is_xml(root)
    if root is None or not (root.is_dir() or is_file):
        wanted = "a folder, nor an .xml file" if kind == "commonroad" else "a folder"
        raise UserError(f"dataset={name!r}: {root or path} is not {wanted}")
    found = Recorded(f"{kind}:{root}", kind, root)
    if kind == "nuscenes" and (missing := [file for file in found.files if not file.is_file()]):
        raise UserError(f"dataset={name!r}: {missing[0]} is missing")
    if not found.files:
        raise UserError(f"dataset={name!r}: {root} holds no .xml file")
    return found


def place_of(path: str) -> Path | None:
    """The whole path; None where nothing can have that name."""
    try:
        root = Path(path).expanduser().resolve()
        root.is_dir()
    except (OSError, ValueError, RuntimeError):  # a null byte, a name too long, a user without a home
        return None
    return root


def is_xml(path: Path) -> bool:
    """Whether a file is named as XML, in letters of either case."""
    return path.suffix.lower() == ".xml"


def checksum(path: Path) -> str:
    """SHA-256 of a file, computed again when it has changed, or why it cannot be read."""
    try:
        state = path.stat()
        return checksum_of(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        return error.strerror or str(error)


@functools.cache
def checksum_of(path: Path, size: int, changed: int) -> str:
    return files.sha256_of(path, follow=True)


def content_of(path: Path) -> bytes | str:
    """What a file holds, or why it cannot be read."""
    try:
        return read(path)
    except UserError as error:
        return str(error)


def record_file(path: Path, content: bytes | str, number: int) -> list[Recording]:
    """The recordings of a CommonRoad file, or one that says why there are none: other files may be good."""
    if isinstance(content, str):
        return [Recording(number, {}, content, str(path))]
    try:
        return record_logs(commonroad.logs_of(path, number=number, content=content), number, str(path))
    except UserError as error:
        return [Recording(number, {}, str(error), str(path))]
    except Exception as error:
        return [Recording(number, {}, f"{path} cannot be read: {reason(error)}", str(path))]


def record_logs(logs: Sequence[tuple[str, SceneLog | str]], number: int, group: str) -> list[Recording]:
    """The samples of named logs, numbered from `number` on, or why there are none."""
    return [
        Recording(n, {}, f"{name}: {log}", group)
        if isinstance(log, str)
        else Recording(n, samples_of(log), "", group)
        for n, (name, log) in enumerate(logs, number)
    ]
