"""Decoded images on this machine's disk: decoded once, and mapped into memory by all workers, which share one
copy.

A set of one checksum at one size is a folder of arrays and a manifest with their checksums. It is made beside
its place and renamed when it is whole, so that what has its name is whole; what a disk has damaged since is
made anew. Sets may be larger than memory: what is mapped is read as it is used. When a source is decoded that
has changed, what was decoded of it before goes, unless a process has it mapped.
"""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from attnsweep.core import files
from attnsweep.core.errors import reason

VERSION = 1  # of what lies in a folder
MANIFEST, CHECKED = "manifest.json", "checked.json"
CHECKED_S = 24 * 3600.0  # for which files are known to be whole that nobody has touched since
TICK_S = 1.0  # within which two writes may leave one time of change, on any file system
# what reading what is not whole raises
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)
log = logging.getLogger("attnsweep")
Part = tuple[np.ndarray, np.ndarray]  # images (n, channels, side, side) of uint8, labels (n,) of int64


@dataclass(frozen=True)
class Pixels:
    """The parts of a set, and mean and standard deviation per channel of what trains, of pixels in 0..1."""

    parts: Mapping[str, Part]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Undecoded:
    """A set that can be decoded: its name, how many images each part has, and the images one after the other,
    each with its part and its label, those of a part in their order.
    """

    name: str
    sizes: Mapping[str, int]
    shape: tuple[int, int, int]
    images: Callable[[], Iterable[tuple[str, int, np.ndarray]]]


def folder_of(data_dir: Path, sha256: str, side: int) -> Path:
    """The folder of a set of this checksum, at this size."""
    return data_dir / "decoded" / f"{sha256[:16]}-{side}px-v{VERSION}"


def provided(folder: Path, sha256: str, undecoded: Callable[[], Undecoded]) -> Pixels:
    """The images of a set: mapped from its folder, into which they are decoded where they are not there yet;
    where that cannot be written, in this process's own memory.

    Raises UserError as decoding does.
    """
    if (found := opened(folder, sha256)) is None:
        try:
            build(folder, sha256, undecoded)
            found = opened(folder, sha256)
        except OSError as error:
            log.info("%s", unwritten(folder, error))
    return found or in_memory(undecoded())


def unwritten(folder: Path, error: OSError) -> str:
    """The sentence about a place that cannot be written."""
    return (
        f"decoded images cannot be kept in {folder.parent} ({error.strerror or reason(error)}): "
        "each worker decodes them in memory of its own"
    )


def opened(folder: Path, sha256: str) -> Pixels | None:
    """The set at a place, mapped read-only; None where there is none, or not what was written."""
    try:
        manifest = json.loads(files.read(folder / MANIFEST))
        if manifest["sha256"] != sha256 or not is_whole(folder, manifest["files"]):
            return None
        arrays = {name: mapped(folder / name) for name in manifest["files"]}
        names = manifest["parts"]
        parts = {name: (arrays[f"{name}-images.npy"], arrays[f"{name}-labels.npy"]) for name in names}
        return Pixels(parts, tuple(manifest["mean"]), tuple(manifest["std"]))
    except DAMAGED:
        return None


def is_whole(folder: Path, digests: Mapping[str, str]) -> bool:
    """Whether files have their checksums, which are computed once a day: until then, the very files that had
    them have them. Raises one of DAMAGED where one is no file.
    """
    marks = {name: mark_of(folder / name) for name in digests}
    if marks == known_whole(folder):
        return True
    if any(files.sha256_of(folder / name) != digest for name, digest in digests.items()):
        return False
    with contextlib.suppress(OSError):  # a folder that others may only read: each process computes them
        note_whole(folder, marks)
    return True


