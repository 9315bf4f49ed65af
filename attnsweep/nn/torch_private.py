"""What this package relies on inside torch and torch does not promise. All of it is here, tested with torch
2.11 to 2.15.

Each function says what it relies on and what is done where that is gone; nothing here is needed to train.
"""

import contextlib
import itertools
import sys
import types
from collections.abc import Iterator
from typing import Any, cast

import torch
from jaxtyping import Float32
from torch import Tensor

COMPILER = "torch._dynamo"


def transforms_are_active() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp) is active, as torch.autograd.Function asks it.

    Relies on `torch._C._are_functorch_transforms_active` (2.0); without it yes: layers run torch's own code.
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
    is not contiguous. As of `nn.functional.linear` the result is no view, to be changed in place.
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


def spare_the_compiler() -> None:
    """Has optimisers do without torch's compiler, which they import to be left alone by it: more than a
    second of each new worker's first trial, and it is not used here.

    Relies on what `torch._disable_dynamo` remembers on the functions that it wraps (2.3 to 2.15); without
    that the compiler is imported. Where it is there already, all stays as it is.
    """
    if compiler_is_imported():
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        function = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if function is not None and not hasattr(function, "__dynamo_disable"):
            function.__dynamo_disable = function


@contextlib.contextmanager
def meta_without_the_compiler() -> Iterator[None]:
    """Has operators on the meta device, and checkpoints, do without torch's compiler, which those written in
    Python import to be left alone by it: a second of a plan.

    Relies on what `torch._disable_dynamo` remembers on the functions that it wraps (2.3 to 2.15), and on
    where those are, also in `torch._refs` and the tables of `torch._decomp`; without them the compiler is
    imported. Where it is there already, all stays as it is.
    """
    marked = [] if compiler_is_imported() else disabled_operators()
    for function in marked:
        vars(function)["__dynamo_disable"] = function
    try:
        yield
    finally:
        for function in marked:
            vars(function).pop("__dynamo_disable", None)


def disabled_operators() -> list[types.FunctionType]:
    """The functions by which torch computes shapes, counts and recomputes, and that `torch._disable_dynamo`
    wraps, found in what wraps them in turn.
    """
    from torch.utils import checkpoint, flop_counter  # here: no worker should wait for them

    tables = getattr(sys.modules.get("torch._decomp"), "global_decomposition_table", {}).values()
    modules = [vars(one) for one in (sys.modules.get("torch._refs"), checkpoint, flop_counter) if one]
    waiting = list(itertools.chain.from_iterable(named.values() for named in (*tables, *modules)))
    wrap = getattr(torch, "_disable_dynamo", None)
    shield = wrap(print).__code__ if wrap else None
    seen, found = set[int](), list[types.FunctionType]()
    while waiting:
        one = waiting.pop()
        one = vars(one).get("__torch_dispatch__") if isinstance(one, type) else one
        if not isinstance(one, types.FunctionType) or id(one) in seen:
            continue
        seen.add(id(one))
        inside = [held for held in enclosed(one) if isinstance(held, types.FunctionType)]
        found += inside if one.__code__ is shield else []
        waiting += [*inside, vars(one).get("__wrapped__")]
    return found


def enclosed(function: types.FunctionType) -> Iterator[Any]:
    """What its closure holds."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty one
            yield cell.cell_contents


def compiler_is_imported() -> bool:
    """Whether this process has torch's compiler."""
    return COMPILER in sys.modules


def step(optimizer: torch.optim.Optimizer) -> None:
    """An optimiser's step, without the compiler where it was not imported yet.

    Relies on the layers around its `step`, for hooks and for the compiler, which each know what they wrap
    (2.0 to 2.15); without them, or where somebody has hooks, the step is taken as it is.
    """
    inner = getattr(getattr(type(optimizer).step, "__wrapped__", None), "__wrapped__", None)
    everywhere = sys.modules.get("torch.optim.optimizer")
    hooks = (
        getattr(optimizer, "_optimizer_step_pre_hooks", True),
        getattr(optimizer, "_optimizer_step_post_hooks", True),
        getattr(everywhere, "_global_optimizer_pre_hooks", True),
        getattr(everywhere, "_global_optimizer_post_hooks", True),
    )
    if inner is None or any(hooks) or compiler_is_imported():
        optimizer.step()
        return
    with torch.no_grad():
        inner(optimizer)
