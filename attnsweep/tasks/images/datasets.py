"""The sets of images by name: what is known of each before it is read, where its files lie, their checksum,
and their pixels.

Where a network exists torchvision downloads them; what is decoded are the bytes that were hashed.
"""

import functools
import gzip
import hashlib
import importlib.util
import io
import pickle
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep.core import files
from attnsweep.core.errors import UserError
from attnsweep.tasks.images import folders
from attnsweep.tasks.images.folders import Folder

if TYPE_CHECKING:
    import numpy as np

FOLDER = "folder:"
FOLDER_SIDE = 64  # pixels; the default side to which the images of a folder are resized


@dataclass(frozen=True)
class ImageSet:
    """One data set. `mean` and `std` are per channel, of pixels in 0..1 of the training part; None: computed
    when read. `train_size` counts the images that validate too, unless the set has a part of them.
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
    folder: Folder | None = field(default=None, repr=False, compare=False)

    @property
    def is_folder(self) -> bool:
        return self.name.startswith(FOLDER)

    @property
    def val_size(self) -> int:
        """How many images validate."""
        own = self.folder.size("val") if self.folder else 0
        return own or folders.validation_size(self.train_size)

    @property
    def skipped(self) -> int | None:
        """How many images of a folder were left out because they cannot be read; None where that was not
        asked, and of other sets.
        """
        known = self.folder is not None and self.folder.skipped is not None
        return len(self.folder.skipped) if known else None  # type: ignore[union-attr,arg-type]

    @property
    def chance(self) -> float:
        """The accuracy on the test part of giving every image its most frequent class; of a named set, whose
        classes are about as frequent as each other, of giving any one.
        """
        if self.folder is None:
            return 1 / self.num_classes
        return max(self.folder.counts("test").values()) / self.test_size

    def checksum(self, data_dir: Path) -> str:
        """See `checksum`."""
        return checksum(self, data_dir)

    def is_here(self, data_dir: Path) -> bool:
        """Whether all files that it is read from are there; a folder would not have been found."""
        return self.is_folder or all(path.is_file() for path in paths(self, data_dir))

    def ensure(self, data_dir: Path) -> None:
        """See `ensure`; of a folder, that all images can be read which are not skipped."""
        if self.folder is None:
            ensure(self, data_dir)
        elif self.folder.skipped is None:
            folders.check_readable(self.folder)

    def prepare(self, data_dir: Path, *, workers: object, progress: object) -> None:
        """Images are read as they are."""


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
    """The set of images of that name; `folder:PATH` is a folder of one's own, of which those that cannot be
    read are part of it unless they are skipped. None where there is none.

    Raises UserError as `folders.scan` does.
    """
    return folder_set(name, skip_unreadable) if name.startswith(FOLDER) else DATASETS.get(name)


def root_of(name: str) -> Path:
    """The folder that `folder:PATH` names. Raises UserError where that is no path."""
    try:
        root = Path(name.removeprefix(FOLDER)).expanduser().resolve()
        str(root).encode()  # as rows and screens want it
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"dataset={name!r} names no folder ({error}); write folder:PATH") from error
    return root


@functools.cache
def folder_set(name: str, skip_unreadable: bool) -> ImageSet:
    """What a folder of images holds; see `forget`. Raises UserError as `folders.scan` does."""
    folder = folders.scan(root_of(name), skip_unreadable=skip_unreadable)
    return ImageSet(
        f"{FOLDER}{folder.root}",
        image_size=FOLDER_SIDE,
        channels=3,
        num_classes=len(folder.classes),
        train_size=folder.size("train"),
        test_size=folder.size("test"),
        classes=folder.classes,
        folder=folder,
    )


@functools.cache
def survey(name: str, skip_unreadable: bool) -> folders.Survey:
    """The checksum of a folder's images and their sizes, for which every file is read; see `forget`."""
    folder = folder_set(name, skip_unreadable).folder
    assert folder is not None
    return folders.survey(folder)


@functools.cache
def sample(name: str, image_size: int, skip_unreadable: bool) -> "np.ndarray":
    """A few training images of a folder, as `folders.read` gives them, to know the range of; see `forget`."""
    folder = folder_set(name, skip_unreadable).folder
    assert folder is not None
    return folders.sample(folder, image_size)


def forget() -> None:
    """Has the files of data sets read again when they are next asked for. Whoever makes a plan begins with
    this: within a plan of thousands of trials a file is read once, and no plan goes by the files of another.
    """
    for remembered in (folder_set, survey, sample, checksum_of_files):
        remembered.cache_clear()


def paths(dataset: ImageSet, data_dir: Path) -> list[Path]:
    """Every file of a named data set, in the order of its checksum."""
    if dataset.name == "digits":
        return [digits_file()]
    return [data_dir / file for file in dataset.files]


@functools.cache
def digits_file() -> Path:
    """The digits, which come with scikit-learn."""
    spec = importlib.util.find_spec("sklearn")  # located, not imported: that would cost the driver a second
    assert spec is not None and spec.origin is not None, "scikit-learn is a dependency of this package"
    return Path(spec.origin).parent / "datasets/data/digits.csv.gz"


