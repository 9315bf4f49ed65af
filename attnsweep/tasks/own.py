"""A user's own model, `FILE.py:CLASS`: any nn.Module class that takes its hyperparameters by name.

Of its constructor's parameters, image_size, channels and num_classes come from the data set, those that are
axes stand in their columns, and all others in the column `model_args`. The file's hash is part of a trial's
id: an edited model is another one.
"""

import functools
import hashlib
import inspect
import json
import math
import os
import stat
import sys
import types
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnsweep.core.axes import Axis, Config, Value, filled
from attnsweep.core.errors import UserError, did_you_mean

PLAIN = (bool, int, float, str, type(None))
KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def is_own(model: object) -> bool:
    """Whether a model's name is `FILE.py:CLASS`."""
    return isinstance(model, str) and ".py:" in model


def split(model: str) -> tuple[str, str]:
    """The file and the class of `FILE.py:CLASS`."""
    file, _, name = model.rpartition(":")
    return file, name


def located(model: str, folder: Path) -> str:
    """`FILE.py:CLASS` with the file looked for beside the sweep file, in `folder`, and then as it stands."""
    file, name = split(model)
    beside = folder / file
    return f"{beside.as_posix()}:{name}" if beside.is_file() else model


def complete(
    point: Mapping[str, object],
    model: str,
    *,
    axes: Mapping[str, Axis],
    recipe: Sequence[str],
    given: Config,
    task_defaults: Mapping[str, Value] | None = None,
) -> Config:
    """The configuration of a user's model, of a task with these `axes`, this `recipe` and defaults of its
    own; `given` is what its data set decides.

    Raises UserError where file, class or an argument is wrong.
    """
    source = read(model)
    parameters = signature(model, source)
    ours = [name for name in parameters if name in axes and name not in given]
    defaults = {name: p.default for name in ours if (p := parameters[name]).default is not p.empty}
    defaults = {**(task_defaults or {}), **defaults}
    config = filled(axes, (*recipe, *ours), point, defaults) | {"model_sha256": digest(source)} | given
    for name in ours:
        if config[name] is None:
            raise UserError(f"{model} wants {name}; give it a value in the sweep, or a default in the class")
    others = {name: p for name, p in parameters.items() if name not in axes}
    arguments = {name: argument(point, model, p) for name, p in others.items()}
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


def refuse_strangers(point: Mapping[str, object], model: str, axes: Container[str]) -> None:
    """Raises UserError for a key of the point that is neither an axis nor a parameter of the class."""
    parameters = signature(model, read(model))
    for key in point:
        if key not in axes and key not in parameters:
            hint = did_you_mean(key, parameters) or f"; its arguments are {', '.join(parameters) or 'none'}"
            raise UserError(f"{model} takes no {key}{hint}")


def signature(model: str, source: str) -> Mapping[str, inspect.Parameter]:
    """The constructor's parameters by name. Raises UserError where one cannot be given by name."""
    parameters = inspect.signature(load_class(model, source)).parameters
    for parameter in parameters.values():
        if parameter.kind not in KINDS:
            raise UserError(f"{model} takes {parameter}; name each argument, so that a row can record it")
    return parameters


def load_class(model: str, source: str) -> type:
    """The class itself; its file, whose text is `source`, is run.

    Raises UserError where that fails, or the class is no nn.Module.
    """
    file, name = split(model)
    names = run_file(file, source)
    if name not in names:
        hint = did_you_mean(name, [key for key, value in names.items() if isinstance(value, type)])
        raise UserError(f"{file} has no class {name!r}{hint}")
    from torch import nn

    found = names[name]
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise UserError(f"{model} is not a class of torch.nn.Module; derive it from nn.Module")
    return found


@functools.lru_cache(maxsize=64)
def run_file(file: str, source: str) -> dict[str, Any]:
    """What the text of a Python file defines, run once in a process as a module of its own.

    The text travels with a trial, so that the worker needs no file, and trains what was planned.
    """
    module = types.ModuleType(f"attnsweep_own_{digest(source)[:12]}")
    module.__file__ = file
    sys.modules[module.__name__] = module  # dataclasses look there
    try:
        exec(compile(source, file, "exec"), vars(module))
    except Exception as error:
        raise UserError(f"{file} cannot be imported ({type(error).__name__}: {error}); mend it") from error
    return vars(module)


def read(model: str) -> str:
    """The text of the model's file. Raises UserError where there is none."""
    file = Path(split(model)[0])
    try:
        return file.read_text()
    except OSError as error:
        raise UserError(
            f"model={model!r}: there is no file {file}; name it from here, or from the sweep file"
        ) from error


def digest(source: str) -> str:
    """SHA-256 of the text of a file."""
    return hashlib.sha256(source.encode()).hexdigest()


def source_of(config: Mapping[str, Any]) -> str | None:
    """The text of the file of a user's own model, None for any other model.

    Raises UserError where the file is gone, or is not the one that the configuration was made of.
    """
    if not is_own(config["model"]):
        return None
    source = read(config["model"])
    if digest(source) != config["model_sha256"]:
        raise UserError(f"{config['model']} has changed since; run the sweep again, or restore the file")
    return source


def check_owner(model: str) -> None:
    """Raises UserError where somebody else may have written the file of a user's own model: a row of results
    that came from elsewhere can name any file.
    """
    if not is_own(model):
        return
    file = Path(split(model)[0])
    try:
        info = file.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"there is no file {file}") from error
    if info.st_uid not in (os.geteuid(), 0) or info.st_mode & stat.S_IWOTH:
        raise UserError(f"{file} may be somebody else's code; make it yours alone (chown, chmod o-w)")


def build(config: Mapping[str, Any], source: str) -> Any:
    """The model of a configuration, whose file has the text `source`."""
    model, arguments = config["model"], json.loads(config["model_args"] or "{}")
    columns = {name: config[name] for name in signature(model, source) if name not in arguments}
    return load_class(model, source)(**columns, **arguments)
