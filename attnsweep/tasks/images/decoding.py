"""The files of MNIST, FashionMNIST and CIFAR decoded from bytes, so that what is decoded is what was hashed.

torchvision opens the files again, and loads CIFAR's by pickle, which runs whatever code a file names. Here a
pickle gets arrays and plain values, and nothing else.
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

Part = tuple[np.ndarray, np.ndarray]
UINT8 = 8  # the code of its type in the IDX format
RECONSTRUCT = np.zeros(0).__reduce__()[0]  # what makes an array from a pickle, wherever this NumPy has it
KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def idx(content: bytes) -> np.ndarray:
    """The array of uint8 in a file of the IDX format (yann.lecun.com/exdb/mnist): two zeros, the type, the
    number of dimensions, each size as a big-endian uint32, then the values. Raises ValueError.
    """
    zeros, kind, dimensions = content[:2], *content[2:4]
    if zeros != b"\0\0" or kind != UINT8:
        raise ValueError("it does not begin as a file of the IDX format with values of one byte")
    start = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:start], ">u4").astype(np.int64)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def mnist(files: Sequence[bytes]) -> dict[str, Part]:
    """The parts of a data set in MNIST's layout, from its four files: images of the training part and its
    labels, then those of the test part. Images (n, 1, 28, 28) of uint8, labels (n,) of int64.
    """
    images, labels, test_images, test_labels = map(idx, files)
    return {"train": labelled(images[:, None], labels), "test": labelled(test_images[:, None], test_labels)}


def cifar(files: Sequence[bytes]) -> dict[str, Part]:
    """CIFAR's parts from its files, the test last: images (n, 3, 32, 32) of uint8, labels (n,) of int64."""
    *train, test = map(cifar_batch, files)
    images, labels = zip(*train, strict=True)
    return {"train": (np.concatenate(images), np.concatenate(labels)), "test": test}


def cifar_batch(content: bytes) -> Part:
    """The images and labels of one of CIFAR's files."""
    batch = PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    labels = batch["labels"] if "labels" in batch else batch["fine_labels"]
    return labelled(batch["data"].reshape(-1, 3, 32, 32), labels)


def labelled(images: np.ndarray, labels: Any) -> Part:
    """Images with their labels. Raises ValueError where they are not as many."""
    labels = np.asarray(labels, np.int64)
    if images.dtype != np.uint8 or len(images) != len(labels):
        raise ValueError(f"it has {len(images)} images of {images.dtype} and {len(labels)} labels")
    return np.ascontiguousarray(images), labels


class PlainUnpickler(pickle.Unpickler):
    """Loads arrays and plain values; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no file of CIFAR does")
        return KNOWN[module, name]
