"""ONNX Runtime: a session over the graph that torch exports."""

import functools
from collections.abc import Sequence
from typing import Any

from attnsweep.core.runtimes import Unavailable
from attnsweep.measuring.runtimes.graph import graph_of
from attnsweep.measuring.runtimes.inference import Call, Inference
from attnsweep.measuring.runtimes.onnx_sessions import check_device, imported, opened
from attnsweep.measuring.runtimes.quantised import quantised


def session(asked: Inference) -> Call:
    """A call of a session to which inputs and outputs are bound. On CUDA untested: no GPU was at hand.

    Raises Unavailable where this ONNX Runtime has nothing for the device, or no kernels for the precision.
    """
    check_device(asked.device)
    if asked.precision == "bf16" and asked.device == "cpu":
        raise Unavailable(
            "precision='bf16' finds no kernels for the CPU in ONNX Runtime; use runtime='openvino', or int8"
        )
    if asked.precision == "int8":
        graph = quantised(asked.model, asked.inputs, asked.calibration)
    else:
        asked = asked.cast()
        graph = graph_of(asked.model, asked.inputs)
    ready = opened(graph, device=asked.device, threads=asked.threads)
    values = [
        imported().OrtValue.ortvalue_from_numpy(tensor.detach().clone().cpu().numpy(), asked.device)
        for tensor in asked.inputs
    ]
    return functools.partial(answer, ready, bound(ready, values, asked.device), values)


def bound(ready: Any, values: Sequence[Any], device: str) -> Any:
    """A binding of the inputs, in order, and of outputs that lie on the device."""
    binding = ready.io_binding()
    for wanted, value in zip(ready.get_inputs(), values, strict=True):
        binding.bind_ortvalue_input(wanted.name, value)
    for output in ready.get_outputs():
        binding.bind_output(output.name, device)
    return binding


def answer(ready: Any, binding: Any, values: Sequence[Any]) -> list[Any]:
    """One run on the inputs that are bound, whose memory the binding only borrows; the outputs as ONNX
    Runtime holds them.
    """
    ready.run_with_iobinding(binding)
    outputs: list[Any] = binding.get_outputs()
    return outputs
