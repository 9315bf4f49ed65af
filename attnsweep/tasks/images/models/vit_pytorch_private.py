"""What this package relies on inside the models of vit-pytorch, which promises no more than their
constructors; tested with vit-pytorch 1.26. The mechanisms of the zoo mend parts of theirs with `replace`.

Where a part is gone, a ViT computes its attention explicitly, attention maps are refused, and so is a
mechanism of the zoo that needs it.
"""

from typing import Any

import torch.nn.functional as F
import vit_pytorch.deepvit as deepvit  # so, and not from the package: it would be executed as a whole
import vit_pytorch.vit as vit
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.core.errors import UserError

CHANGED = "vit-pytorch's {kind} has no {name} any more; install vit-pytorch<1.27"


def replace(module: Any, name: str, new: Any) -> None:
    """Sets an attribute of a model, in place of what it has there.

    Raises UserError where it has none: the new one would have no effect.
    """
    if not hasattr(module, name):
        raise UserError(f"{CHANGED.format(kind=type(module).__name__, name=name)}, or leave the model out")
    setattr(module, name, new)


def residual_branches(model: nn.Module) -> list[list[nn.Module]]:
    """For each block of a transformer the modules whose outputs are added to their inputs.

    Relies on `transformer.layers` being pairs of such modules. Raises UserError where there is none.
    """
    layers = getattr(getattr(model, "transformer", None), "layers", None)
    if layers is None:
        raise UserError(CHANGED.format(kind=type(model).__name__, name="transformer.layers"))
    return [[*pair] for pair in layers]


class FusedAttention(vit.Attention):
    """vit-pytorch's attention, with the same parameters, from product to sum in one kernel."""

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        qkv = self.to_qkv(self.norm(x))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p if self.training else 0.0)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


def fuse_attention(model: vit.ViT) -> None:
    """Has every block of a ViT compute its attention by `FusedAttention`.

    Relies on `transformer.layers` being pairs of an attention and a feed-forward network, and on the parts of
    an attention. Without them the model stays as it is, which computes the same.
    """
    names = ("to_qkv", "norm", "heads", "dropout", "to_out")
    pairs = getattr(getattr(model, "transformer", None), "layers", ())
    for attention, *_ in pairs:
        if type(attention) is vit.Attention and all(hasattr(attention, name) for name in names):
            attention.__class__ = FusedAttention


def softmax_outputs(model: nn.Module) -> dict[str, nn.Module]:
    """For each attention of a ViT, DeepViT or hybrid, by its name, the first block first, the module whose
    input is the weights (b, h, n, n) that its softmax gives.

    Relies on their dropout coming after the softmax. Raises TypeError for the fused kernel, which never holds
    weights, UserError where an attention has no such part.
    """
    kinds = (vit.Attention, deepvit.Attention)
    found = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    if any(isinstance(module, FusedAttention) for module in found.values()):
        raise TypeError("the fused kernel holds no weights; build the model with attention='explicit'")
    for module in found.values():
        if not isinstance(getattr(module, "dropout", None), nn.Module):
            raise UserError(CHANGED.format(kind=type(module).__name__, name="dropout"))
    return {name: module.dropout for name, module in found.items()}
