"""The vision transformer (https://arxiv.org/abs/2010.11929), from vit-pytorch."""

from collections.abc import Mapping
from typing import Any

from vit_pytorch.vit import ViT

from attnsweep.tasks.images.models.drop_path import with_drop_path
from attnsweep.tasks.images.models.vit_pytorch_private import fuse_attention
from attnsweep.tasks.images.models.vit_variants import varied
from attnsweep.tasks.images.space import feature_side, is_varied


def sizes(config: Mapping[str, Any], *, channels: int) -> dict[str, Any]:
    """The keyword arguments of vit-pytorch's constructors for a model on `channels` channels.

    In the geometry `published` the area is passed as the side: the position table is longer, and the patches
    that the forward pass cuts, of which it takes as many as the image has, are the same.
    """
    side = feature_side(config)
    return dict(
        image_size=side * side if config["geometry"] == "published" else side,
        channels=channels,
        **{
            key: config[key]
            for key in ("patch_size", "num_classes", "dim", "depth", "heads", "mlp_dim", "dim_head")
        },
        dropout=config["dropout"],
        emb_dropout=config["emb_dropout"],
    )


def with_kernel(model: ViT, attention: str) -> ViT:
    """The model with the kernel `explicit` or `fused` in every block."""
    if attention == "fused":
        fuse_attention(model)
    return model


def vit(config: Mapping[str, Any]) -> ViT:
    """Images (b, c, s, s) to logits (b, num_classes), read off the class token."""
    model = ViT(**sizes(config, channels=config["channels"]))
    model = varied(model, config) if is_varied(config) else with_kernel(model, config["attention"])
    return with_drop_path(model, config["drop_path"])
