"""OpenVINO on the CPU, from the same ONNX graph that ONNX Runtime reads."""

import functools
import sys
from collections.abc import Mapping
from typing import Any

from attnsweep.core.runtimes import Unavailable
from attnsweep.measuring.runtimes.graph import graph_of, input_names
from attnsweep.measuring.runtimes.inference import Call, Inference

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}  # by default OpenVINO takes bf16 wherever the CPU has it
CONVERTER = "openvino.tools.ovc"


def request(asked: Inference) -> Call:
    """A call of an inference request to which the inputs are bound; one stream of so many threads, which are
    free to move between cores: pinned, those of two processes share a core.

    bf16 is OpenVINO's own: of a graph in fp32, it computes in bf16 what it has kernels for. Raises
    Unavailable on other devices than the CPU, or for bf16 on a CPU that has none.
    """
    if asked.device != "cpu":
        raise Unavailable(f"runtime='openvino' computes on the CPU here, and this device is {asked.device}")
    openvino = imported()
    core = openvino.Core()
    if asked.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable("precision='bf16' under OpenVINO needs a CPU with instructions for it")
    graph = core.read_model(model=graph_of(asked.model, asked.inputs))
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": asked.threads,
        "INFERENCE_PRECISION_HINT": PRECISIONS[asked.precision],
        "ENABLE_CPU_PINNING": False,
    }
    ready = core.compile_model(graph, "CPU", options).create_infer_request()
    arrays = (tensor.detach().clone().numpy() for tensor in asked.inputs)
    bound = dict(zip(input_names(asked.inputs), arrays, strict=True))
    for port in ready.model_inputs:  # without those that nothing reads
        name = port.any_name
        ready.set_tensor(name, openvino.Tensor(bound[name], shared_memory=True))
    return functools.partial(answer, ready, bound)


def answer(ready: Any, bound: Mapping[str, Any]) -> Any:
    """One inference on the inputs that are bound, whose memory OpenVINO only borrows, by this thread itself:
    asynchronously another one would compute, for which a busy machine makes wait. The outputs, by their
    ports, are views of the request's own memory.
    """
    return ready.infer(share_outputs=True)


@functools.cache
def imported() -> Any:
    """The package, without its converter: to import that reports to Intel's statistics over the network,
    writes an identity into the home folder, and takes half a second.
    """
    if CONVERTER in sys.modules:
        import openvino

        return openvino
    sys.modules[CONVERTER] = None  # type: ignore[assignment] # an import of it fails, which the package allows
    try:
        import openvino
    finally:
        del sys.modules[CONVERTER]
    return openvino
