"""Scenes as sets of samples that are recorded once and kept on disk, whatever `Source` they come from.

A recorded set is a folder of one `.npy` file per part and array, which readers map into memory, and a
`manifest.json` with the checksum of each.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import logging
import multiprocessing
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from attnsweep.core import files
from attnsweep.core.errors import UserError, writing
from attnsweep.core.machine import cores
from attnsweep.tasks.driving.records.samples import Samples

VERSION = 2  # of what the world draws and the recorder writes; raise it when either changes
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


def identity(source: Source) -> str:
    """SHA-256 of all that determines the data set: its content and the version of the generator."""
    content = json.dumps({"version": VERSION, **source.content()}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


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
        """Names the generator or reader, and the preset or all files' contents, recorded or not."""
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
        own = contextlib.nullcontext(workers) if workers else pool(processes or cores())
        try:
            with own as hands:
                write_set(source, draft, hands, on_scene)
            if folder(source, data_dir) != where:
                raise UserError(
                    f"{source.name} changed while it was recorded; the same command records it anew"
                )
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
    checksums, counts = {}, {}
    for part, recorded in source.split(kept).items():
        if not recorded:
            why = "; ".join([one.dropped for one in found if one.dropped][:3]) or "there is none"
            raise UserError(f"{source.name} has no scene for the part {part}: {why}")
        arrays = joined([one.samples for one in recorded])
        counts[part] = {"scenes": len(recorded), "samples": len(arrays["bev"])}
        for name, array in arrays.items():
            file = where / f"{part}-{name}.npy"
            np.save(file, array)
            checksums[file.name] = files.sha256_of(file, follow=True)
    manifest = {
        "identity": identity(source),
        "version": VERSION,
        **source.content(),
        "counts": counts,
        "dropped": {one.seed: one.dropped for one in found if one.dropped},
        "skipped": list(skipped.values()),
        "groups": len({one.group for one in found}),
        "files": checksums,
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
    """What a data set left out and why, such as `1 of 69 skipped: ...`; nothing where it has them all."""
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
    lengths = [len(part["previous"]) for part in parts]
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    previous = arrays["previous"]
    arrays["previous"] = np.where(previous >= 0, previous + starts, -1).astype(np.int32)
    return arrays


def load(source: Source, data_dir: Path, part: str) -> Samples:
    """The arrays of a part, mapped into memory; what is written to them stays with the process.

    Raises UserError where the set has not been recorded, or a file is not what was written.
    """
    where, arrays = folder(source, data_dir), Samples()
    for name, sha256 in manifest_of(source, data_dir)["files"].items():
        file = where / name
        if not name.startswith(f"{part}-"):
            continue
        if not file.is_file() or files.sha256_of(file, follow=True) != sha256:
            raise UserError(f"{file} is not what was recorded; delete {where} and it is recorded anew")
        arrays[name.removeprefix(f"{part}-").removesuffix(".npy")] = np.load(file, mmap_mode="c")
    return arrays
