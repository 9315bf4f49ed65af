"""Parameters and multiply-accumulates of an architecture as it is built, where it has no closed form."""

import contextlib
import copy
import functools
import logging
import os
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnsweep.core import child_process
from attnsweep.core.containment import Contained, as_torch_begins, contained, seed_all, seeded
from attnsweep.core.cost import Cost
from attnsweep.core.errors import UserError
from attnsweep.core.files_read import files_read
from attnsweep.core.source import Source
from attnsweep.nn.torch_private import compiler_is_imported, meta_without_the_compiler, without_modules
from attnsweep.tasks import own
from attnsweep.tasks.registry import TASKS, architecture, build, buildable, procedure
from attnsweep.tasks.task import Rehearsal

BUILD_S, STEP_S = 60.0, 15.0  # limits for a user's own model in the plan
CHEAP_MACS = 1e9  # of an example: a step on two takes about a second
SLOW: set[str] = set()  # hashes of models that took longer, whose steps are not tried again
log = logging.getLogger("attnsweep")


def count(model: nn.Module, *inputs: torch.Tensor) -> Cost:
    """Trainable parameters; multiply-accumulates of a forward pass of the first of `inputs` (b, ...).

    Counts a copy on the meta device, where nothing is computed, or if that fails the model itself, in
    evaluation mode. MACs are None if the model works but cannot be counted. Matrix products, convolutions and
    attention count, element-wise operations do not. Raises what the model raises.
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
    """The multiply-accumulates of a forward pass; leaves the model in evaluation mode."""
    from torch.utils.flop_counter import FlopCounterMode  # a third of a second that no worker should wait for

    model.eval()
    counter = without_modules(FlopCounterMode(display=False))
    with plain_operators(compile_too=compiler_is_imported()), torch.no_grad(), counter:
        model(*inputs)
    return int(counter.get_total_flops() // 2)


@contextlib.contextmanager
def plain_operators(*, compile_too: bool = True) -> Iterator[None]:
    """Runs attention, recurrent layers and, unless told otherwise, compiled models by operators, which are
    counted; no warnings.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    eager = torch.compiler.set_stance("force_eager") if compile_too else contextlib.nullcontext()
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


def built_on_meta(config: Mapping[str, Any]) -> nn.Module:
    """The model of a configuration on the meta device; on the CPU if its constructor looks at values."""
    try:
        with torch.device("meta"):
            return build(config)
    except RuntimeError:  # such as .item() of a list of rates
        return build(config)


@dataclass(frozen=True)
class Architecture:
    """An architecture's identity, and what is needed to build and try it."""

    sizes: tuple[tuple[str, Any], ...]
    rehearsal: Rehearsal | None
    config: Mapping[str, Any] = field(compare=False)
    source: Source | None = field(compare=False)


def counted(config: Mapping[str, Any], source: Source | None = None) -> Cost:
    """The cost of an architecture, counted by building it, once for each. A user's own model, whose code is
    `source`, and a library's are also tried by their task's rehearsal.

    Raises UserError where it cannot be built or fails the rehearsal.
    """
    sizes, task = architecture(config), TASKS[config["task"]]
    if source is None and task.layers_repeat and (config["depth"] or 0) >= 3 * task.layers_repeat:
        return counted_by_layers(config, task.layers_repeat)
    rehearsal = None
    if task.rehearsal and config["model"] not in task.models:
        rehearsal = task.rehearsal(dict(config))
    if source is None:
        return counted_once(Architecture(tuple(sizes.items()), rehearsal, buildable(sizes), None))
    taken = {key: config[key] for key in own.signature(config["model"], source) if key in config}
    return counted_once(Architecture(tuple((sizes | taken).items()), rehearsal, config, source))


