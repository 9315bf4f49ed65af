"""Images of one's own, read: their checksum, what they have in common, and which of them trains, validates or
tests.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.core.text import counted
from attnsweep.tasks.images.own_data import listing as listings
from attnsweep.tasks.images.own_data import pixels, split, unreadable
from attnsweep.tasks.images.own_data.listing import Entry, Listing, Reader
from attnsweep.tasks.images.own_data.reading import in_parallel, quiet

MOST_NAMED = 100  # images in one sentence
SAMPLED = 8  # images that stand for a set's range of pixels
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Seen:
    """What is seen of an image without decoding it: the SHA-256 of its bytes, its shorter side in pixels
    (None where there is none), whether it has colours, whether a viewer shows it as it is stored; and why it
    cannot be decoded, where that was asked for.
    """

    digest: bytes
    side: int | None
    is_grey: bool
    is_as_stored: bool
    fault: str | None = None


@dataclass(frozen=True)
class Collection:
    """Images of one's own by their order, part and class.

    `skipped` are those that were left out as they cannot be read, with the reason; None where they are in the
    parts. `sides` are the least and greatest of the shorter sides in pixels, None where no image has one.
    """

    listing: Listing = field(repr=False)
    kept: Sequence[int]  # indices of the listing's images; all below are in their order
    digests: Sequence[bytes] = field(repr=False)
    part_of: Sequence[str] = field(repr=False)
    classes: tuple[str, ...]
    sha256: str
    sides: tuple[int, int] | None
    channels: int
    skipped: Mapping[str, str] | None = None

    @property
    def entries(self) -> list[Entry]:
        """The images, in the order of the checksum."""
        return [self.listing.entries[i] for i in self.kept]

    def counts(self, part: str) -> dict[str, int]:
        """How many images of each class a part has."""
        found = Counter(one.label for one, own in zip(self.entries, self.part_of, strict=True) if own == part)
        return {label: found[label] for label in self.classes}

    def size(self, part: str) -> int:
        """How many images a part has."""
        return sum(own == part for own in self.part_of)

    def leaked(self) -> list[tuple[str, str]]:
        """The test images that are, byte by byte, others to train on or to validate: both names."""
        seen: dict[bytes, str] = {}
        images = list(zip(self.entries, self.digests, self.part_of, strict=True))
        for one, digest, part in images:
            if part != "test":
                seen.setdefault(digest, one.name)
        return [(one.name, seen[digest]) for one, digest, part in images if part == "test" and digest in seen]

    def contradictory(self) -> list[tuple[str, str]]:
        """The images that are, byte by byte, an earlier one of another class: both names."""
        seen: dict[bytes, Entry] = {}
        images = zip(self.entries, self.digests, strict=True)
        pairs = ((entry, seen.setdefault(digest, entry)) for entry, digest in images)
        return [(entry.name, first.name) for entry, first in pairs if entry.label != first.label]

    def readers(self) -> Iterator[Reader]:
        """What reads each of the images."""
        return self.listing.readers(self.kept)


def collect(listing: Listing, *, skip_unreadable: bool = False, kept_in: Path | None = None) -> Collection:
    """Reads every file once; one that cannot be read counts as empty here, and `decoded` names it, unless
    such are to be left out: then all are decoded, and what is found out is kept in a folder.

    Raises UserError where a class or a part has too few images.
    """
    listings.check(listing)
    with quiet():
        found = list(in_parallel(seen, every(listing)))
        if skip_unreadable:
            found = tried(listing, found, kept_in)
    kept = [i for i, one in enumerate(found) if one.fault is None]
    entries, images = [listing.entries[i] for i in kept], [found[i] for i in kept]
    digests = [one.digest for one in images]
    check_sizes(listing.dataset, entries, {entry.label for entry in listing.entries})
    parts, copies = split.split(entries, digests)
    check_parts(listing.dataset, entries, parts)
    sides = [one.side for one in images if one.side]
    trained = {entry.label for entry, part in zip(entries, parts, strict=True) if part == "train"}
    return Collection(
        listing,
        kept,
        digests,
        parts,
        classes=tuple(label for label in listing.classes or sorted(trained) if label in trained),
        sha256=checksum(entries, images, copies),
        sides=(min(sides), max(sides)) if sides else None,
        channels=1 if sides and all(one.is_grey for one in images if one.side) else 3,
        skipped={
            entry.name: one.fault
            for entry, one in zip(listing.entries, found, strict=True)
            if one.fault is not None
        }
        if skip_unreadable
        else None,
    )


def every(listing: Listing) -> Iterator[Reader]:
    """What reads each image of a source."""
    return listing.readers(range(len(listing.entries)))


def tried(listing: Listing, found: Sequence[Seen], kept_in: Path | None) -> list[Seen]:
    """What was seen, and why some cannot be decoded: as is known of these contents, else by decoding them."""
    digests = [one.digest for one in found]
    faults = unreadable.known(kept_in, digests) if kept_in else None
    if faults is not None:
        return [replace(one, fault=faults.get(i)) for i, one in enumerate(found)]
    again = list(in_parallel(functools.partial(seen, tries=True), every(listing)))
    if kept_in and [one.digest for one in again] == digests:
        unreadable.keep(kept_in, digests, {i: one.fault for i, one in enumerate(again) if one.fault})
    return again


def seen(read: Reader, *, tries: bool = False) -> Seen:
    """See `Seen`; a file that cannot be read counts as empty. With `tries`, the image is decoded, too."""
    content, fault = b"", None
    try:
        content = read()
    except OSError as error:
        fault = pixels.why(error) if tries else None
    if tries and fault is None:
        try:
            pixels.decoded(pixels.opened(content))
        except Exception as error:  # Pillow raises nearly anything on a torn or hostile file
            fault = pixels.why(error)
    image = pixels.header(content)
    return Seen(
        hashlib.sha256(content).digest(),
        side=min(image.size) if image else None,
        is_grey=image is not None and image.mode.startswith(pixels.GREY) and image.mode != "LAB",
        is_as_stored=image is None or pixels.is_as_stored(image),
        fault=fault,
    )


def checksum(entries: Sequence[Entry], images: Sequence[Seen], copies: set[int]) -> str:
    """SHA-256 over all images: name, part, class, the SHA-256 of the bytes, whether the pixels are those that
    are stored, and whether an image is where it is as a copy of another.
    """
    digest = hashlib.sha256()
    for i, (entry, image) in enumerate(zip(entries, images, strict=True)):
        stored = "" if image.is_as_stored else "as shown"
        words = "\0".join((entry.name, entry.part or "", entry.label, stored + "as its copy" * (i in copies)))
        digest.update(words.encode(errors="surrogateescape") + b"\0" + image.digest)
    return digest.hexdigest()


def decoded(
    collection: Collection, side: int, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Part, label and pixels (channels, side, side) of each image whose bytes are those that were seen.

    Raises UserError at the first that has changed, and at the end, naming all that cannot be read.
    """
    number = {label: i for i, label in enumerate(collection.classes)}
    faults: dict[str, str] = {}

    def attempt(job: tuple[Reader, bytes]) -> np.ndarray | str | None:
        read, digest = job
        try:
            content = read()
            if hashlib.sha256(content).digest() != digest:
                return None
            return pixels.square(content, side, collection.channels)
        except Exception as error:  # as in `seen`
            return pixels.why(error)

    entries, total = collection.entries, len(collection.kept)
    jobs = zip(collection.readers(), collection.digests, strict=True)
    for done, (entry, part, image) in enumerate(
        zip(entries, collection.part_of, in_parallel(attempt, jobs), strict=True), 1
    ):
        if image is None:
            raise changed(collection.listing.dataset, entry.name)
        if isinstance(image, str):
            faults[entry.name] = image
        else:
            yield part, number[entry.label], image
        progress(done, total)
    if faults:
        named = listings.first_of([f"{name} ({why})" for name, why in faults.items()], MOST_NAMED)
        raise listings.refusal(
            collection.listing.dataset,
            f"{len(faults):,} of {counted(total, 'image')} cannot be read: {named}; delete or replace them, "
            "or leave them out: --skip-unreadable",
        )


