"""The sets of images by name, built in or one's own: what is known of each before it is read, its checksum,
and its pixels.

Where a network exists torchvision downloads the built-in ones (`official`); what is decoded are the bytes
that were hashed. What is decoded is kept (`cache`), once per machine.
"""

import functools
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from attnsweep.tasks.images import cache, official, own_data
from attnsweep.tasks.images.cache import Pixels, Undecoded
from attnsweep.tasks.images.own_data import collection
from attnsweep.tasks.images.own_data.collection import Collection
from attnsweep.tasks.images.own_data.pixels import fitted
from attnsweep.tasks.images.own_data.reading import in_parallel, quiet
from attnsweep.tasks.task import Progress, Ready

SIDE = 64  # pixels; the default side to which one's own images are resized, if they are larger
LEAST_SIDE = 6  # of a default
VALIDATION_SHARE = 0.1  # of the training part of a built-in set
VALIDATION_SEED = 0  # the same split for every trial, whatever its own seed
SLOW = 1_000  # images that take long enough to decode for a bar
log = logging.getLogger("attnsweep")
# below which a plan finds what decoding has shown before; None: nowhere
FOLDER: ContextVar[Path | None] = ContextVar("folder", default=None)


@dataclass(frozen=True)
class ImageSet(Ready):
    """One data set. `mean` and `std` are per channel, of pixels in 0..1 of the training part; None: computed
    when read. `train_size` of a built-in set counts the images that validate, too.
    """

    name: str
    image_size: int
    channels: int
    num_classes: int
    train_size: int
    test_size: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    files: tuple[str, ...] = ()  # below the data folder, in torchvision's own layout
    sha256: str | None = None  # of the official files, in that order; None where it is not known beforehand
    torchvision_class: str = ""
    also: tuple[str, ...] = ()  # files that torchvision wants besides
    classes: tuple[str, ...] = ()  # by label; empty where their names are not known
    own: Collection | None = field(default=None, repr=False, compare=False)

    @property
    def is_folder(self) -> bool:
        """Whether it is a user's own, of whatever kind."""
        return self.own is not None

    @property
    def val_size(self) -> int:
        """How many images validate."""
        return self.own.size("val") if self.own else validation_size(self.train_size)

    @property
    def trained_size(self) -> int:
        """How many images train."""
        return self.train_size if self.own else self.train_size - self.val_size

    @property
    def skipped(self) -> int | None:
        """How many of one's own cannot be read and are left out; None where not asked, and of other sets."""
        return None if self.own is None or self.own.skipped is None else len(self.own.skipped)

    def chance(self, part: str) -> float:
        """The accuracy of always saying a part's most frequent class; a built-in set's are about equal."""
        if self.own is None:
            return 1 / self.num_classes
        return max(self.own.counts(part).values()) / self.own.size(part)

    def checksum(self, data_dir: Path) -> str:
        """SHA-256 of its contents. Raises UserError as `official.checksum` does."""
        return self.own.sha256 if self.own else official.checksum(self, data_dir)

    def is_here(self, data_dir: Path) -> bool:
        """Whether all files that it is read from are there; one's own would not have been found."""
        return self.is_folder or all(path.is_file() for path in official.paths(self, data_dir))

    def ensure(self, data_dir: Path, progress: Progress = lambda done, total: None) -> None:
        """Has its files there, and decoded, if that takes time. Raises UserError where that fails."""
        if not self.is_folder:
            official.ensure(self, data_dir)
        decode(self, data_dir, progress)


def idx_files(folder: str) -> tuple[str, ...]:
    """The four files of a data set in MNIST's format."""
    parts = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    return tuple(f"{folder}/raw/{part}" for part in parts)


DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FILES = tuple(
    f"cifar-10-batches-py/{part}" for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
DATASETS = {
    one.name: one
    for one in (
        ImageSet(
            "digits", 8, 1, 10, 1438, 359, (0.2878,), (0.3543,),
            sha256="4d0652d5f48ae8642abd53c7ec4c245998cb596bca546392bee3c5e03fda9edf", classes=DIGITS,
        ),
        ImageSet(
            "mnist", 28, 1, 10, 60_000, 10_000, (0.1307,), (0.3081,), idx_files("MNIST"),
            "595a67c05b1395c3306bfb77d818e98d515da7f1004e2490d3c5ad921a646209", "MNIST", classes=DIGITS,
        ),
        ImageSet(
            "fashion_mnist", 28, 1, 10, 60_000, 10_000, (0.2860,), (0.3530,), idx_files("FashionMNIST"),
            torchvision_class="FashionMNIST", classes=FASHION,
        ),
        ImageSet(
            "cifar10", 32, 3, 10, 50_000, 10_000, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
            CIFAR10_FILES, "6188ba9a11980513857019c9598380f3660e4b57470c487cecc8cda48e959511", "CIFAR10",
            ("cifar-10-batches-py/batches.meta",), CIFAR10,
        ),
        ImageSet(
            "cifar100", 32, 3, 100, 50_000, 10_000, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
            ("cifar-100-python/train", "cifar-100-python/test"),
            "0a10c33b8e8de32faac2450feddb242a43053721c1f623a304c6c4f570bc7f1d", "CIFAR100",
            ("cifar-100-python/meta",),
        ),
    )
}  # fmt: skip


def find(name: str, *, skip_unreadable: bool = False) -> ImageSet | None:
    """The set of images of that name; `folder:PATH`, `csv:PATH` and the like are one's own, of which images
    that cannot be read are part unless they are skipped. None where there is none.

    Raises UserError where one's own are not as they have to be.
    """
    return own_set(name, skip_unreadable) if own_data.is_own(name) else DATASETS.get(name)


@functools.cache
def own_set(name: str, skip_unreadable: bool) -> ImageSet:
    """What images of one's own are, for which every file is read; see `forget`. Raises UserError."""
    found = own_data.collect(name, skip_unreadable=skip_unreadable, kept_in=FOLDER.get())
    low, high = found.sides or (SIDE, SIDE)
    return ImageSet(
        found.listing.dataset,
        image_size=low if low == high and LEAST_SIDE <= low < SIDE else SIDE,  # none is blown up
        channels=found.channels,
        num_classes=len(found.classes),
        train_size=found.size("train"),
        test_size=found.size("test"),
        classes=found.classes,
        own=found,
    )


def sized(dataset: ImageSet, image_size: int) -> ImageSet:
    """The set with its images resized for a trial."""
    return dataset if image_size == dataset.image_size else replace(dataset, image_size=image_size)


@functools.cache
def sample(name: str, image_size: int, skip_unreadable: bool) -> np.ndarray:
    """A few training images of one's own, to estimate the range of their pixels; see `forget`."""
    found = own_set(name, skip_unreadable).own
    assert found is not None
    return collection.sample(found, image_size)


def forget(data_dir: Path | None = None) -> None:
    """Has the files of data sets read again when they are next asked for. Whoever makes a plan begins with
    this: within a plan of thousands of trials a file is read once, and no plan goes by the files of another.
    What decoding shows is kept below `data_dir`.
    """
    FOLDER.set(data_dir)
    for remembered in (own_set, sample, held, official.checksum_of_files):
        remembered.cache_clear()


def drawn_for_validation(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `count` training images of a built-in set, the indices that train (ascending), and that validate."""
    order = np.random.RandomState(VALIDATION_SEED).permutation(count)
    held_out = validation_size(count)
    return np.sort(order[held_out:]), order[:held_out]


def validation_size(count: int) -> int:
    """How many of `count` training images of a built-in set validate."""
    return round(VALIDATION_SHARE * count)


# --- The pixels ---


def pixels(
    name: str, image_size: int, data_dir: Path, *, sha256: str | None, skip_unreadable: bool = False
) -> Pixels:
    """The parts `train`, `val` and `test` of the set of that name, and the range of its pixels.

    Raises UserError where files are missing, unreadable, or of another checksum than `sha256` (None: any).
    """
    if name == "digits" and image_size == DATASETS[name].image_size:
        return cache.in_memory(of_built_in(DATASETS[name], data_dir))  # quicker than any file

    def undecoded() -> Undecoded:
        if own_data.is_own(name):
            found = own_data.collect(name, skip_unreadable=skip_unreadable, kept_in=data_dir)
            return of_own(found, image_size, known)
        dataset = sized(DATASETS[name], image_size)
        official.ensure(dataset, data_dir)
        return of_built_in(dataset, data_dir, sha256=known)

    known = sha256
    if known is None:
        found = find(name, skip_unreadable=skip_unreadable)
        assert found is not None
        known = found.checksum(data_dir)
    with quiet():
        return cache.provided(cache.folder_of(data_dir, known, image_size), known, undecoded)


def decode(dataset: ImageSet, data_dir: Path, progress: Progress) -> None:
    """Decodes a set for all workers of this machine, unless that has been done; where it cannot be kept, says
    so, and tries whether all images can be read.

    Raises UserError where one's own cannot be.
    """
    if dataset == DATASETS["digits"]:
        return
    known = dataset.checksum(data_dir)
    folder, advance = cache.folder_of(data_dir, known, dataset.image_size), when_slow(progress)

    def undecoded() -> Undecoded:
        if dataset.own:
            return of_own(dataset.own, dataset.image_size, known, progress=advance)
        return of_built_in(dataset, data_dir, sha256=known, progress=advance)

    with quiet():
        try:
            if not cache.opened(folder, known):
                cache.build(folder, known, undecoded)
            held(folder, known)
        except OSError as error:
            log.warning("%s", cache.unwritten(folder, error))
            if dataset.own:
                for _ in undecoded().images():
                    pass


@functools.cache
def held(folder: Path, sha256: str) -> Pixels | None:
    """A decoded set, mapped for as long as its trials may run, so that nobody deletes it; see `forget`."""
    return cache.opened(folder, sha256)


def when_slow(progress: Progress) -> Progress:
    """Shows progress only of work that takes long enough."""
    return lambda done, total: progress(done, total) if total >= SLOW else None


def of_own(
    found: Collection, side: int, sha256: str | None, progress: Progress = lambda done, total: None
) -> Undecoded:
    """One's own images, to be decoded. Raises UserError where they have another checksum (None: any)."""
    if sha256 not in (None, found.sha256):
        raise collection.changed(found.listing.dataset)
    return Undecoded(
        found.listing.dataset,
        {part: found.size(part) for part in collection.PARTS},
        (found.channels, side, side),
        lambda: collection.decoded(found, side, progress=progress),
    )


def of_built_in(
    dataset: ImageSet,
    data_dir: Path,
    *,
    sha256: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Undecoded:
    """A built-in set, read, to be resized where it is wanted at another size.

    Raises UserError as `official.read` does.
    """
    parts = official.read(dataset, data_dir, sha256=sha256)
    images, labels = parts["train"]
    train, val = drawn_for_validation(len(labels))
    parts |= {"train": (images[train], labels[train]), "val": (images[val], labels[val])}
    return Undecoded(
        dataset.name,
        {part: len(parts[part][1]) for part in collection.PARTS},
        (dataset.channels, dataset.image_size, dataset.image_size),
        lambda: resized(parts, dataset.image_size, progress),
    )


def resized(
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]], side: int, progress: Progress
) -> Iterator[tuple[str, int, np.ndarray]]:
    """The part, the label and the pixels (channels, side, side) of each image."""
    done, total = 0, sum(len(labels) for _, labels in parts.values())
    for part, (images, labels) in parts.items():
        native = images.shape[-1] == side
        made = images if native else in_parallel(lambda image: fitted(image, side), images)
        for image, label in zip(made, labels, strict=True):
            yield part, int(label), image
            done += 1
            progress(done, total)
