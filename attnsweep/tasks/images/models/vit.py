"""The vision transformer (https://arxiv.org/abs/2010.11929), from vit-pytorch."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from vit_pytorch.vit import Attention, ViT

from attnsweep.tasks.images.space import feature_side


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


class FusedAttention(Attention):
    """vit-pytorch's attention with product, softmax, dropout and sum in one kernel; its parameters are the
    same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (b, n, d) to tokens (b, n, d)."""
        qkv = self.to_qkv(self.norm(x))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p if self.training else 0.0)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


def with_kernel(model: ViT, attention: str) -> ViT:
    """The model with the kernel `explicit` or `fused` in every block."""
    if attention == "fused":
        for block, _ in model.transformer.layers:
            block.__class__ = FusedAttention
    return model


def vit(config: Mapping[str, Any]) -> ViT:
    """Images (b, c, s, s) to logits (b, num_classes), read off the class token."""
    return with_kernel(ViT(**sizes(config, channels=config["channels"])), config["attention"])
