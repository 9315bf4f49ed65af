"""Parameters and multiply-accumulates of an architecture as it is built, where it has no closed form."""

import contextlib
import copy
import functools
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnsweep.core.containment import Contained, seed_all
from attnsweep.core.cost import Cost
from attnsweep.core.errors import UserError
from attnsweep.core.source import Source
from attnsweep.tasks import own
from attnsweep.tasks.registry import TASKS, architecture, build, buildable, procedure


def count(model: nn.Module, *inputs: torch.Tensor) -> Cost:
    """Trainable parameters, and the multiply-accumulates of one forward pass of the first example of each of
    `inputs` (b, ...).

    Counts a twin on the meta device, where nothing is computed, and where that fails the model itself, in
    evaluation mode. MACs are None where the model works, but neither can be counted. Matrix products,
    convolutions and attention count, element-wise operations do not. Raises what the model raises.
    """
    params = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    one, modes = [tensor[:1] for tensor in inputs], {part: part.training for part in model.modules()}
    with contextlib.suppress(Exception):  # a forward pass that looks at values, or a model that has no copy
        return Cost(params, macs_of(on_meta(model), [tensor.to("meta") for tensor in one]))
    try:
        return Cost(params, macs_of(model, one))
    except Exception:  # whatever the counter stumbles over, or the model itself
        model(*one)
        return Cost(params, None)
    finally:
        for part, training in modes.items():
            part.training = training


def macs_of(model: nn.Module, inputs: Sequence[torch.Tensor]) -> int:
    """The multiply-accumulates of a forward pass of a model, which is left in evaluation mode."""
    from torch.utils.flop_counter import FlopCounterMode  # a third of a second that no worker should wait for

    model.eval()
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()  # type: ignore[assignment]
    with plain_operators(), torch.no_grad(), counter:
        model(*inputs)
    return int(counter.get_total_flops() // 2)


class Untracked:
    """In place of what tells FlopCounterMode in which module an operation is, by hooks that stumble over
    expanded views and over a model that differentiates as it answers.
    """

    parents = ("Global",)

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


@contextlib.contextmanager
def plain_operators() -> Iterator[None]:
    """Attention, recurrent layers and compiled models run operator by operator: the counter does not see into
    their fused kernels. Without the warnings of whatever stands in the way.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    eager = torch.compiler.set_stance("force_eager")
    try:
        with warnings.catch_warnings(), eager, sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore")
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def on_meta(model: nn.Module) -> nn.Module:
    """A deep copy of the model whose parameters and buffers have shapes but no values."""
    twins: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        twins[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    return copy.deepcopy(model, twins)


def blank(config: Mapping[str, Any]) -> nn.Module:
    """The model of a configuration on the meta device; on the CPU if its constructor looks at values."""
    try:
        with torch.device("meta"):
            return build(config)
    except RuntimeError:  # such as .item() of a list of rates
        return build(config)


@dataclass(frozen=True)
class Architecture:
    """What tells one architecture from another, and what it takes to build it."""

    sizes: tuple[tuple[str, Any], ...]
    config: Mapping[str, Any] = field(compare=False)
    source: Source | None = field(compare=False)


def counted(config: Mapping[str, Any], source: Source | None = None) -> Cost:
    """The cost of an architecture as it is built; once for each. A model of the user's own, whose text is
    `source`, is tried by its task too.

    Raises UserError where it cannot be built, or does not do what a model is to do.
    """
    sizes = architecture(config)
    if source is None:
        return counted_once(Architecture(tuple(sizes.items()), buildable(sizes), None))
    taken = {key: config[key] for key in own.signature(config["model"], source) if key in config}
    return counted_once(Architecture(tuple((sizes | taken).items()), config, source))


@functools.cache
def counted_once(architecture: Architecture) -> Cost:
    """See `counted`."""
    config = architecture.config
    try:
        if architecture.source:
            return tried(config, architecture.source)
        return count(blank(config), *procedure(config["task"]).example(config, 1))
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's own class raises
        given = ", ".join(f"{key}={value}" for key, value in architecture.sizes if value is not None)
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{config['model']} cannot be built ({reason}) with {given}") from error


def tried(config: Mapping[str, Any], source: Source) -> Cost:
    """The cost of a user's own model that has been built and has taken a training step: on the meta device,
    or where it fails there, as one that looks at values does, on the CPU.

    Raises UserError where the model's answer is wrong, and what the model raises.
    """
    with contextlib.suppress(Exception):
        return tried_on("meta", config, source)
    return tried_on("cpu", config, source)


def tried_on(device: str, config: Mapping[str, Any], source: Source) -> Cost:
    """See `tried`. The process stays as it is, and standard output is for what was asked for."""
    with contextlib.redirect_stdout(sys.stderr), Contained(), plain_operators():
        seed_all(0)
        with torch.device("meta") if device == "meta" else contextlib.nullcontext():
            model = build(config, source)
        if rehearse := TASKS[config["task"]].rehearse:
            rehearse(model, dict(config), device)
        return count(model, *procedure(config["task"]).example(config, 1))
