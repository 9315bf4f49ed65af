"""One answer of a model under a runtime: as torch computes it eagerly, or as people deploy it.

What comes out of a runtime is held against eager's answer in fp32 to the same fixed inputs: one that computes
something else is never timed.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from attnsweep.core import runtimes
from attnsweep.core.deployment import QUANTISING
from attnsweep.core.errors import reason
from attnsweep.core.runtimes import Unavailable, versions_of
from attnsweep.measuring.memory import ran_out_of_memory
from attnsweep.measuring.runtimes import graph, in_torch, on_onnxruntime, on_openvino, onnx_sessions
from attnsweep.measuring.runtimes.inference import Call, Inference
from attnsweep.measuring.runtimes.outputs import apart_from

__all__ = ["RUNTIMES", "Inference", "Prepared", "Unavailable", "preload", "prepare", "versions_of"]
RUNTIMES: tuple[str, ...] = tuple(runtimes.RUNTIMES)
PREPARE: Mapping[str, Callable[[Inference], Call]] = {
    "eager": in_torch.eager,
    "compile": in_torch.compiled,
    "cudagraphs": in_torch.cuda_graph,
    "onnxruntime": on_onnxruntime.session,
    "openvino": on_openvino.request,
}


@dataclass(frozen=True)
class Prepared:
    """A model under a runtime.

    `call` gives one answer to the fixed inputs, which are bound already; it is to be called in inference mode
    as `prepare` is, or for a model that differentiates as it answers without gradients. `max_abs_diff` is the
    largest difference from eager's answer in fp32, over all outputs; None for eager in fp32 itself.
    """

    call: Call
    max_abs_diff: float | None


def prepare(runtime: str, asked: Inference) -> Prepared:
    """A model under a runtime, ready to be timed; the model itself stays as it is. How many threads torch has
    is the caller's to set.

    Raises Unavailable where it cannot be, with the reason; MemoryError where it does not fit; UserError for
    an unknown runtime.
    """
    versions_of(runtime)
    precision, tokens = asked.precision, asked.tokens
    if runtime != "eager" and tokens is not None:
        raise Unavailable(
            f"runtime={runtime!r} runs one forward pass, and {asked.config['model']} decodes its answer "
            "token by token; only runtime='eager' measures that"
        )
    if precision == "int8" and runtime != QUANTISING:
        raise Unavailable(f"precision='int8' is for runtime={QUANTISING!r}, not for {runtime!r}")
    if runtime == "eager" and precision == "fp32":
        return Prepared(asked.answer(), None)
    with explained(f"{runtime} cannot run it in {precision}"):
        call = PREPARE[runtime](asked)
        if tokens is not None:  # what is decoded says nothing about the logits
            return Prepared(call, None)
        apart = apart_from(call, asked.answer(), precision=precision)
    return Prepared(call, apart)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns whatever an exporter or a runtime raises into Unavailable, which says `what` cannot be and why,
    or into MemoryError.
    """
    try:
        yield
    except Unavailable:
        raise
    except Exception as error:
        if ran_out_of_memory(error):
            raise MemoryError(reason(error)) from error
        raise Unavailable(f"{what}: {shortened(error)}") from error


def shortened(error: BaseException) -> str:
    """The error that the others were raised from, on one line that a row can hold."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = reason(error)
    return line if len(line) <= 300 else f"{line[:299]}…"


def preload(runtime: str) -> None:
    """Does what a runtime needs once per process, by which processes forked afterwards are spared a second or
    two: its imports, and an export that is thrown away. Starts no threads that a fork would lose.

    Raises Unavailable where it is not installed.
    """
    versions_of(runtime)
    if runtime in ("onnxruntime", "openvino"):
        graph.exported(nn.Linear(1, 1).eval(), [torch.zeros(1, 1)])
        (onnx_sessions if runtime == "onnxruntime" else on_openvino).imported()
