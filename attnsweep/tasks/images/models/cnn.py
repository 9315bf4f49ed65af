"""The convolutional network of the PyTorch MNIST sample (github.com/pytorch/examples, mnist/main.py)."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from attnsweep.tasks.images.space import feature_side


def convolutions(channels: int) -> nn.Sequential:
    """Images (b, channels, s, s) to a feature map (b, 64, (s-4)//2, (s-4)//2)."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, kernel_size=3), nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3),
        nn.MaxPool2d(2), nn.ReLU(),  # in the sample the other way round: equal, with four times the ReLUs
    )  # fmt: skip


def cnn(config: Mapping[str, Any]) -> nn.Sequential:
    """Images (b, c, s, s) to logits (b, num_classes). The sample's dropout rates are part of the model."""
    return nn.Sequential(
        convolutions(config["channels"]),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * feature_side(config) ** 2, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, config["num_classes"]),
    )
