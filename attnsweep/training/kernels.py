"""Faster forward passes of three of torch's layers on a CPU, for the time of a training step.

Within `faster_layers` a linear layer multiplies by oneDNN where MKL falls behind, dropout draws 16 bits per
unit, and max-pooling hands on gradients in the layout of its inputs. What is replaced is `forward` of torch's
own classes, so a model's modules keep their classes, parameters, hooks and attributes.
The function is torch's; a trial's numbers differ by rounding, and by which units are dropped. Tensors that
are not ordinary ones (of a subclass, traced, compiled, transformed by torch.func) take torch's own way.
Latency is measured without all this: it is to be that of the model as its user will run it.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from attnsweep.nn.torch_private import has_one_dnn, one_dnn, transforms_are_active
from attnsweep.results import provenance

LEAST_WORK = 2_000_000  # multiply-accumulates of a product: below, calling oneDNN costs more than it spares
LEVELS, DRAWS = 1 << 16, 4  # of a draw for dropout; how many of them a 64-bit integer holds
ORDINARY = (Tensor, nn.Parameter)
TORCHS: dict[Any, Any] = {kind: kind.forward for kind in (nn.Linear, nn.Dropout, nn.MaxPool2d)}


@contextlib.contextmanager
def faster_layers() -> Iterator[None]:
    """Within it torch's linear layers, dropout and max-pooling run the functions of this module."""
    before = {kind: kind.forward for kind in FASTER}
    try:
        for kind, forward in FASTER.items():
            if before[kind] is TORCHS[kind]:  # and not something that a user has put there
                kind.forward = forward
        yield
    finally:
        for kind, forward in before.items():
            kind.forward = forward


def ordinary(tensor: Tensor) -> bool:
    """Whether it is a dense tensor on the CPU, of none but torch's own class."""
    return type(tensor) in ORDINARY and tensor.is_cpu and tensor.layout is torch.strided


def at_once() -> bool:
    """Whether torch runs each operation as it is called: nothing compiles, traces or transforms it."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing() or transforms_are_active())


@functools.cache
def mkl_falls_behind() -> bool:
    """Whether torch multiplies float32 by MKL on another maker's CPU with AVX-512, which MKL leaves unused:
    on an AMD EPYC a core does 110 GFLOP/s by MKL 2024.2, 240 by oneDNN 3.12 (torch 2.14).
    """
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and has_one_dnn()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return both and wide and "Intel" not in provenance.cpu_name()


def linear(layer: nn.Linear, input: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
    """`nn.Linear.forward`, by oneDNN where that is faster."""
    if type(layer) is nn.Linear and at_once() and is_large(input, layer.out_features) and mkl_falls_behind():
        tensors = (input, layer.weight) if layer.bias is None else (input, layer.weight, layer.bias)
        if all(map(serves_one_dnn, tensors)) and not torch.is_autocast_enabled("cpu"):
            return cast(Tensor, LinearMap.apply(input, layer.weight, layer.bias))
    return cast(Tensor, TORCHS[nn.Linear](layer, input))


def is_large(input: Tensor, outputs: int) -> bool:
    """Whether a product takes long enough; the first question, as it is soon answered."""
    return type(input) in ORDINARY and input.dim() > 1 and input.numel() * outputs >= max(1, LEAST_WORK)


def serves_one_dnn(tensor: Tensor) -> bool:
    """Whether it is ordinary, of float32, and without a tangent of forward-mode differentiation."""
    plain = ordinary(tensor) and tensor.dtype == torch.float32
    return plain and forward_ad.unpack_dual(tensor).tangent is None


class LinearMap(torch.autograd.Function):
    """`inputs` (..., n) @ `weight` (m, n).T + `bias` (m) or None, by oneDNN forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_inputs, of_weight, _ = ctx.needs_input_grad
        # as torch does: what no gradient needs may be changed in place before the backward pass
        ctx.save_for_backward(inputs if of_weight else None, weight if of_inputs else None)
        return one_dnn(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """See `torch.autograd.Function.backward`."""
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        # a gradient that will be differentiated itself needs products that torch can differentiate
        product = nn.functional.linear if torch.is_grad_enabled() else one_dnn
        grads = grad.flatten(0, -2)
        return (
            product(grad, weight.t()) if of_inputs else None,
            product_over_rows(product, grads, inputs.flatten(0, -2)) if of_weight else None,
            grads.sum(0) if of_bias else None,
        )


def product_over_rows(product: Any, one: Tensor, other: Tensor) -> Tensor:
    """`one.T @ other` of matrices of as many rows; copies the narrower of the two."""
    if one.shape[1] <= other.shape[1]:
        return cast(Tensor, product(one.t(), other.t()))
    return cast(Tensor, product(other.t(), one.t()).t())


def dropout(layer: nn.Dropout, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`nn.Dropout.forward`, from a quarter of the random bits that torch draws, and in fewer passes."""
    drops = type(layer) is nn.Dropout and layer.training and 0 < layer.p < 1 and not layer.inplace
    if drops and ordinary(input) and input.is_floating_point() and at_once():
        return input * dropout_mask(input, layer.p)
    return cast(Tensor, TORCHS[nn.Dropout](layer, input))


def dropout_mask(like: Tensor, p: float) -> Tensor:
    """Zeros with probability `p`, to the nearest 1 / 65,536, else the inverse of the share that is kept;
    shape, type and layout of `like`. Draws from torch's generator.
    """
    n, dropped = like.numel(), min(round(p * LEVELS), LEVELS - 1)
    words = torch.empty(-(-n // DRAWS), dtype=torch.int64, device="cpu").random_(-(2**63), None)
    mask = torch.empty_like(like, requires_grad=False)  # dense, in any layout: filled as it lies in memory
    lowest = torch.iinfo(torch.int16).min
    torch.ge(words.view(torch.int16)[:n], lowest + dropped, out=mask.as_strided((n,), (1,)))
    return mask.mul_(LEVELS / (LEVELS - dropped))


def max_pool(layer: nn.MaxPool2d, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """`nn.MaxPool2d.forward`; gives its backward a gradient in channels-last where its output is: in the
    other layout that takes ten times as long.
    """
    pooled: Any = TORCHS[nn.MaxPool2d](layer, input)
    hooks = type(layer) is nn.MaxPool2d and not layer.return_indices and ordinary(pooled) and at_once()
    if hooks and pooled.requires_grad and pooled.is_contiguous(memory_format=torch.channels_last):
        pooled.register_hook(channels_last)
    return cast(Tensor, pooled)


def channels_last(grad: Tensor) -> Tensor:
    return grad.contiguous(memory_format=torch.channels_last)


FASTER: dict[Any, Any] = {nn.Linear: linear, nn.Dropout: dropout, nn.MaxPool2d: max_pool}
