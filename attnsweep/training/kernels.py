"""Layers that compute what torch's own do, and take less time to train on a CPU.

`quicken` makes a model's layers such ones: its linear maps by oneDNN where MKL falls behind, its dropout from
16-bit draws, its max-pooling with gradients in the layout of its inputs. Parameters, their names and the
function stay as they are; a trial's numbers differ from those of torch's layers by rounding, and by which
units are dropped. Latency is measured without it: it is to be that of the model as its user will run it.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from attnsweep.results import provenance

LEAST_WORK = 2_000_000  # multiply-accumulates of a product: below, calling oneDNN costs more than it spares
LEVELS, DRAWS = 1 << 16, 4  # of a draw for dropout; how many of them a 64-bit integer holds


def quicken(model: nn.Module) -> nn.Module:
    """The model itself, whose layers of exactly torch's classes compute in these ways from now on."""
    for module in model.modules():
        module.__class__ = QUICK.get(type(module), type(module))
    return model


@functools.cache
def mkl_falls_behind() -> bool:
    """Whether torch multiplies float32 by MKL on another maker's CPU with AVX-512, which MKL leaves unused:
    on an AMD EPYC a core does 110 GFLOP/s by MKL 2024.2, 240 by oneDNN 3.12 (torch 2.14).
    """
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return both and wide and "Intel" not in provenance.cpu_name()


def one_dnn(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`inputs @ weight.T + bias` of float32 by oneDNN; torch has no public name for it. Only `inputs` is
    copied where it is not contiguous.
    """
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return product


class LinearMap(torch.autograd.Function):
    """`inputs` (..., n) @ `weight` (m, n).T + `bias` (m) or None, by oneDNN forwards and backwards."""

    generate_vmap_rule = True  # for a user's model that maps over its layers

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return one_dnn(inputs, weight, bias)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        rows, weight, _ = inputs
        ctx.save_for_backward(rows, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        # a gradient that will be differentiated itself needs products that torch can differentiate
        product = nn.functional.linear if torch.is_grad_enabled() else one_dnn
        grads, rows = grad.flatten(0, -2), inputs.flatten(0, -2)
        return (
            product(grad, weight.t()) if of_inputs else None,
            product_over_rows(product, grads, rows) if of_weight else None,
            grads.sum(0) if of_bias else None,
        )


def product_over_rows(product: Any, one: Tensor, other: Tensor) -> Tensor:
    """`one.T @ other` of matrices of as many rows; copies the narrower of the two."""
    if one.shape[1] <= other.shape[1]:
        return product(one.t(), other.t())
    return product(other.t(), one.t()).t()


class Linear(nn.Linear):
    """By oneDNN where that is faster."""

    def forward(self, input: Tensor) -> Tensor:
        plain = input.dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        large = input.dim() > 1 and input.numel() * self.out_features >= LEAST_WORK
        if plain and large and input.device.type == "cpu" and mkl_falls_behind():
            return LinearMap.apply(input, self.weight, self.bias)
        return super().forward(input)


class Dropout(nn.Dropout):
    """From a quarter of the random bits that torch draws, and in fewer passes."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and 0 < self.p < 1 and not self.inplace and input.device.type == "cpu":
            return input * dropout_mask(input, self.p)
        return super().forward(input)


def dropout_mask(like: Tensor, p: float) -> Tensor:
    """Zeros with probability `p`, to the nearest 1 / 65,536, else the inverse of the share that is kept;
    shape, type and layout of `like`. Draws from torch's generator.
    """
    n, dropped = like.numel(), min(round(p * LEVELS), LEVELS - 1)
    words = torch.empty(-(-n // DRAWS), dtype=torch.int64).random_(-(2**63), None)
    mask = torch.empty_like(like)  # dense, in whatever layout: filled as it lies in memory
    lowest = torch.iinfo(torch.int16).min
    torch.ge(words.view(torch.int16)[:n], lowest + dropped, out=mask.as_strided((n,), (1,)))
    return mask.mul_(LEVELS / (LEVELS - dropped))


class MaxPool2d(nn.MaxPool2d):
    """Gives its backward a gradient in channels-last where its output is: in the other layout that takes
    ten times as long.
    """

    def forward(self, input: Tensor) -> Tensor:
        pooled: Tensor = super().forward(input)
        if pooled.requires_grad and pooled.is_contiguous(memory_format=torch.channels_last):
            pooled.register_hook(channels_last)
        return pooled


def channels_last(grad: Tensor) -> Tensor:
    return grad.contiguous(memory_format=torch.channels_last)


QUICK: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: Linear,
    nn.Dropout: Dropout,
    nn.MaxPool2d: MaxPool2d,
}
