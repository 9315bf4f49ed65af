"""What the vision transformers from vit-pytorch look at: maps of their blocks, rolled out to the image.

The maps are the softmax's, rows that sum to one. DeepViT goes on to mix them over the heads and to normalise
them there ("re-attention"); what comes out is negative in places and, over the heads, has a mean that says
nothing: with the weights that training begins with it is zero everywhere. So its maps too are taken before.

Shapes: b examples, h heads, n tokens: the class token, then the patches, row by row.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.tasks.images.models.vit_pytorch_private import softmax_outputs
from attnsweep.tasks.images.space import CONVOLUTIONAL, feature_side


@contextmanager
def patch_maps(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A dictionary that holds, after a forward pass, the weights (b, h, n, n) of every block of a ViT,
    DeepViT or hybrid, by the name of its attention there, the first block first.

    Raises TypeError and UserError as `softmax_outputs` does.
    """
    maps: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor]) -> None:
            maps[name] = args[0]

        return hook

    with ExitStack() as hooks:
        for name, module in softmax_outputs(model).items():
            hooks.enter_context(module.register_forward_pre_hook(record(name)))
        yield maps


def rollout(maps: Iterable[Float[Tensor, "b h n n"]]) -> Float[Tensor, "b n n"]:
    """Attention rollout: how much of each input token is in each token after the last block, going by the
    weights of every block, the first block first. Rows sum to one.

    Abnar & Zuidema 2020 (https://arxiv.org/abs/2005.00928), section 3: the heads' mean, half of it and half
    the token itself for the residual connection, multiplied over the blocks. What a block's values and
    feed-forward network do to a token is left out.
    """
    return functools.reduce(lambda earlier, block: block @ earlier, map(with_residual, maps))


def with_residual(weights: Float[Tensor, "b h n n"]) -> Float[Tensor, "b n n"]:
    """The mean over heads, with the identity added and the rows made to sum to one again."""
    mixed = weights.mean(dim=1) + torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    return mixed / mixed.sum(dim=-1, keepdim=True)


def over_patches(tokens: Float[Tensor, "b n n"]) -> Float[Tensor, "b rows columns"]:
    """The class token's row without the class token itself, as a map over the image."""
    patches = tokens[:, 0, 1:]
    return rearrange(patches, "b (r c) -> b r c", r=math.isqrt(patches.shape[1]))


@dataclass(frozen=True)
class Tiling:
    """Where the patches of a model lie in its image, in pixels: `count` along each side, the first from
    `start` on, one every `step`. A patch sees `margin` pixels more on each side of its `step` x `step`.
    """

    start: int
    step: int
    count: int
    margin: int

    @property
    def end(self) -> int:
        """Where the last patch ends."""
        return self.start + self.step * self.count


def tiling(config: Mapping[str, Any]) -> Tiling:
    """That of a ViT, DeepViT or hybrid.

    The hybrid's patches are of a feature map, pixel i of which sees the pixels 2 i to 2 i + 5 of the image:
    two 3x3 convolutions and a pooling. So those of neighbours overlap by four, two on each side.
    """
    patch, count = config["patch_size"], feature_side(config) // config["patch_size"]
    if config["model"] in CONVOLUTIONAL:
        return Tiling(start=2, step=2 * patch, count=count, margin=2)
    return Tiling(start=0, step=patch, count=count, margin=0)
