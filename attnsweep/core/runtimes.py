"""The runtimes for trained models, and the packages that they need; imports none of them."""

from attnsweep.core.errors import Sentence, one_of
from attnsweep.core.version import installed

RUNTIMES: dict[str, str] = {  # to the extra that installs what the runtime needs besides torch
    "eager": "",
    "compile": "",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "cudagraphs": "",
}
PACKAGES: dict[str, tuple[tuple[str, ...], ...]] = {  # of each extra; any of several names is enough
    "": (),
    "onnx": (("onnxscript",), ("onnxruntime", "onnxruntime-gpu")),
    "openvino": (("onnxscript",), ("openvino",)),
}


class Unavailable(Sentence, RuntimeError):
    """An architecture cannot be measured under a runtime, or not on this machine; the message says why."""


def versions_of(runtime: str) -> str:
    """The versions that latency under a runtime depends on, such as `torch 2.14.1, onnxruntime 1.32.0`.

    Raises Unavailable where a package is not installed, UserError for an unknown runtime.
    """
    extra = RUNTIMES[one_of("runtime", runtime, RUNTIMES)]
    needed = (("torch",), *PACKAGES[extra])
    found = {names[0]: next(filter(None, map(installed, names)), None) for names in needed}
    if missing := [name for name, version in found.items() if version is None]:
        raise Unavailable(
            f"runtime={runtime!r} needs {' and '.join(missing)}; pip install 'attnsweep[{extra}]'"
        )
    return ", ".join(f"{name} {version}" for name, version in found.items())
