"""The files of the built-in sets of images: where they lie, how they come there, checksum and content."""

import functools
import gzip
import hashlib
import importlib.util
import io
import pickle
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attnsweep.core import files
from attnsweep.core.errors import UserError
from attnsweep.tasks.images import decoding
from attnsweep.tasks.images.decoding import Part

if TYPE_CHECKING:
    from attnsweep.tasks.images.datasets import ImageSet


def paths(dataset: "ImageSet", data_dir: Path) -> list[Path]:
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


def checksum(dataset: "ImageSet", data_dir: Path) -> str:
    """SHA-256 over the names and bytes of the data set's files; the official one where they are not here yet.

    Raises UserError where files are missing without a known checksum, or differ from the official ones.
    """
    if dataset.sha256 and not all(path.is_file() for path in paths(dataset, data_dir)):
        return dataset.sha256
    return checksum_of_files(dataset, data_dir)


@functools.cache
def checksum_of_files(dataset: "ImageSet", data_dir: Path) -> str:
    """The checksum of a named data set's files that are here."""
    files = paths(dataset, data_dir)
    if not all(path.is_file() for path in files):
        raise UserError(f"{missing_files(dataset, data_dir)}; its checksum is part of every trial's id")
    found = digest_of(files, (path.read_bytes() for path in files))
    if dataset.sha256 and found != dataset.sha256:
        raise UserError(not_official(dataset, files))
    return found


def missing_files(dataset: "ImageSet", data_dir: Path) -> str:
    """The sentence that says which files are wanted where."""
    wanted = ", ".join((*dataset.files, *dataset.also))
    return f"dataset={dataset.name!r} is not in {data_dir}: wanted {wanted}"


def ensure(dataset: "ImageSet", data_dir: Path) -> None:
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


def download(dataset: "ImageSet", data_dir: Path) -> None:
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


def read(dataset: "ImageSet", data_dir: Path, *, sha256: str | None = None) -> dict[str, Part]:
    """The parts `train` and `test` of a set: images (n, channels, h, w) of uint8, labels (n,) of int64.

    Raises UserError where the files have another checksum than the official one, or than `sha256` (None: that
    of the files as they are).
    """
    return read_digits(dataset) if dataset.name == "digits" else read_official(dataset, data_dir, sha256)


def read_digits(dataset: "ImageSet") -> dict[str, Part]:
    """scikit-learn's 1,797 handwritten digits; every fifth one is for the test.

    Grey values 0..16 become 0..240.
    """
    (packed,) = hashed(dataset, Path())  # read here: importing scikit-learn takes half a second
    text = io.BytesIO(gzip.decompress(packed))
    table = np.loadtxt(text, delimiter=",", dtype=np.int64)  # 64 grey values and a label in each row
    images, labels = (table[:, :64] * 15).astype(np.uint8).reshape(-1, 1, 8, 8), table[:, 64]
    test = np.arange(len(labels)) % 5 == 4
    return {"train": (images[~test], labels[~test]), "test": (images[test], labels[test])}


def read_official(dataset: "ImageSet", data_dir: Path, sha256: str | None) -> dict[str, Part]:
    """MNIST, FashionMNIST, CIFAR-10 or CIFAR-100, decoded from the very bytes that have its checksum.

    Raises UserError where the files have another, or are none of the data set's.
    """
    contents = hashed(dataset, data_dir, sha256=sha256)
    decode = decoding.cifar if dataset.torchvision_class.startswith("CIFAR") else decoding.mnist
    try:
        return decode(contents)
    except (ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"dataset={dataset.name!r}: a file in {data_dir} is none of it ({error})") from error


def hashed(dataset: "ImageSet", data_dir: Path, *, sha256: str | None = None) -> list[bytes]:
    """The content of each file. Raises UserError where together they do not have the checksum."""
    files, expected = paths(dataset, data_dir), dataset.sha256 or sha256 or checksum(dataset, data_dir)
    if not all(path.is_file() for path in files):
        raise UserError(missing_files(dataset, data_dir))
    contents = [path.read_bytes() for path in files]
    if digest_of(files, contents) != expected:
        raise UserError(
            not_official(dataset, files) if dataset.sha256
            else f"dataset={dataset.name!r}: the files in {files[0].parent} have changed since the plan was "
            "made; run the sweep again"
        )  # fmt: skip
    return contents


def not_official(dataset: "ImageSet", files: Sequence[Path]) -> str:
    """The sentence for files that have another checksum than the official ones."""
    return f"dataset={dataset.name!r}: the files in {files[0].parent} are not the official ones; delete them"


def digest_of(files: Sequence[Path], contents: Iterable[bytes]) -> str:
    """SHA-256 over the names, each with that of its folder, the sizes and the contents of files."""
    digest = hashlib.sha256()
    for path, content in zip(files, contents, strict=True):
        digest.update(f"{path.parent.name}/{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
