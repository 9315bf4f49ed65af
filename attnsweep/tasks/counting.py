"""Parameters and multiply-accumulates of an architecture as it is built, where it has no closed form."""

import contextlib
import copy
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from attnsweep.core.cost import Cost
from attnsweep.core.errors import UserError
from attnsweep.tasks.registry import architecture, build, buildable, procedure


def count(model: nn.Module, *inputs: torch.Tensor) -> Cost:
    """Trainable parameters, and the multiply-accumulates of one forward pass of the first example of each of
    `inputs` (b, ...).

    Counts a twin on the meta device, where nothing is computed; the model stays as it is. Matrix products,
    convolutions and attention count, element-wise operations do not.
    """
    from torch.utils.flop_counter import FlopCounterMode  # a third of a second that no worker should wait for

    twin, one = on_meta(model).eval(), [tensor[:1].to("meta") for tensor in inputs]
    counter = FlopCounterMode(display=False)
    with slow_attention(), torch.enable_grad(), counter:  # without gradients it stumbles over expanded views
        twin(*one)
    params = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Cost(params, counter.get_total_flops() // 2)


def blank(config: Mapping[str, Any]) -> nn.Module:
    """The model of a configuration on the meta device; on the CPU if its constructor looks at values."""
    try:
        with torch.device("meta"):
            return build(config)
    except RuntimeError:  # such as .item() of a list of rates
        return build(config)


def counted(config: Mapping[str, Any]) -> Cost:
    """The cost of an architecture as it is built; once for each.

    Raises UserError where it cannot be built.
    """
    return counted_once(tuple(architecture(config).items()))


@functools.cache
def counted_once(sizes: tuple[tuple[str, Any], ...]) -> Cost:
    """See `counted`."""
    config = buildable(dict(sizes))
    try:
        return count(blank(config), *procedure(config["task"]).example(config, 1))
    except UserError:
        raise
    except Exception as error:  # whatever a user's own class raises
        given = ", ".join(f"{key}={value}" for key, value in sizes if value is not None)
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{config['model']} cannot be built ({reason}) with {given}") from error


def on_meta(model: nn.Module) -> nn.Module:
    """A deep copy of the model whose parameters and buffers have shapes but no values."""
    twins: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        twins[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    return copy.deepcopy(model, twins)


@contextlib.contextmanager
def slow_attention() -> Iterator[None]:
    """Attention layers of torch.nn run step by step: the counter does not see their fused fast path."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