def mark_of(path: Path) -> list[int]:
    """What another file, or the file after another write, has otherwise."""
    info = path.lstat()
    return [info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def note_whole(folder: Path, marks: Mapping[str, list[int]]) -> None:
    """Notes that the files of these marks have just been found whole. Raises OSError."""
    files.replace(folder / CHECKED, json.dumps({"at": time.time(), "files": marks}).encode())


def known_whole(folder: Path) -> dict[str, list[int]] | None:
    """The marks of the files that were whole when somebody last looked; None where that was too long ago, or
    so soon after they were written that they may have been written to since.
    """
    try:
        found: dict[str, Any] = json.loads(files.read(folder / CHECKED))
        marks: dict[str, list[int]] = found["files"]
        written = max(changed_ns for *_, changed_ns in marks.values()) / 1e9
        return marks if written + TICK_S <= found["at"] <= time.time() <= found["at"] + CHECKED_S else None
    except DAMAGED:
        return None


def mapped(path: Path) -> np.ndarray:
    """A file's array, mapped read-only, and locked while it is there, as used. Raises one of DAMAGED."""
    with files.reading(path) as file:
        with contextlib.suppress(OSError):  # where a file system has no locks
            fcntl.flock(file, fcntl.LOCK_SH)  # also of the mapping, which has a duplicate of the descriptor
        shape, dtype = header(file)
        return np.memmap(file, dtype=dtype, mode="r", shape=shape, offset=file.tell())


def header(content: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type of the array that a file of numpy's format begins with. Raises ValueError."""
    version = np.lib.format.read_magic(content)
    read: Callable[[IO[bytes]], Any] = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(content)
    if fortran:
        raise ValueError("its arrays lie column by column; save them with numpy.ascontiguousarray")
    return shape, dtype


def build(folder: Path, sha256: str, undecoded: Callable[[], Undecoded]) -> None:
    """Decodes a set into its folder, unless another process of this machine does so meanwhile.

    Raises OSError where it cannot be written, UserError as decoding does; nothing of it is left then.
    """
    made = [parent for parent in (folder.parent, folder.parent.parent) if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.locked(folder.with_suffix(".lock"), folder.name, wait=True, leave=False):
            if opened(folder, sha256):
                return
            clear_drafts(folder)
            draft = folder.parent / f".{folder.name}-{secrets.token_hex(8)}"
            draft.mkdir()
            try:
                source = undecoded()
                write(draft, sha256, source)
                put_in_place(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            clear_superseded(folder, source.name, sha256)
    except BaseException:
        with contextlib.suppress(OSError):  # others have put something there
            for parent in made:
                parent.rmdir()
        raise


def clear_drafts(folder: Path) -> None:
    """Deletes what processes that were killed have left of this set, and of others in its folder."""
    for draft in folder.parent.glob(".*px-v*-*"):
        of = folder.with_name("-".join(draft.name[1:].split("-")[:3]))
        with contextlib.ExitStack() as others:
            try:
                if of != folder:
                    others.enter_context(files.locked(of.with_suffix(".lock"), of.name, leave=False))
            except OSError:  # it is being made
                continue
            shutil.rmtree(draft, ignore_errors=True)


def clear_superseded(folder: Path, name: str, sha256: str) -> None:
    """Deletes what was decoded of a source of this name before it changed, unless a process uses it."""
    for other in folder.parent.glob("[!.]*px-v*/"):
        try:
            manifest = json.loads(files.read(other / MANIFEST))
            if manifest["dataset"] == name and manifest["sha256"] != sha256:
                clear_unused(other)
        except DAMAGED:
            continue


def clear_unused(folder: Path) -> None:
    """Deletes a set. Raises OSError where a process has it mapped, or it may not be deleted."""
    with contextlib.ExitStack() as stack:
        for path in folder.glob("*.npy"):
            fcntl.flock(stack.enter_context(files.reading(path)), fcntl.LOCK_EX | fcntl.LOCK_NB)
        doomed = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}")
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    log.info("deleted %s, whose source has changed since", folder)


def size_of(data_dir: Path) -> tuple[int, int]:
    """How many sets there are, and their bytes."""
    folders = [*(data_dir / "decoded").glob("[!.]*px-v*/")]
    return len(folders), sum(path.stat().st_size for folder in folders for path in folder.iterdir())


def put_in_place(draft: Path, folder: Path) -> None:
    """Renames what is finished, over what may have been damaged."""
    if folder.exists():
        damaged = draft.with_name(f"{draft.name}-damaged")
        folder.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    draft.rename(folder)


def write(draft: Path, sha256: str, undecoded: Undecoded) -> None:
    """Writes the arrays, then the manifest. Raises OSError."""
    counted, labels = Range(undecoded.shape[0]), {part: [] for part in undecoded.sizes}  # type: ignore[var-annotated]
    with contextlib.ExitStack() as open_files:
        content = {
            part: open_files.enter_context(writing(draft / f"{part}-images.npy", (size, *undecoded.shape)))
            for part, size in undecoded.sizes.items()
        }
        for part, label, image in undecoded.images():
            content[part].write(image.tobytes())
            labels[part].append(label)
            if part == "train":
                counted.add(image)
    for part, numbers in labels.items():
        assert len(numbers) == undecoded.sizes[part], "as many images as were announced"
        with synced(draft / f"{part}-labels.npy") as file:
            np.save(file, np.array(numbers, dtype=np.int64))
    mean, std = counted.statistics()
    arrays = sorted(draft.glob("*.npy"))
    marks = {path.name: mark_of(path) for path in arrays}
    manifest = {
        "dataset": undecoded.name, "sha256": sha256, "parts": list(undecoded.sizes), "mean": mean, "std": std,
        "files": {path.name: files.sha256_of(path) for path in arrays},
    }  # fmt: skip
    note_whole(draft, marks)
    with synced(draft / MANIFEST) as file:
        file.write((json.dumps(manifest, indent=1) + "\n").encode(errors="surrogateescape"))


@contextlib.contextmanager
def writing(path: Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """A new file of numpy's format for an array of uint8, of which the values are to be written."""
    with synced(path) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file


@contextlib.contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """A new file that is on the disk when it is closed."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def in_memory(undecoded: Undecoded) -> Pixels:
    """The set decoded into this process's own memory."""
    counted = Range(undecoded.shape[0])
    parts = {
        part: (np.empty((size, *undecoded.shape), dtype=np.uint8), np.empty(size, dtype=np.int64))
        for part, size in undecoded.sizes.items()
    }
    done = dict.fromkeys(parts, 0)
    for part, label, image in undecoded.images():
        images, labels = parts[part]
        images[done[part]], labels[done[part]] = image, label
        done[part] += 1
        if part == "train":
            counted.add(image)
    return Pixels(parts, *counted.statistics())


class Range:
    """How often each value of a pixel occurs in each channel, of which mean and deviation follow exactly."""

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, 256), dtype=np.int64)

    def add(self, image: np.ndarray) -> None:
        """Counts an image (channels, h, w)."""
        for count, channel in zip(self.counts, image, strict=True):
            count += np.bincount(channel.ravel(), minlength=256)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, of pixels in 0..1."""
        values, total = np.arange(256) / 255, self.counts.sum(axis=1)
        mean = self.counts @ values / total
        std = np.sqrt((self.counts * (values - mean[:, None]) ** 2).sum(axis=1) / total)
        return tuple(mean.tolist()), tuple(std.tolist())
