"""A model as an ONNX graph, by torch's own exporter: what ONNX Runtime and OpenVINO read."""

import contextlib
import functools
import operator
from collections.abc import Hashable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from attnsweep.measuring.runtimes.functional import without_second_trace
from attnsweep.measuring.runtimes.outputs import Flat
from attnsweep.measuring.runtimes.quiet import quietly

OPSET = 20  # the newest that both runtimes and torch's translations share
HELD: "WeakKeyDictionary[nn.Module, dict[Hashable, bytes]]" = WeakKeyDictionary()


def graph_of(model: nn.Module, inputs: Sequence[Tensor]) -> bytes:
    """The ONNX model of a model for inputs of these shapes, `input0` and so on; the same bytes as long as its
    weights are the same, whichever runtimes and numbers of threads ask for it.
    """
    weights = tuple(
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        for tensor in (*model.parameters(), *model.buffers())
    )
    key = weights, tuple((tensor.shape, tensor.dtype) for tensor in inputs)
    held = HELD.setdefault(model, {})
    if key not in held:
        held.clear()  # a graph holds all weights once more
        held[key] = exported(model, inputs, names=input_names(inputs)).SerializeToString()
    return held[key]


def input_names(inputs: Sequence[Tensor]) -> list[str]:
    """What the inputs of `graph_of` are called."""
    return [f"input{place}" for place in range(len(inputs))]


def exported(
    model: nn.Module,
    inputs: Sequence[Tensor],
    *,
    names: Sequence[str] = (),
    outputs: Sequence[str] = (),
    dynamic_batch: bool = False,
) -> Any:
    """The ONNX ModelProto of a model in evaluation mode, whose answer is flattened: `inputs` say shapes and
    types, `names` and `outputs` call them. `dynamic_batch` as in `program_of`.

    Raises whatever the exporter raises where it cannot follow the forward pass.
    """
    with quietly(), torch.no_grad(), shared_translations():
        found = torch.onnx.export(
            without_second_trace(program_of(model, inputs, dynamic_batch=dynamic_batch), translated()),
            tuple(inputs),
            input_names=list(names) or None,
            output_names=list(outputs) or None,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
    assert found is not None
    return found.model_proto


def program_of(model: nn.Module, inputs: Sequence[Tensor], *, dynamic_batch: bool = False) -> ExportedProgram:
    """The program that torch.export makes of a model, whose answer is flattened. With `dynamic_batch` the
    first axis of the inputs, two or more long here, may have any length.

    Raises whatever torch.export raises.
    """
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs) if dynamic_batch else None
    with quietly(), torch.no_grad():
        return torch.export.export(
            Flat(model), tuple(inputs), dynamic_shapes=(shapes,) if shapes else None, strict=False
        )


@contextlib.contextmanager
def shared_translations() -> Iterator[None]:
    """The exporter's table of translations, half a second's work, is made once per process and those forked
    from it, not once per export. Where this torch keeps it elsewhere, it is made anew.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        yield
        return
    table, patched = translations(), ONNXRegistry.__dict__["from_torchlib"]
    registry: Any = ONNXRegistry
    registry.from_torchlib = staticmethod(lambda opset_version: table)
    try:
        yield
    finally:
        registry.from_torchlib = patched


@functools.cache
def translations() -> Any:
    """See `shared_translations`."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return ONNXRegistry.from_torchlib(opset_version=OPSET)


@functools.cache
def translated() -> set[Any]:
    """The operations that ONNX has a translation for; none where this torch keeps them elsewhere."""
    try:
        from torch.onnx._internal.exporter._decomp import get_onnx_implemented_overloads
    except ImportError:
        return set()
    return {*get_onnx_implemented_overloads(translations()), operator.getitem}