def checksum(dataset: ImageSet, data_dir: Path) -> str:
    """SHA-256 over the names and bytes of the data set's files; the official one where they are not here yet.

    Raises UserError where files are missing and no official checksum is known, or where they differ from the
    official ones.
    """
    if dataset.is_folder:
        return survey(dataset.name, dataset.skipped is not None).sha256
    if dataset.sha256 and not all(path.is_file() for path in paths(dataset, data_dir)):
        return dataset.sha256
    return checksum_of_files(dataset, data_dir)


@functools.cache
def checksum_of_files(dataset: ImageSet, data_dir: Path) -> str:
    """The checksum of a named data set's files that are here."""
    files = paths(dataset, data_dir)
    if not all(path.is_file() for path in files):
        raise UserError(f"{missing_files(dataset, data_dir)}; its checksum is part of every trial's id")
    found = digest_of(zip(map(named, files), (path.read_bytes() for path in files), strict=True))
    if dataset.sha256 and found != dataset.sha256:
        raise UserError(not_official(dataset, files))
    return found


def missing_files(dataset: ImageSet, data_dir: Path) -> str:
    """The sentence that says which files are wanted where."""
    wanted = ", ".join((*dataset.files, *dataset.also))
    return f"dataset={dataset.name!r} is not in {data_dir}: wanted {wanted}"


def ensure(dataset: ImageSet, data_dir: Path) -> None:
    """Downloads what is missing, through torchvision.

    Raises UserError, naming folder and files, where that fails.
    """
    wanted = (*paths(dataset, data_dir), *(data_dir / file for file in dataset.also))
    if all(path.is_file() for path in wanted):
        return
    try:
        download(dataset, data_dir)
    except (OSError, RuntimeError, AssertionError) as error:  # torchvision asserts what a file begins with
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{missing_files(dataset, data_dir)}; downloading failed ({reason}). "
            "Put the files there, or name their folder with --data"
        ) from error


def download(dataset: ImageSet, data_dir: Path) -> None:
    """Downloads a data set beside its place, and puts its files there: whatever has their names, torchvision
    would write through it. Raises what torchvision raises.
    """
    import torchvision.datasets

    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as scratch:
        getattr(torchvision.datasets, dataset.torchvision_class)(scratch, download=True)
        for file in (*dataset.files, *dataset.also):
            (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
            files.move(Path(scratch) / file, data_dir / file)


def read(
    dataset: ImageSet, data_dir: Path, *, sha256: str | None = None
) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
    """The parts `train` and `test` of a named data set, each as images (n, channels, height, width) of uint8
    and labels (n,) of int64.

    Raises UserError where the files have another checksum than the official one, or than `sha256` (None: that
    of the files as they are).
    """
    return read_digits() if dataset.name == "digits" else read_official(dataset, data_dir, sha256=sha256)


def read_digits() -> "dict[str, tuple[np.ndarray, np.ndarray]]":
    """scikit-learn's 1,797 handwritten digits; every fifth one is for the test.

    Grey values 0..16 become 0..240.
    """
    import numpy as np

    (packed,) = hashed(DATASETS["digits"], Path())  # read here: importing scikit-learn takes half a second
    text = io.BytesIO(gzip.decompress(packed))
    table = np.loadtxt(text, delimiter=",", dtype=np.int64)  # 64 grey values and a label in each row
    images, labels = (table[:, :64] * 15).astype(np.uint8).reshape(-1, 1, 8, 8), table[:, 64]
    test = np.arange(len(labels)) % 5 == 4
    return {"train": (images[~test], labels[~test]), "test": (images[test], labels[test])}


def read_official(
    dataset: ImageSet, data_dir: Path, *, sha256: str | None = None
) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
    """MNIST, FashionMNIST, CIFAR-10 or CIFAR-100, decoded from the very bytes that have its checksum.

    Raises UserError where the files have another, or are none of the data set's.
    """
    from attnsweep.tasks.images import decoding  # here: it needs numpy

    contents = hashed(dataset, data_dir, sha256=sha256)
    decode = decoding.cifar if dataset.torchvision_class.startswith("CIFAR") else decoding.mnist
    try:
        return decode(contents)
    except (ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"dataset={dataset.name!r}: a file in {data_dir} is none of it ({error})") from error


def hashed(dataset: ImageSet, data_dir: Path, *, sha256: str | None = None) -> list[bytes]:
    """The content of each file. Raises UserError where together they do not have the checksum."""
    files, expected = paths(dataset, data_dir), dataset.sha256 or sha256 or checksum(dataset, data_dir)
    if not all(path.is_file() for path in files):
        raise UserError(missing_files(dataset, data_dir))
    contents = [path.read_bytes() for path in files]
    if digest_of(zip(map(named, files), contents, strict=True)) != expected:
        raise UserError(not_official(dataset, files) if dataset.sha256 else changed(dataset, files))
    return contents


def changed(dataset: ImageSet, files: Sequence[Path]) -> str:
    """The sentence for files that were replaced after the plan had been made."""
    return (
        f"dataset={dataset.name!r}: the files in {files[0].parent} have changed since the plan was made; "
        "run the sweep again"
    )


def not_official(dataset: ImageSet, files: Sequence[Path]) -> str:
    """The sentence for files that have another checksum than the official ones."""
    return f"dataset={dataset.name!r}: the files in {files[0].parent} are not the official ones; delete them"


def named(path: Path) -> str:
    """The name of an official file in the checksum."""
    return f"{path.parent.name}/{path.name}"


def digest_of(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over the names, sizes and contents of files."""
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
