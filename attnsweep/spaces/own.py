"""A user's own model, `FILE.py:CLASS`: any nn.Module class that takes its hyperparameters by name.

Of its constructor's parameters, image_size, channels and num_classes come from the data set, those that are
axes stand in their columns, and all others in the column `model_args`. The file's hash is part of a trial's
id: an edited model is another one.
"""

import functools
import hashlib
import importlib.util
import inspect
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnsweep.axes import AXES, Config, filled
from attnsweep.errors import UserError, did_you_mean
from attnsweep.spaces import images

OF_DATA = ("image_size", "channels", "num_classes")
PLAIN = (bool, int, float, str, type(None))
KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def is_own(model: object) -> bool:
    """Whether a model's name is `FILE.py:CLASS`."""
    return isinstance(model, str) and ".py:" in model


def located(model: str, folder: Path) -> str:
    """`FILE.py:CLASS` with the file looked for beside the sweep file, in `folder`, and then as it stands."""
    file, _, name = model.rpartition(":")
    beside = folder / file
    return f"{beside.as_posix()}:{name}" if beside.is_file() else model


def complete(point: Mapping[str, object], model: str) -> Config:
    """The configuration of a user's model. Raises UserError where file, class or an argument is wrong."""
    parameters = signature(model)
    ours = [name for name in parameters if name in AXES and name not in OF_DATA]
    defaults = {name: p.default for name in ours if (p := parameters[name]).default is not p.empty}
    config = filled((*images.RECIPE, *ours), point, defaults)
    config |= {"task": images.NAME, "model": model, "model_sha256": sha256(model), **images.of_images(point)}
    for name in ours:
        if config[name] is None:
            raise UserError(f"{model} wants {name}; give it a value in the sweep, or a default in the class")
    others = {name: p for name, p in parameters.items() if name not in AXES}
    arguments = {name: argument(point, model, p) for name, p in others.items()}
    refuse_strangers(point, model, parameters)
    if arguments:
        config["model_args"] = json.dumps(arguments, sort_keys=True)
    return config


def argument(point: Mapping[str, object], model: str, parameter: inspect.Parameter) -> Any:
    """The value of a parameter that is no axis: the point's, else the constructor's default."""
    name = parameter.name
    value = point.get(name, parameter.default)
    if value is parameter.empty:
        raise UserError(f"{model} wants {name}; give it a value in the sweep, or a default in the class")
    value = value.item() if hasattr(value, "item") else value  # numpy's, as domains draw them
    if not isinstance(value, PLAIN) or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{name}={value!r} cannot be recorded; use a number, a string, True, False or None")
    return value


def refuse_strangers(point: Mapping[str, object], model: str, parameters: Mapping[str, Any]) -> None:
    """Raises UserError for a key of the point that is neither an axis nor a parameter of the class."""
    for key in point:
        if key not in AXES and key not in parameters:
            hint = did_you_mean(key, parameters) or f"; its arguments are {', '.join(parameters) or 'none'}"
            raise UserError(f"{model} takes no {key}{hint}")


def signature(model: str) -> Mapping[str, inspect.Parameter]:
    """The constructor's parameters by name. Raises UserError where one cannot be given by name."""
    parameters = inspect.signature(load_class(model)).parameters
    for parameter in parameters.values():
        if parameter.kind not in KINDS:
            raise UserError(f"{model} takes {parameter}; name each argument, so that a row can record it")
    return parameters


def load_class(model: str) -> type:
    """The class itself; its file is run. Raises UserError where that fails, or it is no nn.Module."""
    file, _, name = model.rpartition(":")
    module = load_module(str(Path(file).resolve()), sha256(model))
    found = vars(module).get(name)
    if found is None:
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise UserError(f"{file} has no class {name!r}{did_you_mean(name, classes)}")
    from torch import nn

    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise UserError(f"{model} is not a class of torch.nn.Module; derive it from nn.Module")
    return found


@functools.lru_cache(maxsize=64)
def load_module(path: str, sha256: str) -> Any:
    """The module of a file, run once for each of its contents."""
    name = f"attnsweep_own_{sha256[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} cannot be imported ({type(error).__name__}: {error}); mend it") from error
    return module


def sha256(model: str) -> str:
    """SHA-256 of the model's file. Raises UserError where there is none."""
    file = Path(model.rpartition(":")[0])
    if not file.is_file():
        raise UserError(
            f"model={model!r}: there is no file {file}; name it from here, or from the sweep file"
        )
    return hashlib.sha256(file.read_bytes()).hexdigest()


def build(config: Mapping[str, Any]) -> Any:
    """The model of a configuration. Raises UserError where its file has changed since it was planned."""
    model = config["model"]
    if config["model_sha256"] not in (None, sha256(model)):
        raise UserError(f"{model} has changed since this trial was planned; run the sweep again")
    given = {name: config[name] for name in signature(model) if name in AXES}
    return load_class(model)(**given, **json.loads(config["model_args"] or "{}"))
