"""Decoded images on this machine's disk: decoded once, and mapped into memory by all workers, which share one
copy.

A set of one checksum at one size is a folder of arrays and a manifest with their checksums. It is made beside
its place and renamed when it is whole, so that what has its name is whole; what a disk has damaged since is
made anew. Sets may be larger than memory: what is mapped is read as it is used.
"""

import contextlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from attnsweep.core import files
from attnsweep.core.errors import reason

VERSION = 1  # of what lies in a folder
MANIFEST = "manifest.json"
DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)  # what reading what is not whole raises
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


def place_of(data_dir: Path, sha256: str, side: int) -> Path:
    """The folder of a set of this checksum, at this size."""
    return data_dir / "decoded" / f"{sha256[:16]}-{side}px-v{VERSION}"


def provided(place: Path, sha256: str, undecoded: Callable[[], Undecoded]) -> Pixels:
    """The images of a set: mapped from its place, into which they are decoded where they are not there yet;
    where that cannot be written, in this process's own memory.

    Raises UserError as decoding does.
    """
    if (found := opened(place, sha256)) is None:
        try:
            build(place, sha256, undecoded)
            found = opened(place, sha256)
        except OSError as error:
            log.info("%s", unwritten(place, error))
    return found or in_memory(undecoded())


def unwritten(place: Path, error: OSError) -> str:
    """The sentence about a place that cannot be written."""
    return (
        f"decoded images cannot be kept in {place.parent} ({error.strerror or reason(error)}): "
        "each worker decodes them in memory of its own"
    )


def is_there(place: Path, sha256: str) -> bool:
    """Whether a set has been decoded; what its files contain is for `opened` to check."""
    try:
        return bool(read_manifest(place, sha256))
    except DAMAGED:
        return False


def opened(place: Path, sha256: str) -> Pixels | None:
    """The set at a place, mapped read-only; None where there is none, or not what was written."""
    try:
        manifest = read_manifest(place, sha256)
        if any(files.sha256_of(place / name) != digest for name, digest in manifest["files"].items()):
            return None
        arrays = {name: np.load(place / name, mmap_mode="r") for name in manifest["files"]}
        parts = {
            part: (arrays[f"{part}-images.npy"], arrays[f"{part}-labels.npy"]) for part in manifest["parts"]
        }
        return Pixels(parts, tuple(manifest["mean"]), tuple(manifest["std"]))
    except DAMAGED:
        return None


def read_manifest(place: Path, sha256: str) -> dict[str, Any]:
    """What a set says of itself. Raises one of DAMAGED where there is none of this checksum."""
    found: dict[str, Any] = json.loads(files.read(place / MANIFEST))
    if found["sha256"] != sha256:
        raise ValueError("it is another set")
    return found


def build(place: Path, sha256: str, undecoded: Callable[[], Undecoded]) -> None:
    """Decodes a set into its place, unless another process of this machine does so meanwhile.

    Raises OSError where it cannot be written, UserError as decoding does; nothing of it is left then.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(place.with_suffix(".lock"), place.name, wait=True):
        if opened(place, sha256):
            return
        for old in place.parent.glob(f".{place.name}-*"):  # of a process that was killed
            shutil.rmtree(old, ignore_errors=True)
        draft = place.parent / f".{place.name}-{secrets.token_hex(8)}"
        draft.mkdir()
        try:
            write(draft, sha256, undecoded())
            put_in_place(draft, place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def put_in_place(draft: Path, place: Path) -> None:
    """Renames what is finished, over what may have been damaged."""
    if place.exists():
        damaged = draft.with_name(f"{draft.name}-damaged")
        place.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    draft.rename(place)


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
    said = {
        "dataset": undecoded.name,
        "sha256": sha256,
        "parts": list(undecoded.sizes),
        "mean": mean,
        "std": std,
        "files": {path.name: files.sha256_of(path) for path in sorted(draft.glob("*.npy"))},
    }
    with synced(draft / MANIFEST) as file:
        file.write((json.dumps(said, indent=1) + "\n").encode(errors="surrogateescape"))


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
