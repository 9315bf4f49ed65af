"""The runtimes for trained models, and the packages that they need; imports none of them."""

import importlib.metadata

from attnsweep.core.errors import Sentence, one_of

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
    found = {names: version_of(names) for names in (("torch",), *PACKAGES[extra])}
    if missing := [names[0] for names, version in found.items() if version is None]:
        raise Unavailable(
            f"runtime={runtime!r} needs {' and '.join(missing)}; pip install 'attnsweep[{extra}]'"
        )
    return ", ".join(f"{names[0]} {version}" for names, version in found.items())


def version_of(names: tuple[str, ...]) -> str | None:
    """The version of the first installed package of these; None where none is."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
