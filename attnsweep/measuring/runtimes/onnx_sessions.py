"""Sessions of ONNX Runtime: what computes a graph."""

from typing import Any

from attnsweep.core.runtimes import Unavailable

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def check_device(device: str) -> None:
    """Raises Unavailable where ONNX Runtime, as it is installed, does not compute on a device."""
    if PROVIDERS.get(device) not in imported().get_available_providers():
        hint = "; pip install onnxruntime-gpu" if device == "cuda" else ""
        raise Unavailable(f"runtime='onnxruntime' does not compute on {device} here{hint}")


def opened(graph: bytes, *, device: str, threads: int) -> Any:
    """A session that computes one operation after the other, each with so many threads that sleep when they
    wait: spinning ones take cores from whoever else computes.
    """
    onnxruntime = imported()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what it cannot do it raises
    return onnxruntime.InferenceSession(graph, options, providers=[PROVIDERS[device]])


def imported() -> Any:
    """The package."""
    import onnxruntime

    return onnxruntime
