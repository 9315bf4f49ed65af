"""What this package relies on inside torch and torch does not promise. All of it is here, tested with torch
2.11 to 2.15.

Each function says what it relies on and what is done where that is gone; nothing here is needed to train.
"""

from typing import Any, cast

import torch
from jaxtyping import Float32
from torch import Tensor


def transforms_are_active() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp) is active, as torch.autograd.Function asks it.

    Relies on `torch._C._are_functorch_transforms_active` (2.0); without it the answer is yes, so that layers
    run torch's own code.
    """
    ask = getattr(torch._C, "_are_functorch_transforms_active", None)
    return ask is None or bool(ask())


def has_one_dnn() -> bool:
    """Whether torch has the private operators of `one_dnn` (2.0 to 2.15); without them MKL multiplies."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.aten, "_unsafe_view")


def one_dnn(
    inputs: Float32[Tensor, "*batch n"],
    weight: Float32[Tensor, "m n"],
    bias: Float32[Tensor, " m"] | None = None,
) -> Float32[Tensor, "*batch m"]:
    """`inputs @ weight.T + bias` by oneDNN; torch has no public name for it. Only `inputs` is copied where it
    is not contiguous. Like that of `nn.functional.linear` the result is no view: a layer may change it in
    place.
    """
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs.flatten(0, -2), weight, bias, "none", [], "")
    return cast(Tensor, torch.ops.aten._unsafe_view(product, [*inputs.shape[:-1], weight.shape[0]]))


def without_modules(counter: Any) -> Any:
    """A FlopCounterMode that does not follow in which module an operation is: its hooks fail on expanded
    views, and on a model that differentiates as it answers.

    Relies on its attribute `mod_tracker` (2.4); without it such a model is counted as one that has no MACs.
    """
    if hasattr(counter, "mod_tracker"):
        counter.mod_tracker = Untracked()
    return counter


class Untracked:
    """In place of a FlopCounterMode's tracker of modules: every operation is in none."""

    parents = ("Global",)

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...
