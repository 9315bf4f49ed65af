"""A model as an ONNX graph, by torch's own exporter: what ONNX Runtime and OpenVINO read."""

import contextlib
import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnsweep.measuring.runtimes.functional import without_second_trace
from attnsweep.measuring.runtimes.outputs import Flat
from attnsweep.measuring.runtimes.quiet import quietly

OPSET = 20  # the newest that both runtimes and torch's translations share


def exported(
    model: nn.Module, inputs: Sequence[Tensor], *, names: Sequence[str] = (), dynamic_batch: bool = False
) -> Any:
    """The ONNX ModelProto of a model in evaluation mode, whose answer is flattened: `inputs` say shapes and
    types, `names` call them. With `dynamic_batch` their first axis may have any length.

    Raises whatever the exporter raises where it cannot follow the forward pass.
    """
    shapes = [{0: torch.export.Dim.DYNAMIC} for _ in inputs] if dynamic_batch else None
    with quietly(), torch.no_grad(), shared_translations():
        program = torch.export.export(
            Flat(model), tuple(inputs), dynamic_shapes=(shapes,) if shapes else None, strict=False
        )
        found = torch.onnx.export(
            without_second_trace(program, translated()),
            tuple(inputs),
            input_names=list(names) or None,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
    assert found is not None
    return found.model_proto


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