def counted_by_layers(config: Mapping[str, Any], period: int) -> Cost:
    """The cost of a deep architecture from two shallow ones: a layer takes 0.1 s on the meta device."""
    depth = period + config["depth"] % period
    shallow, deeper = (counted({**config, "depth": layers}) for layers in (depth, depth + period))
    return shallow + (deeper + shallow * -1) * ((config["depth"] - depth) // period)


@functools.cache
def counted_once(architecture: Architecture) -> Cost:
    """See `counted`."""
    if architecture.source:
        return counted_in_child(architecture, architecture.source)
    config = architecture.config
    with refusals(architecture), Contained(), meta_without_the_compiler():
        as_torch_begins()
        if architecture.rehearsal:  # first: where a model fails, it says why
            rehearse(architecture.rehearsal, config)
        return count(built_on_meta(config), *procedure(config["task"]).example(config, 1))


def rehearse(rehearsal: Rehearsal, config: Mapping[str, Any]) -> None:
    """Tries a library's model on the meta device, or else on the CPU. Raises UserError where it fails."""
    with seeded(0):
        try:
            with plain_operators():
                model = built_on_meta(config)
                rehearsal(model, next((one.device.type for one in model.parameters()), "cpu"))
        except UserError:
            rehearsal(build(config), "cpu")


@contextlib.contextmanager
def refusals(architecture: Architecture) -> Iterator[None]:
    """Raises UserError for whatever building and trying a model raises."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{key}={value}" for key, value in architecture.sizes if value is not None)
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{architecture.config['model']} cannot be built ({reason}) with {given}") from error


# --- A user's own model ---


def counted_in_child(architecture: Architecture, source: Source) -> Cost:
    """The cost of a user's own model, which is built and tried in a child process, as it may hang or crash.

    A slow step is not waited for: training will show whether it works. Raises UserError as `counted` does.
    """
    model, known = architecture.config["model"], deque[Cost](maxlen=1)
    steps, limits = source.sha256 not in SLOW, (BUILD_S, STEP_S)
    try:
        known.extend(child_process.results(tried, architecture, source, steps, seconds=limits))
    except TimeoutError:
        if not known:
            raise UserError(
                f"{model} was not built within {BUILD_S:g} s; do less in its constructor"
            ) from None
        SLOW.add(source.sha256)
        log.warning(
            "%s took no training step within %g s; the plan goes on without one, and trial_timeout= ends a "
            "trial that hangs", model, STEP_S,
        )  # fmt: skip
    except ChildProcessError as error:
        raise UserError(f"{model} cannot be tried: {error}; mend it") from error
    except UserError:  # it may be the process that does not suit it: here it has the last word
        with contextlib.redirect_stdout(sys.stderr):
            known.extend(tried(architecture, source, True))
    return known[0]


def tried(architecture: Architecture, source: Source, steps: bool) -> Iterator[Cost]:
    """Yields the known cost of a user's own model: after it was built, and with `steps` after it was counted
    and has taken a training step. This happens on the meta device, and also on the CPU if it fails there, as
    a model that reads values does, or if it is cheap: only values show whether an index is in range.

    Raises UserError where the model cannot be built or fails the rehearsal.
    """
    with refusals(architecture):
        try:
            for amount in tried_on("meta", architecture, source):
                yield amount
                if not steps:
                    return
        except Exception:
            yield from tried_on("cpu", architecture, source)
            return
        if architecture.rehearsal and amount.macs is not None and amount.macs <= CHEAP_MACS:
            list(tried_on("cpu", architecture, source))


def tried_on(device: str, architecture: Architecture, source: Source) -> Iterator[Cost]:
    """See `tried`. The process stays as it is."""
    return contained(steps_on(device, architecture, source))


def steps_on(device: str, architecture: Architecture, source: Source) -> Generator[Cost]:
    """See `tried`."""
    config, meta = architecture.config, device == "meta"
    with plain_operators() if meta else contextlib.nullcontext():  # on the CPU it is tried as it is trained
        seed_all(0)
        folder = os.path.dirname(os.path.abspath(source.file))
        with unvalued() if meta else contextlib.nullcontext(), files_read(folder) as read:
            model = build(config, source)
        tell_files(source, frozenset(read))
        warm_up()
        uncounted = Cost(sum(one.numel() for one in model.parameters() if one.requires_grad), None)
        yield uncounted
        if architecture.rehearsal:
            architecture.rehearsal(model, device)
        try:
            yield count(model, *procedure(config["task"]).example(config, 1))
        except Exception:
            if meta or not architecture.rehearsal:
                raise
            yield uncounted  # it trains, but wants more than one example at a time


@functools.cache
def tell_files(source: Source, names: frozenset[str]) -> None:
    """Says once that a model reads files of these names, which are no part of its trials' ids."""
    if names:
        log.warning(
            "%s reads %s, which its trials' ids do not cover: give an edited one another name",
            source.file, ", ".join(sorted(names)),
        )  # fmt: skip


@contextlib.contextmanager
def unvalued() -> Iterator[None]:
    """A context in which tensors are made on the meta device, until a file that is run in it sets another.
    What is set within `with torch.device("meta")` would be taken away in its place, and it would stay.
    """
    torch.set_default_device("meta")
    try:
        yield
    finally:
        if torch.get_default_device().type == "meta":
            torch.set_default_device(None)


@functools.cache
def warm_up() -> None:
    """Triggers the imports of a first count on the meta device, which may take longer than a step."""
    layer = nn.Linear(1, 1, device="meta")
    macs_of(layer, [torch.ones(1, 1, device="meta")])
    layer(torch.ones(2, 1, device="meta")).sum().backward()
