"""The tensors that a model answers with, and how far two answers lie apart."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnsweep.core.runtimes import Unavailable

TOLERANCE = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.5}  # of the largest value of an output


class Flat(nn.Module):
    """A model that answers with a tuple of tensors, as exporters want it, whatever the model answers with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensors_of(self.model(*inputs)))


def tensors_of(answer: Any) -> Iterator[Tensor]:
    """The tensors in an answer, in order; see `named_tensors_of`."""
    return (tensor for _, tensor in named_tensors_of(answer, ""))


def named_tensors_of(answer: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in an answer, in order, with the path to each: a tensor's own, those of a dataclass, a
    sequence or a mapping, and arrays of numpy or ONNX Runtime as tensors. `name` is that of the answer.
    """
    if isinstance(answer, Tensor):
        yield name, answer
    elif isinstance(answer, np.ndarray):
        yield name, torch.from_numpy(answer)
    elif hasattr(answer, "numpy"):
        yield name, torch.from_numpy(answer.numpy())
    else:
        for key, part in parts_of(answer):
            yield from named_tensors_of(part, f"{name}.{key}" if name else str(key))


def parts_of(answer: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of an answer by field, key or place; none of anything else."""
    if dataclasses.is_dataclass(answer):
        yield from ((field.name, getattr(answer, field.name)) for field in dataclasses.fields(answer))
    elif isinstance(answer, Mapping):
        yield from answer.items()
    elif isinstance(answer, Sequence) and not isinstance(answer, str):
        yield from enumerate(answer)


def answered(call: Callable[[], object]) -> list[Tensor]:
    """The tensors that a call answers with, on the CPU, of their own memory; computed in inference mode, or
    for a model that differentiates as it answers, and so raises there, without gradients only.
    """
    try:
        with torch.inference_mode():
            found = call()
    except RuntimeError:
        with torch.no_grad():
            found = call()
    return [tensor.detach().cpu().clone() for tensor in tensors_of(found)]


def apart_from(call: Callable[[], object], eager: Callable[[], object], *, precision: str) -> float:
    """The largest difference between what a call answers and what eager does, see `difference`.

    Raises Unavailable also where eager itself does not answer twice alike: then nothing can be held against
    it.
    """
    wanted = answered(eager)
    try:
        difference(answered(eager), wanted, precision=precision)
    except Unavailable:
        raise Unavailable(
            "its own answer to one input changes from call to call, so that nothing can be held against it"
        ) from None
    return difference(answered(call), wanted, precision=precision)


def difference(found: Sequence[Tensor], wanted: Sequence[Tensor], *, precision: str) -> float:
    """The largest difference between two answers, element by element.

    Raises Unavailable where one output differs from eager's by more than its tolerance, which is relative to
    the largest value of that output, or has other shapes, or other places of what is no finite number.
    """
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in wanted]:
        raise Unavailable("computes something else: its outputs have other shapes than eager's")
    worst, tolerance = 0.0, TOLERANCE[precision]
    for number, (here, there) in enumerate(zip(found, wanted, strict=True)):
        here, there = here.double(), there.double()
        finite = there.isfinite()
        if not torch.equal(finite, here.isfinite()):
            raise Unavailable(f"computes something else: output {number} is not finite where eager's is")
        if not finite.any():
            continue
        apart = float((here - there)[finite].abs().max())
        scale = float(there[finite].abs().max())
        if apart > tolerance * scale:
            raise Unavailable(
                f"computes something else: output {number} differs by {apart:.2g} from eager's, whose "
                f"largest value is {scale:.2g}; {tolerance:g} of that is tolerated in {precision}"
            )
        worst = max(worst, apart)
    return worst
