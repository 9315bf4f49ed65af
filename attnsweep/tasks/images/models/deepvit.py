"""DeepViT (https://arxiv.org/abs/2103.11886), a ViT whose heads exchange their attention maps, from vit-
pytorch.
"""

from collections.abc import Mapping
from typing import Any

from vit_pytorch.deepvit import DeepViT

from attnsweep.tasks.images.models.drop_path import with_drop_path
from attnsweep.tasks.images.models.vit import sizes


def deepvit(config: Mapping[str, Any]) -> DeepViT:
    """Images (b, c, s, s) to logits (b, num_classes), read off the class token."""
    return with_drop_path(DeepViT(**sizes(config, channels=config["channels"])), config["drop_path"])
