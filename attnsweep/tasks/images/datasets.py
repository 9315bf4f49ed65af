"""The sets of images by name: what is known of each before it is read, where its files lie, their checksum,
and their pixels.

Where a network exists torchvision downloads them; what is decoded are the bytes that were hashed.
"""

import functools
import gzip
import hashlib
import importlib.util
import io
import itertools
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

FOLDER = "folder:"
FOLDER_SIDE = 64  # pixels; the default side to which the images of a folder are resized
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


@dataclass(frozen=True)
class ImageSet:
    """One data set. `mean` and `std` are per channel, of pixels in 0..1 of the training part; None: computed
    when read.
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

    @property
    def is_folder(self) -> bool:
        return self.name.startswith(FOLDER)

    def checksum(self, data_dir: Path) -> str:
        """See `checksum`."""
        return checksum(self, data_dir)

    def is_here(self, data_dir: Path) -> bool:
        """Whether all files that it is read from are there."""
        return all(path.is_file() for path in paths(self, data_dir))

    def ensure(self, data_dir: Path) -> None:
        """See `ensure`."""
        ensure(self, data_dir)

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


CIFAR10_FILES = tuple(
    f"cifar-10-batches-py/{part}" for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
)
DATASETS = {
    one.name: one
    for one in (
        ImageSet(
            "digits", 8, 1, 10, 1438, 359, (0.2878,), (0.3543,),
            sha256="4d0652d5f48ae8642abd53c7ec4c245998cb596bca546392bee3c5e03fda9edf",
        ),
        ImageSet(
            "mnist", 28, 1, 10, 60_000, 10_000, (0.1307,), (0.3081,), idx_files("MNIST"),
            "595a67c05b1395c3306bfb77d818e98d515da7f1004e2490d3c5ad921a646209", "MNIST",
        ),
        ImageSet(
            "fashion_mnist", 28, 1, 10, 60_000, 10_000, (0.2860,), (0.3530,), idx_files("FashionMNIST"),
            torchvision_class="FashionMNIST",
        ),
        ImageSet(
            "cifar10", 32, 3, 10, 50_000, 10_000, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
            CIFAR10_FILES, "6188ba9a11980513857019c9598380f3660e4b57470c487cecc8cda48e959511", "CIFAR10",
            ("cifar-10-batches-py/batches.meta",),
        ),
        ImageSet(
            "cifar100", 32, 3, 100, 50_000, 10_000, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
            ("cifar-100-python/train", "cifar-100-python/test"),
            "0a10c33b8e8de32faac2450feddb242a43053721c1f623a304c6c4f570bc7f1d", "CIFAR100",
            ("cifar-100-python/meta",),
        ),
    )
}  # fmt: skip


def find(name: str) -> ImageSet | None:
    """The set of images of that name; `folder:PATH` is a folder of one's own. None where there is none.

    Raises UserError where a folder is named that holds no images.
    """
    return folder_set(name) if name.startswith(FOLDER) else DATASETS.get(name)


@functools.cache
def folder_set(name: str) -> ImageSet:
    """What a folder of images holds: its classes and how many images. Layouts: PATH/train and PATH/test, or
    one PATH/CLASS.
    """
    root = Path(name.removeprefix(FOLDER)).expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"dataset={name!r}: {root} is not a folder; it wants one folder of images per class")
    parts = folder_parts(root)
    classes = sorted({label for label, _ in parts["train"]})
    if len(classes) < 2:
        raise UserError(
            f"dataset={name!r}: {len(classes)} classes with images in {root}; it wants a folder for each"
        )
    if not parts["test"]:
        raise UserError(
            f"dataset={name!r}: {root} has no test image; it wants 5 images of a class, or train/ and test/"
        )
    strangers = sorted({label for label, _ in parts["test"]} - set(classes))
    if strangers:
        raise UserError(
            f"dataset={name!r}: classes of the test part that the training part lacks: {', '.join(strangers)}"
        )
    return ImageSet(f"{FOLDER}{root}", FOLDER_SIDE, 3, len(classes), len(parts["train"]), len(parts["test"]))


def folder_parts(root: Path) -> dict[str, list[tuple[str, Path]]]:
    """The class and path of every image, for the parts `train` and `test`; without PATH/test every fifth of a
    class is for the test.
    """
    if (root / "train").is_dir():
        held_out = next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
        return {
            "train": list(labelled(root / "train")),
            "test": list(labelled(held_out)) if held_out else [],
        }
    train: list[tuple[str, Path]] = []
    test: list[tuple[str, Path]] = []
    for _, group in itertools.groupby(labelled(root), key=lambda one: one[0]):
        for i, one in enumerate(group):
            (test if i % 5 == 4 else train).append(one)
    return {"train": train, "test": test}


def labelled(root: Path) -> Iterator[tuple[str, Path]]:
    """Every image below the class folders of `root` with its class, in the order of torchvision's
    ImageFolder.
    """
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield folder.name, path


def paths(dataset: ImageSet, data_dir: Path) -> list[Path]:
    """Every file of the data set, in the order of its checksum."""
    if dataset.name == "digits":
        return [digits_file()]
    if dataset.is_folder:
        parts = folder_parts(Path(dataset.name.removeprefix(FOLDER)))
        return [path for part in parts.values() for _, path in part]
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
    if dataset.sha256 and not all(path.is_file() for path in paths(dataset, data_dir)):
        return dataset.sha256
    return checksum_of_files(dataset, data_dir)


@functools.cache
def checksum_of_files(dataset: ImageSet, data_dir: Path) -> str:
    """The checksum of files that are here. An image of a folder is named by its path, class included."""
    files = paths(dataset, data_dir)
    if not all(path.is_file() for path in files):
        raise UserError(f"{missing_files(dataset, data_dir)}; its checksum is part of every trial's id")
    root = Path(dataset.name.removeprefix(FOLDER)) if dataset.is_folder else None
    names = (path.relative_to(root).as_posix() if root else named(path) for path in files)
    found = digest_of(zip(names, (path.read_bytes() for path in files), strict=True))
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
    import torchvision.datasets

    try:
        getattr(torchvision.datasets, dataset.torchvision_class)(str(data_dir), download=True)
    except (OSError, RuntimeError, AssertionError) as error:  # torchvision asserts what a file begins with
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{missing_files(dataset, data_dir)}; downloading failed ({reason}). "
            "Put the files there, or name their folder with --data"
        ) from error


def read(dataset: ImageSet, data_dir: Path, image_size: int) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
    """The parts `train` and `test`, each as images (n, channels, height, width) of uint8 and labels (n,) of
    int64.
    """
    if dataset.name == "digits":
        return read_digits()
    if dataset.is_folder:
        return read_folder(dataset, image_size)
    return read_official(dataset, data_dir)


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


def read_official(dataset: ImageSet, data_dir: Path) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
    """MNIST, FashionMNIST, CIFAR-10 or CIFAR-100, decoded from the very bytes that have its checksum.

    Raises UserError where the files have another, or are none of the data set's.
    """
    from attnsweep.tasks.images import decoding  # here: it needs numpy

    contents = hashed(dataset, data_dir)
    decode = decoding.cifar if dataset.torchvision_class.startswith("CIFAR") else decoding.mnist
    try:
        return decode(contents)
    except (ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"dataset={dataset.name!r}: a file in {data_dir} is none of it ({error})") from error


def hashed(dataset: ImageSet, data_dir: Path) -> list[bytes]:
    """The content of each file. Raises UserError where together they do not have the checksum."""
    files, expected = paths(dataset, data_dir), dataset.sha256 or checksum(dataset, data_dir)
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


def read_folder(dataset: ImageSet, image_size: int) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
    """A folder of images as RGB, its shorter side resized to `image_size`, then cut to the centre."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    def pixels(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                return np.asarray(ImageOps.fit(image.convert("RGB"), (image_size, image_size))).transpose(
                    2, 0, 1
                )
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{path} is not an image that can be read; delete or replace it") from error

    parts = folder_parts(Path(dataset.name.removeprefix(FOLDER)))
    number = {name: i for i, name in enumerate(sorted({label for label, _ in parts["train"]}))}
    return {
        part: (np.stack([pixels(path) for _, path in files]), np.array([number[label] for label, _ in files]))
        for part, files in parts.items()
    }
