"""Arrays in one file, as MedMNIST keeps them: `train_images`, `train_labels`, and the same of `val` and
`test`.

Images are (n, height, width), or with a fourth axis of 1 or 3 channels, of uint8; labels (n,) or (n, 1).
Images are read one after the other: a file may be larger than memory. https://medmnist.com
"""

import functools
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.tasks.images.cache import header
from attnsweep.tasks.images.own_data import listing
from attnsweep.tasks.images.own_data.csv_file import in_order
from attnsweep.tasks.images.own_data.listing import Entry, Listing, Reader, parts_or_refusal

PARTS = ("train", "test", "val")
Header = tuple[tuple[int, ...], np.dtype[Any]]


def listed(file: Path) -> Listing:
    """The images of a file of arrays. Raises UserError where it has none, or labels that do not fit them."""
    try:
        with zipfile.ZipFile(file) as archive:
            parts = parts_of(file, archive)
            entries = [one for name, part in parts.items() for one in entries_of(file, archive, name, part)]
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise nearly anything on a torn or hostile file
        raise refusal(file, f"it cannot be read ({error}); it wants an .npz of arrays") from error
    return Listing(
        f"npz:{file}",
        entries,
        lambda indices: readers(file, list(parts), indices),
        classes=in_order({entry.label for entry in entries}),
        named={part: f"{name}_images" for name, part in parts.items() if part},
    )


def parts_of(file: Path, archive: zipfile.ZipFile) -> dict[str, str | None]:
    """The parts that a file has, by their names, each with the part that it means. Raises UserError where one
    has no images or no labels, or where train or test is missing.
    """
    names = {name.removesuffix(".npy") for name in archive.namelist()}
    for part in PARTS:
        wanted = {f"{part}_images", f"{part}_labels"}
        if (part == "train" or wanted & names) and (missing := sorted(wanted - names)):
            raise refusal(
                file, f"it has no array {missing[0]}; there are {', '.join(sorted(names)[:12]) or 'none'}"
            )
    found = [part for part in PARTS if f"{part}_images" in names]
    return parts_or_refusal(f"npz:{file}", {part: part for part in found}, "arrays of")


def entries_of(file: Path, archive: zipfile.ZipFile, name: str, part: str | None) -> list[Entry]:
    """The images of one part. Raises UserError where their labels do not fit them."""
    (shape, dtype), labels = header_of(archive, f"{name}_images"), labels_of(file, archive, name)
    grey_or_colour = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if not grey_or_colour or dtype != np.uint8 or 0 in shape[1:]:
        raise refusal(
            file,
            f"{name}_images is {shape} of {dtype}; images are (n, height, width) of uint8, or with a fourth "
            "axis of 1 or 3 channels",
        )
    if len(labels) != shape[0]:
        raise refusal(file, f"{name}_images has {shape[0]:,} images and {name}_labels {len(labels):,} labels")
    return [Entry(f"{name}_images[{i}]", str(label), part) for i, label in enumerate(labels.tolist())]


def labels_of(file: Path, archive: zipfile.ZipFile, part: str) -> np.ndarray:
    """The labels (n,) of one part. Raises UserError where an image has several, or one that is no number."""
    header_of(archive, f"{part}_labels")  # numpy would make room for whatever the header announces
    with archive.open(f"{part}_labels.npy") as content:
        labels = np.lib.format.read_array(content, allow_pickle=False)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise refusal(
            file,
            f"{part}_labels is {labels.shape} of {labels.dtype}; it wants one whole number per image: (n,) "
            "or (n, 1)",
        )
    if (labels < 0).any():
        least = int(labels.argmin())
        raise refusal(file, f"{part}_labels[{least}] is {labels[least]}, which is no class")
    return labels


def header_of(archive: zipfile.ZipFile, name: str) -> Header:
    """An array's shape and type. Raises ValueError where its values, not read here, are fewer or more."""
    with archive.open(f"{name}.npy") as content:
        shape, dtype = header(content)
        there = archive.getinfo(f"{name}.npy").file_size - content.tell()
    if not dtype.hasobject and (min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != there):
        raise ValueError(f"{name} is announced as {shape} of {dtype} and has {there:,} bytes")
    return shape, dtype


def readers(file: Path, parts: Sequence[str], indices: Sequence[int]) -> Iterator[Reader]:
    """What gives the images of these indices, counted over the parts, as files of the formats PGM and PPM."""
    wanted, at = set(indices), 0
    try:
        with zipfile.ZipFile(file) as archive:
            for part in parts:
                with archive.open(f"{part}_images.npy") as content:
                    shape, _ = header(content)
                    for _ in range(shape[0]):
                        pixels = content.read(math.prod(shape[1:]))
                        if at in wanted:
                            yield functools.partial(netpbm, shape, pixels)
                        at += 1
    except Exception as error:  # as in `listed`
        raise refusal(file, f"it cannot be read ({error}); save it again") from error


def netpbm(shape: Sequence[int], pixels: bytes) -> bytes:
    """An image in the format PGM, or PPM where it has colours."""
    return f"{'P6' if shape[3:] == (3,) else 'P5'} {shape[2]} {shape[1]} 255\n".encode() + pixels


def refusal(file: Path, sentence: str) -> UserError:
    """The error that says which file it is about."""
    return listing.refusal(f"npz:{file}", sentence)
