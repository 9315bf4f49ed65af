"""Stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382): in training, residual branches are
left out, per image.
"""

from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.tasks.images.models.vit_pytorch_private import residual_branches

Model = TypeVar("Model", bound=nn.Module)


def with_drop_path(model: Model, rate: float | None) -> Model:
    """The model, whose residual branches are left out in training: at `rate` in the last block, and evenly
    less towards the first, where none is. Its parameters and their names stay.
    """
    if rate:
        blocks = residual_branches(model)
        for branches, of_block in zip(blocks, rates(rate, len(blocks)), strict=True):
            for branch in branches:
                branch.register_forward_hook(DropPath(of_block))
    return model


def rates(last: float, depth: int) -> list[float]:
    """The rate of each block, as CCT and DeiT have them; of a single one 0, like that of any first."""
    return [last * block / max(depth - 1, 1) for block in range(depth)]


class DropPath:
    """A forward hook that replaces a branch's output by zero for some images of a batch, and scales the
    others so that the expectation stays. Draws from torch's global generator, as dropout does.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, branch: nn.Module, inputs: Any, output: Float[Tensor, "b n d"]) -> Tensor | None:
        """The output to take instead; None: as it is."""
        if not (branch.training and self.rate):
            return None
        return output * keeps(output, self.rate)


def keeps(like: Float[Tensor, "b n d"], rate: float) -> Float[Tensor, "b 1 1"]:
    """For each image of a batch 0 with probability `rate`, else the inverse of the share that is kept."""
    kept = torch.empty(len(like), *[1] * (like.dim() - 1), dtype=like.dtype, device=like.device)
    return kept.bernoulli_(1 - rate).div_(1 - rate)