def sample(collection: Collection, side: int) -> np.ndarray:
    """Up to SAMPLED training images (n, channels, side, side), from all over; grey where unreadable."""
    train = [i for i, part in zip(collection.kept, collection.part_of, strict=True) if part == "train"]
    chosen = train[:: -(-len(train) // SAMPLED)]

    def attempt(read: Reader) -> np.ndarray:
        try:
            return pixels.square(read(), side, collection.channels)
        except Exception:  # `decoded` names them all
            return np.full((collection.channels, side, side), 128, dtype=np.uint8)

    with quiet():
        return np.stack(list(in_parallel(attempt, collection.listing.readers(chosen))))


# --- What is refused ---


def check_sizes(dataset: str, entries: Sequence[Entry], classes: set[str]) -> None:
    """Raises UserError where a class is too small for all three parts to be drawn from it."""
    if any(entry.part for entry in entries):
        return
    found = Counter(entry.label for entry in entries)
    if small := [f"{label} has {found[label]}" for label in sorted(classes) if found[label] < split.LEAST]:
        raise listings.refusal(
            dataset,
            f"images of each class train, validate and test, so a class wants {split.LEAST} or more that can "
            f"be read: {listings.first_of(small)}; add images, or say which ones train and which ones test",
        )


def check_parts(dataset: str, entries: Sequence[Entry], parts: Sequence[str]) -> None:
    """Raises UserError where a class has nothing to train on or no test image, or nothing validates."""
    found = Counter((part, entry.label) for entry, part in zip(entries, parts, strict=True))
    labels = sorted({entry.label for entry in entries})
    for part, name in (("train", "training"), ("test", "test")):
        if missing := [label for label in labels if not found[part, label]]:
            raise listings.refusal(
                dataset, f"no image is left in the {name} part of {listings.first_of(missing)}; add images"
            )
    if "val" not in parts:
        whole = any(entry.part == "val" for entry in entries)
        raise listings.refusal(
            dataset,
            "no image validates, as each class has 1 to train on: add images, or a part val"
            if not whole
            else "no image of the part val can be read; add images, or delete the part",
        )


def changed(dataset: str, name: str = "") -> UserError:
    """The error about images that are not those of the plan."""
    they = f"{name} has" if name else "the images have"
    again = "changed since the plan was made; the same command makes it anew"
    return listings.refusal(dataset, f"{they} {again}")
