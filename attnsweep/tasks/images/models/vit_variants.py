"""A ViT of vit-pytorch whose blocks are made of our own pieces, for what its own have not: other kinds of
attention, shared keys, other norms, positions and feed-forward layers.
"""

import functools
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from vit_pytorch.vit import ViT

from attnsweep.nn.attention import MultiHeadAttention
from attnsweep.nn.blocks import FeedForward, norm_of
from attnsweep.nn.design import variant_of
from attnsweep.nn.positions import sinusoids
from attnsweep.tasks.images.models.vit_pytorch_private import replace


class Branch(nn.Module):
    """A sub-layer behind its norm: Dropout(Sublayer(Norm(x))), to which the ViT adds x."""

    def __init__(self, sublayer: nn.Module, dim: int, *, norm: str, dropout: float) -> None:
        super().__init__()
        self.norm, self.sublayer, self.dropout = norm_of(dim, norm), sublayer, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.sublayer(self.norm(x)))
        return out


def varied(model: ViT, config: Mapping[str, Any]) -> ViT:
    """The model with other blocks and positions, as the configuration says. Raises UserError as `replace`."""
    dim, norm = config["dim"], config["norm"] or "pre"
    layers = nn.ModuleList(nn.ModuleList(branches(config, norm, i + 1)) for i in range(config["depth"]))
    replace(model.transformer, "layers", layers)
    replace(model.transformer, "norm", norm_of(dim, norm))
    if config["positions"] is not None:  # they are added to the patches, and to the class token, the first
        table = sinusoids(len(model.pos_embedding), dim)
        delattr(model, "pos_embedding")
        table = table if config["positions"] == "sinusoidal" else table * 0
        model.register_buffer("pos_embedding", table, persistent=False)
    return model


def branches(config: Mapping[str, Any], norm: str, block: int) -> tuple[Branch, Branch]:
    """The attention and the feed-forward network of a block, counted from 1."""
    dim, dropout, kind = config["dim"], config["dropout"], config["attention"]
    attention = MultiHeadAttention(
        dim, heads=config["heads"], dim_head=config["dim_head"], attention=kind,
        dropout=0.0 if kind == "linear" else dropout,  # which has no weights
        variant=variant_of(config), block=block,
    )  # fmt: skip
    further = FeedForward(dim, config["mlp_dim"], kind=config["mlp"] or "gelu")
    around = functools.partial(Branch, dim=dim, norm=norm, dropout=dropout)
    return around(attention), around(further)
