"""The hybrid: the convolutions of the CNN, then a vision transformer on patches of their feature map."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from vit_pytorch.vit import ViT

from attnsweep.tasks.images.models.cnn import convolutions
from attnsweep.tasks.images.models.drop_path import with_drop_path
from attnsweep.tasks.images.models.vit import sizes, with_kernel


def hybrid(config: Mapping[str, Any]) -> nn.Sequential:
    """Images (b, c, s, s) to logits (b, num_classes) by way of a feature map (b, 64, (s-4)//2, (s-4)//2)."""
    tokens = with_kernel(ViT(**sizes(config, channels=64)), config["attention"])
    return nn.Sequential(convolutions(config["channels"]), with_drop_path(tokens, config["drop_path"]))
