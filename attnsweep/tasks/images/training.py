"""Image classification: data, loss and judgement.

Images are uint8: on a GPU they lie there whole, on a CPU they are mapped from the disk, one copy for all
workers. A batch is a gather and a normalisation.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from attnsweep.core.bits import packed
from attnsweep.tasks.images import augment, datasets, tuning, weights
from attnsweep.tasks.images.building import example as example
from attnsweep.tasks.images.cache import Range
from attnsweep.tasks.images.judging import Answers, in_top
from attnsweep.tasks.images.schedule import learning_rate as learning_rate

JUDGE_BATCH = 1_000
examine: Callable[..., dict[str, Any]] | None = None  # the test is judged with each epoch, for test_acc_best
tune = tuning.tune
ADAM: Mapping[str, Any] = {}  # torch's defaults
# normalised images and their labels, or where images are mixed the share of each class
Batch = tuple[Float[Tensor, "b c s s"], Int64[Tensor, " b"] | Float[Tensor, "b classes"]]


@dataclass(frozen=True)
class Split:
    """Images and their labels, on the device."""

    images: UInt8[Tensor, "n c s s"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """The three splits, and the factor and offset that normalise their pixels, 0 to 255."""

    train: Split
    val: Split
    test: Split
    factor: Float[Tensor, "1 c 1 1"]
    offset: Float[Tensor, "1 c 1 1"]

    @property
    def train_size(self) -> int:
        return len(self.train)


@functools.lru_cache(maxsize=4)
def load(
    dataset: str, image_size: int, data_dir: str, device: str, *,
    sha256: str | None = None, skip_unreadable: bool = False,
) -> Data:  # fmt: skip
    """The data set of that name on the device; its files are read on the first call in a process that names
    their checksum (None: whatever is there).

    Raises UserError where files are missing, cannot be read, or have another checksum.
    """
    pixels = datasets.pixels(
        dataset, image_size, Path(data_dir), sha256=sha256, skip_unreadable=skip_unreadable
    )
    known = datasets.DATASETS.get(dataset)  # whose published statistics go before
    mean, std = range_of((known and known.mean) or pixels.mean, (known and known.std) or pixels.std)
    factor, offset = normalisation(mean, std)
    return Data(
        **{part: split(pixels.parts[part], device) for part in ("train", "val", "test")},
        factor=factor.to(device),
        offset=offset.to(device),
    )


def split(part: tuple[np.ndarray, np.ndarray], device: str) -> Split:
    """numpy's images and labels as tensors on the device; what is mapped from a file stays so on a CPU."""
    images, labels = part
    with warnings.catch_warnings(action="ignore"):  # that what is mapped cannot be written: nobody does
        pixels = torch.from_numpy(images)
    return Split(pixels.to(device), torch.tensor(labels, device=device))


def statistics(images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of images (n, c, h, w) of uint8, as pixels in 0..1."""
    counted = Range(images.shape[1])
    for image in images:
        counted.add(image)
    return range_of(*counted.statistics())


def range_of(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, the latter bounded below for channels of a single value."""
    return torch.tensor(mean), torch.tensor(std).clamp_min(1e-3)


def normalisation(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """The factor and offset (1, channels, 1, 1) of pixels in 0..255, from statistics in 0..1."""
    return (1 / (255 * std)).view(1, -1, 1, 1), (-mean / std).view(1, -1, 1, 1)


def load_for(config: Mapping[str, Any], data_dir: str, device: str, *, sha256: str | None = None) -> Data:
    """The data of one trial, normalised as its recipe says; see `load`."""
    data = load(
        config["dataset"],
        config["image_size"],
        data_dir,
        device,
        sha256=sha256,
        skip_unreadable=config["unreadable"] == "skip",
    )
    known = weights.NORMALISED.get(config["normalise"])
    return renormalised(data, *known) if known else data


def renormalised(data: Data, mean: Sequence[float], std: Sequence[float]) -> Data:
    """The same data with another mean and deviation per channel; grey images take that of all colours."""
    channels = data.factor.shape[1]
    both = (torch.tensor(one if channels == len(one) else [sum(one) / len(one)]) for one in (mean, std))
    factor, offset = normalisation(*both)
    return replace(data, factor=factor.to(data.factor), offset=offset.to(data.offset))


def inputs(data: Data, images: UInt8[Tensor, "b c s s"]) -> Float[Tensor, "b c s s"]:
    """Normalised float32 images."""
    return torch.addcmul(data.offset, images.float(), data.factor)


def batches(data: Data, config: Mapping[str, Any], *, epoch: int, order: torch.Generator) -> Iterator[Batch]:
    """An epoch of normalised images and labels, augmented and mixed by the recipe, shuffled by `order`."""
    index = torch.randperm(len(data.train), generator=order, device="cpu").to(data.train.labels.device)
    for chosen in index.split(config["batch_size"]):
        pixels = augment.augmented(data.train.images[chosen], config, order)
        images = augment.erased(inputs(data, pixels), config, order)
        yield augment.mixed(images, data.train.labels[chosen], config, order)


def loss(model: nn.Module, batch: Batch, config: Mapping[str, Any]) -> Float[Tensor, ""]:
    """Mean cross-entropy, a scalar in nats, to the labels after smoothing."""
    images, labels = batch
    return F.cross_entropy(model(images), labels, label_smoothing=config.get("label_smoothing") or 0.0)


def judge(model: nn.Module, data: Data, config: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy, balanced accuracy, macro F1 and top-5 accuracy (0..1) of a model in evaluation mode, on
    validation and test; its mean cross-entropy (nats) on validation, and which test images it gets right.
    """
    val, test = answers(model, data, data.val), answers(model, data, data.test)
    right = {"test_examples": len(data.test), "test_right": packed(test.hits.cpu().numpy())}
    return {**val.measures("val"), "val_loss": val.loss, **test.measures("test"), **right}


def answers(model: nn.Module, data: Data, split: Split) -> Answers:
    """A model's predictions for the images of a split."""
    total, given, top = torch.zeros((), dtype=torch.float64, device=split.labels.device), [], []
    for images, labels in zip(split.images.split(JUDGE_BATCH), split.labels.split(JUDGE_BATCH), strict=True):
        logits = model(inputs(data, images)).float()
        given.append(logits.argmax(dim=1))
        top.append(in_top(logits, labels))
        total += F.cross_entropy(logits, labels, reduction="sum")
    known = [some for some in top if some is not None]
    tops = torch.cat(known) if known else None
    return Answers(total.item() / len(split), torch.cat(given), split.labels, tops)


def answer(model: nn.Module, inputs: tuple[Tensor, ...], config: Mapping[str, Any]) -> Callable[[], object]:
    return functools.partial(model, *inputs)
