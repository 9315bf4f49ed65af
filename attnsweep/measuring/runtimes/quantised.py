"""int8 by ONNX Runtime's static quantisation: weights per channel, activations by what calibration shows."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnsweep.core.runtimes import Unavailable
from attnsweep.measuring.runtimes.graph import exported
from attnsweep.measuring.runtimes.onnx_sessions import opened
from attnsweep.measuring.runtimes.quiet import quietly

CALIBRATION = 256  # training images; more of them change no scale by much
JUDGE_BATCH = 100


def quantised(model: nn.Module, inputs: tuple[Tensor, ...], calibration: Tensor | None = None) -> bytes:
    """The graph of a model in int8 for inputs of these shapes: weights quantised per channel, activations by
    their ranges on `calibration` (n, c, s, s), normalised images; None: on `inputs`.

    Raises Unavailable for a model of several inputs, and whatever exporter and ONNX Runtime raise.
    """
    if len(inputs) != 1:
        raise Unavailable("precision='int8' is for models of one input")
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    (example,) = inputs
    images = example if calibration is None else calibration
    graph = exported(model, inputs, names=["images"])
    with tempfile.TemporaryDirectory() as folder, quietly():
        place = Path(folder) / "int8.onnx"
        quantize_static(
            graph,
            place,
            Calibration(batched(images, len(example))),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return place.read_bytes()


class Calibration:
    """What quantisation reads: batch after batch of images, None at the end."""

    def __init__(self, batches: Iterator[Tensor]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch by the name of its input."""
        images = next(self.batches, None)
        return None if images is None else {"images": images.detach().cpu().numpy()}


def batched(images: Tensor, size: int) -> Iterator[Tensor]:
    """Images in batches of exactly `size`: the last one is filled up with its own images, over and over."""
    for batch in images.split(size):
        yield batch[torch.arange(size) % len(batch)]


def calibration_images(data: Any) -> Tensor:
    """The normalised images (n, c, s, s) of the training part that calibrate, evenly spread over it, of a
    task's data.
    """
    from attnsweep.tasks.images.training import inputs

    chosen = torch.linspace(0, len(data.train) - 1, min(CALIBRATION, len(data.train))).long()
    return inputs(data, data.train.images[chosen])


def accuracy(model: nn.Module, data: Any, *, threads: int) -> dict[str, float]:
    """`val_acc` and `test_acc` (0..1) of an image model in int8, judged through ONNX Runtime alone.

    `model` has the weights of the trial's selected epoch and is in evaluation mode, `data` is what its task
    loads for it; both lie on the CPU. Raises as `quantised` does.
    """
    from attnsweep.tasks.images.training import inputs

    images = calibration_images(data)
    example = images[:1].expand(JUDGE_BATCH, -1, -1, -1).contiguous()
    ready = opened(quantised(model, (example,), images), device="cpu", threads=threads)

    def classes(pixels: Tensor) -> Tensor:
        (logits,) = ready.run(None, {"images": inputs(data, pixels).numpy()})
        return torch.from_numpy(logits).argmax(dim=1)

    return {f"{part}_acc": share_right(classes, getattr(data, part)) for part in ("val", "test")}


def share_right(classes: Callable[[Tensor], Tensor], split: Any) -> float:
    """The share of a split's images that are given their class, in batches of one size."""
    found = torch.cat([classes(batch) for batch in batched(split.images, JUDGE_BATCH)])[: len(split)]
    return float((found == split.labels).double().mean())
