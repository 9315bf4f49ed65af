"""torch itself as a runtime: eagerly, compiled, or as a CUDA graph."""

import contextlib
import functools
import tempfile
from collections.abc import Iterator

import torch

from attnsweep.core.environment import with_variables
from attnsweep.core.runtimes import Unavailable
from attnsweep.measuring.runtimes.inference import Call, Inference
from attnsweep.measuring.runtimes.outputs import answered
from attnsweep.measuring.runtimes.quiet import quietly

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
CUDA_WARM_UP = 3  # forward passes on a side stream before capture, as torch's own recipe has it


def eager(asked: Inference) -> Call:
    """The answer as torch computes it operation by operation."""
    return asked.cast().answer()


def compiled(asked: Inference) -> Call:
    """The answer by torch.compile, compiled for these inputs and for as many threads as torch has now, in
    this process alone. Raises Unavailable without a C++ compiler.

    Takes seconds for each kind of layer. What is compiled lies in a folder of its own, which is deleted once
    it is loaded; torch keeps the compiled header of all kernels in its cache.
    """
    asked = asked.cast()
    with tempfile.TemporaryDirectory() as folder, cached_in(folder), quietly():
        if asked.device == "cpu":
            check_compiler()
        answer = asked.answer(torch.compile(asked.model, dynamic=False))  # type: ignore[arg-type]  # a module
        answered(answer)
    return answer


@contextlib.contextmanager
def cached_in(folder: str) -> Iterator[None]:
    """torch.compile puts what it makes into a folder, and starts no processes to make it."""
    from torch._inductor import config as inductor

    torch.compiler.reset()
    with with_variables(dict.fromkeys(CACHES, folder)), inductor.patch({"compile_threads": 1}):
        yield


@functools.cache
def check_compiler() -> None:
    """Raises Unavailable where torch.compile finds no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        raise Unavailable(
            "runtime='compile' needs a C++ compiler, and there is none; install g++ (or set CXX)"
        ) from error


def cuda_graph(asked: Inference) -> Call:
    """The eager kernels of one forward pass, captured once and replayed without Python. Untested: no GPU was
    at hand. Raises Unavailable on other devices than CUDA.
    """
    if asked.device != "cuda":
        raise Unavailable(f"runtime='cudagraphs' is for CUDA devices, and this one is {asked.device}")
    answer = eager(asked)
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _pass in range(CUDA_WARM_UP):
                answer()
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            outputs = answer()

    def replay() -> object:
        captured.replay()
        return outputs

    return replay
