"""Image classification: data, loss and judgement.

A data set is read once per worker process and stays whole on the device as uint8; a batch is a gather and a
normalisation.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnsweep import datasets

VALIDATION_SEED = 0  # the same split for every trial, whatever its own seed
VALIDATION_SHARE = 0.1  # of the training part
JUDGE_BATCH = 1_000


@dataclass(frozen=True)
class Split:
    """Images (n, channels, side, side) of uint8 and labels (n,) of int64, on the device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """The three splits, and the factor and offset (1, channels, 1, 1) that normalise their pixels."""

    train: Split
    val: Split
    test: Split
    factor: Tensor
    offset: Tensor


@functools.lru_cache(maxsize=4)
def load(dataset_name: str, image_size: int, data_dir: str, device: str) -> Data:
    """The data set on the device, read on the first call in a process.

    Raises UserError where its files are missing.
    """
    dataset = datasets.find(dataset_name)
    datasets.ensure(dataset, Path(data_dir))
    parts = datasets.read(dataset, Path(data_dir), image_size)
    pixels, labels = parts["train"]
    order = np.random.RandomState(VALIDATION_SEED).permutation(len(labels))
    held_out = round(VALIDATION_SHARE * len(labels))
    val, train = order[:held_out], np.sort(order[held_out:])
    mean, std = statistics(dataset, pixels[train])

    def split(images: np.ndarray, labels: np.ndarray) -> Split:
        return Split(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))

    return Data(
        train=split(pixels[train], labels[train]),
        val=split(pixels[val], labels[val]),
        test=split(*parts["test"]),
        factor=(1 / (255 * std)).view(1, -1, 1, 1).to(device),
        offset=(-mean / std).view(1, -1, 1, 1).to(device),
    )


def statistics(dataset: datasets.ImageSet, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of pixels in 0..1: the data set's published ones, else those of
    `images`.
    """
    if dataset.mean is not None and dataset.std is not None:
        return torch.tensor(dataset.mean), torch.tensor(dataset.std)
    mean = images.mean(axis=(0, 2, 3), dtype=np.float64) / 255
    std = images.std(axis=(0, 2, 3), dtype=np.float64) / 255
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32).clamp_min(1e-3)


def load_for(config: Mapping[str, Any], data_dir: str, device: str) -> Data:
    """The data of one trial."""
    return load(config["dataset"], config["image_size"], data_dir, device)


def inputs(data: Data, images: Tensor) -> Tensor:
    """Normalised float32 images (b, c, s, s) of uint8 ones."""
    return torch.addcmul(data.offset, images.float(), data.factor)


def batches(data: Data, batch_size: int, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of normalised images and labels, in an order drawn from `order`; the last batch may be
    smaller.
    """
    index = torch.randperm(len(data.train), generator=order).to(data.train.labels.device)
    for chosen in index.split(batch_size):
        yield inputs(data, data.train.images[chosen]), data.train.labels[chosen]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy, a scalar in nats."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def judge(model: nn.Module, data: Data) -> dict[str, float]:
    """Accuracy (0..1) and mean cross-entropy (nats) of a model in evaluation mode, on validation and test."""
    val, test = judge_split(model, data, data.val), judge_split(model, data, data.test)
    return {"val_acc": val[0], "val_loss": val[1], "test_acc": test[0]}


def judge_split(model: nn.Module, data: Data, split: Split) -> tuple[float, float]:
    """Accuracy and mean cross-entropy on one split."""
    correct, total = torch.zeros(2, dtype=torch.float64, device=split.labels.device)
    for images, labels in zip(split.images.split(JUDGE_BATCH), split.labels.split(JUDGE_BATCH), strict=True):
        logits = model(inputs(data, images)).float()
        correct += (logits.argmax(dim=1) == labels).sum()
        total += F.cross_entropy(logits, labels, reduction="sum")
    return correct.item() / len(split), total.item() / len(split)
