"""The convolutional network of the PyTorch MNIST sample (github.com/pytorch/examples, mnist/main.py), and the
same at other widths, with or without global pooling.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from attnsweep.tasks.images.space import CNN_DIM, feature_side

POOLINGS = {"mean": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}


def convolutions(channels: int, dim: int = CNN_DIM) -> nn.Sequential:
    """Images (b, channels, s, s) to a feature map (b, dim // 2, (s-4)//2, (s-4)//2)."""
    return nn.Sequential(
        nn.Conv2d(channels, dim // 4, kernel_size=3), nn.ReLU(),
        nn.Conv2d(dim // 4, dim // 2, kernel_size=3),
        nn.MaxPool2d(2), nn.ReLU(),  # in the sample the other way round: equal, with four times the ReLUs
    )  # fmt: skip


def cnn(config: Mapping[str, Any]) -> nn.Sequential:
    """Images (b, c, s, s) to logits (b, num_classes). The sample's dropout rates are part of the model.

    `dim` is the width of the hidden layer, to which the convolutions go by way of a quarter and a half of it;
    `pooling` says whether that layer reads the whole feature map or each channel's mean or maximum.
    """
    dim, pooling = config["dim"] or CNN_DIM, POOLINGS.get(config["pooling"])
    places = 1 if pooling else feature_side(config) ** 2
    return nn.Sequential(
        convolutions(config["channels"], dim),
        nn.Dropout(0.25),
        *([pooling(1)] if pooling else []),
        nn.Flatten(),
        nn.Linear(dim // 2 * places, dim),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(dim, config["num_classes"]),
    )
