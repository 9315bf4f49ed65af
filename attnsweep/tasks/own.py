"""A user's own model, `FILE.py:CLASS`: any nn.Module class that takes its hyperparameters by name.

Of its constructor's parameters, image_size, channels and num_classes come from the data set. Those that match
an axis of the task's models by name, type and range are recorded in that axis's column, all others in the
column `model_args`. The hash of the file and of the user's modules that it imports is part of a trial's id:
an edited model is another one.
"""

import contextlib
import functools
import inspect
import json
import linecache
import math
import os
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attnsweep.core import files, importing
from attnsweep.core.axes import Axis, Config, Value, built_in, filled
from attnsweep.core.containment import Contained, begin_anew, ensured, seeded
from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.core.source import Source
from attnsweep.core.source import read as read_source
from attnsweep.core.waiting import awaited

if TYPE_CHECKING:
    import torch
    from torch import nn

OF_EVERY_SWEEP = ("task", "model", "dataset")  # keys that are never arguments of the class
PLAIN = (bool, int, float, str, type(None))
KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
MISSING = inspect.Parameter.empty
Parameters = Mapping[str, inspect.Parameter]
Axes = Mapping[str, Axis]
Point = Mapping[str, object]
# by a source's hash, the module of its latest run and what imported for it
latest_runs: dict[str, tuple[types.ModuleType, list[importing.Importer]]] = {}


def is_own(model: object) -> bool:
    """Whether a model's name is `FILE.py:CLASS`."""
    return isinstance(model, str) and ".py:" in model


def split(model: str) -> tuple[str, str]:
    """The file and the class of `FILE.py:CLASS`."""
    file, _, name = model.rpartition(":")
    return file, name


def located(model: str, folder: Path) -> str:
    """`FILE.py:CLASS` with the file searched first in the sweep file's `folder`, then as it is written."""
    file, name = split(model)
    near = folder / file
    return f"{near.as_posix()}:{name}" if near.is_file() else model


def complete(
    point: Point,
    model: str,
    *,
    axes: Axes,
    recipe: Sequence[str],
    of_data: Callable[[Point], Config],
    later: Axes | None = None,
    task_defaults: Callable[[Point], Mapping[str, Value]] = lambda point: {},
) -> Config:
    """The configuration of a user's model, for a task with these `axes`, `recipe` and defaults; `of_data`
    gives the values that a point's data set determines. A parameter named like an axis that came `later`
    stays an argument of the class.

    Raises UserError where file, class or an argument is wrong.
    """
    source = read(model)
    parameters = signature(model, source)
    bearing = bearers(parameters, axes)
    meant = {key: value for key, value in point.items() if is_meant(key, value, parameters, axes, recipe)}
    data = of_data(meant)
    columns = [name for name in bearing if stands_in_column(name, point, parameters, axes=axes, data=data)]
    of_class = {name: scalar(parameters[name].default) for name in columns if has_default(parameters[name])}
    defaults = {**task_defaults(meant), **of_class}
    known = {**axes, **(later or {})}
    config = filled(known, (*recipe, *columns), meant, defaults) | {"model_sha256": source.sha256} | data
    if lacking := next((name for name in columns if config[name] is None), None):
        raise wanting(model, lacking)
    others = [parameter for name, parameter in parameters.items() if name not in columns]
    arguments = {one.name: argument(point, model, one, axes) for one in others}
    recorded = {name: value for name, value in arguments.items() if value is not MISSING}
    return config | ({"model_args": json.dumps(recorded, sort_keys=True)} if recorded else {})


def bearers(parameters: Parameters, axes: Axes) -> list[str]:
    """The parameters that stand for axes of their names: without a default, or with one that is admitted."""
    return [
        name
        for name, parameter in parameters.items()
        if name in axes and (not has_default(parameter) or fits(axes[name], parameter.default))
    ]


def has_default(parameter: inspect.Parameter) -> bool:
    """Whether a parameter has a default other than None."""
    return parameter.default is not MISSING and parameter.default is not None


def fits(axis: Axis, value: object) -> bool:
    """Whether an axis admits a value."""
    try:
        axis.check(value)
    except UserError:
        return False
    return True


def is_meant(key: str, value: object, parameters: Parameters, axes: Axes, recipe: Collection[str]) -> bool:
    """Whether a value of the point belongs in the column of its key, rather than being only an argument."""
    if key not in parameters or key in OF_EVERY_SWEEP or value is None:
        return True
    return key in axes and (key in recipe or key in bearers(parameters, axes)) and fits(axes[key], value)


def stands_in_column(name: str, point: Point, parameters: Parameters, *, axes: Axes, data: Config) -> bool:
    """Whether the value of a parameter that stands for an axis goes into the axis's column: not if the axis
    does not admit it, or if it is not what the data set determines, such as other `channels`.
    """
    given, default = point.get(name), parameters[name].default
    if name in data:
        return given is None or given == data[name]
    value = default if given is None else given
    return value is MISSING or (value is not None and fits(axes[name], value))


def argument(point: Point, model: str, parameter: inspect.Parameter, axes: Axes) -> Any:
    """The value of a parameter for `model_args`: the point's, else the default; MISSING if a row cannot
    record the default, which is part of the file.
    """
    name, default = parameter.name, parameter.default
    given = point.get(name, MISSING) if name not in OF_EVERY_SWEEP else MISSING
    if given is None and name in axes:  # as for built-in models: it has none
        given = MISSING
    if given is MISSING:
        if default is MISSING:
            raise wanting(model, name)
        value = plain(default)
        return MISSING if isinstance(value, list | dict) else value
    if (value := plain(given)) is MISSING:
        raise UserError(
            f"{name}={given!r} cannot be recorded; "
            "use a number, a string, True, False or None, or a list or dict of these"
        )
    return value


def plain(value: Any) -> Any:
    """A value as JSON, tuples as lists and all keys as text; MISSING if JSON cannot hold it."""
    value = scalar(value)
    if isinstance(value, list | tuple):
        items = [plain(item) for item in value]
        return MISSING if any(item is MISSING for item in items) else items
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        named = {str(key): plain(item) for key, item in value.items()}
        return MISSING if any(item is MISSING for item in named.values()) else named
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if isinstance(value, PLAIN) and finite else MISSING


def scalar(value: Any) -> Any:
    """A scalar of numpy or a member of an enumeration as the number or text that it is; else as it is."""
    return value.item() if isinstance(value, np.generic) else built_in(value)


def wanting(model: str, name: str) -> UserError:
    """The error about an argument of the constructor that has no value."""
    given = "" if name in OF_EVERY_SWEEP else "a value in the sweep, or "
    return UserError(f"{model} wants {name}; give it {given}a default in the class")


@functools.lru_cache(maxsize=64)
def signature(model: str, source: Source) -> Parameters:
    """The constructor's parameters by name, without `*args` and `**kwargs`, which get nothing: a row records
    what has a name. Raises UserError where one that has no default cannot be given by name.
    """
    with awaited(f"the import of {split(model)[0]}"), contextlib.redirect_stdout(sys.stderr), Contained():
        found = load_class(model, source)
    from torch import nn

    if found.__init__ is nn.Module.__init__:  # type: ignore[misc]
        return {}
    made_otherwise = type(found).__call__ is not type.__call__  # by a metaclass, which hands on what it gets
    known = inspect.signature(functools.partial(found.__init__, None) if made_otherwise else found)  # type: ignore[misc]
    for parameter in known.parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is MISSING:
            raise UserError(f"{model} takes {parameter} by its place; take it by its name, as rows record it")
    return {name: parameter for name, parameter in known.parameters.items() if parameter.kind in KINDS}


def load_class(model: str, source: Source) -> type:
    """The class itself; its file is run.

    Raises UserError where that fails, or the class is no nn.Module.
    """
    file, name = split(model)
    names = run_file(source)
    outer, *inner = name.split(".")
    found = functools.reduce(lambda owner, part: getattr(owner, part, None), inner, names.get(outer))
    if found is None:
        hint = did_you_mean(name, [key for key, value in names.items() if isinstance(value, type)])
        raise UserError(f"{file} has no class {name!r}{hint}")
    from torch import nn

    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise UserError(f"{model} is not a class of torch.nn.Module; derive it from nn.Module")
    return found


def run_file(source: Source) -> dict[str, Any]:
    """Runs a Python file as a new module, so that trials do not share its state; returns what it defines.

    A file that can run but once in a process, as one that defines an operator of torch's or enters itself in
    a registry, gives what it defined then. To be called within `Contained`, as its importer stays active. The
    global generators are seeded for it, and restored. Raises UserError.
    """
    import torch

    begin_anew()
    module = types.ModuleType(importing.main_name(source.sha256))
    module.__file__, module.__package__ = source.file, source.package
    importers = [importing.Importer(source.modules)] if source.modules else []
    linecache.cache[source.file] = len(source.text), None, source.text.splitlines(True), source.file
    sys.argv[:] = [source.file]  # for a script that parses its arguments
    try:
        with seeded(0), torch.enable_grad(), threads_set_again():
            enter(module, importers)
            exec(compile(source.text, source.file, "exec", dont_inherit=True), vars(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if source.sha256 not in latest_runs:
            raise not_importable(source, error) from error
        module, importers = latest_runs[source.sha256]
        enter(module, importers)
    latest_runs[source.sha256] = module, importers
    return vars(module)


def enter(module: types.ModuleType, importers: Sequence[importing.Importer]) -> None:
    """Lets a file's module be found, as by dataclasses, and what it imports beside it."""
    sys.modules[module.__name__] = module
    importing.activate(importers)


def not_importable(source: Source, error: BaseException) -> UserError:
    """The error about a file whose first run failed."""
    if isinstance(error, SystemExit):
        return UserError(
            f"{source.file} ends the program when it is imported (SystemExit: {error}); "
            "put that below if __name__ == '__main__'"
        )
    return UserError(f"{source.file} cannot be imported ({type(error).__name__}: {error}); mend it")


@contextlib.contextmanager
def threads_set_again() -> Iterator[None]:
    """A context in which the number of threads between operators, which torch takes once, may be set anew."""
    import torch

    def tolerant(nthreads: int) -> None:
        with contextlib.suppress(RuntimeError):
            once(nthreads)

    once, torch.set_num_interop_threads = torch.set_num_interop_threads, tolerant
    try:
        yield
    finally:
        torch.set_num_interop_threads = once


def read(model: str, *, trusted: bool = False) -> Source:
    """The source of a model: its file, and the user's modules that it imports.

    Raises UserError where the file is missing; with `trusted`, also where others may have written any.
    """
    file = split(model)[0]
    try:
        return read_source(file, trusted=trusted)
    except files.Unsafe as error:
        raise UserError(f"{error.filename} may be somebody else's code ({error.strerror})") from error
    except (SyntaxError, UnicodeError) as error:
        raise UserError(f"{file} or a module that it imports is no text ({error}); mend it") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        hint = did_you_mean(file, near(file)) or "; name it from here, or from the sweep file"
        raise UserError(f"model={model!r}: there is no file {file}{hint}") from error


def near(file: str) -> list[str]:
    """The Python files in the folder of a file."""
    folder = os.path.dirname(file)
    with contextlib.suppress(OSError, ValueError):
        return [os.path.join(folder, one) for one in os.listdir(folder or ".") if one.endswith(".py")]
    return []


def source_of(config: Mapping[str, Any], *, trusted: bool = False) -> Source | None:
    """The source of a user's own model; None for any other model.

    Raises UserError where the file is gone or its source has changed since the configuration was made; with
    `trusted`, also where somebody else may have written it: a row of foreign results can name any file.
    """
    if not is_own(config["model"]):
        return None
    source = read(config["model"], trusted=trusted)
    if source.sha256 != config["model_sha256"]:
        raise UserError(f"{config['model']} has changed since; run the sweep again, or restore the file")
    return source


def build(
    config: Mapping[str, Any], source: Source | None, *, axes: Axes, example: Callable[[], tuple[Any, ...]]
) -> "nn.Module":
    """The model of a configuration for inputs like `example`; `source` or its file's. Raises UserError."""
    source = source or source_of(config)
    assert source, "every model of one's own has a text"
    import torch

    with ensured(), torch.enable_grad():  # afterwards too, whatever its constructor sets
        return made_ready(construct(config, source, axes), example)


def construct(config: Mapping[str, Any], source: Source, axes: Axes) -> "nn.Module":
    """An instance of the class, with the configuration's arguments."""
    model, recorded = config["model"], json.loads(config["model_args"] or "{}")
    parameters = signature(model, source)
    tuples = {name for name, one in parameters.items() if isinstance(one.default, tuple)}
    arguments = {
        name: as_tuple(value) if name in tuples else value
        for name, value in recorded.items()
        if not is_default(value, parameters[name])
    }
    arguments |= {name: config[name] for name in bearers(parameters, axes) if name not in recorded}
    found: nn.Module = load_class(model, source)(**arguments)
    return found


def is_default(value: Any, parameter: inspect.Parameter) -> bool:
    """Whether a recorded value is the default, which the class has: its type may not exist in JSON."""
    default = MISSING if parameter.default is MISSING else plain(parameter.default)
    return default is not MISSING and json.dumps(value) == json.dumps(default)


def as_tuple(value: Any) -> Any:
    """Lists as tuples, which JSON does not have."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def made_ready(model: "nn.Module", example: Callable[[], tuple[Any, ...]]) -> "nn.Module":
    """The model, its lazy layers initialised by an example, inputs cast to its own floating-point type."""
    import torch
    from torch.nn.parameter import is_lazy

    kinds = {one.dtype for one in model.parameters() if one.is_floating_point()}
    if kinds and kinds != {torch.float32} and len(kinds) == 1:
        model.register_forward_pre_hook(functools.partial(cast_inputs, dtype=kinds.pop()))
    if any(is_lazy(one) for one in (*model.parameters(), *model.buffers())):
        device = torch.empty(0).device  # the default one, on which the model was made
        model.eval()
        with torch.no_grad():
            model(*(changed(one, lambda one: one.to(device)) for one in example()))
        model.train()
    return model


def cast_inputs(model: "nn.Module", inputs: tuple[Any, ...], *, dtype: "torch.dtype") -> tuple[Any, ...]:
    """A hook that casts a model's floating-point inputs."""
    return tuple(changed(one, lambda x: x.to(dtype) if x.is_floating_point() else x) for one in inputs)


def changed(inputs: Any, change: "Callable[[torch.Tensor], torch.Tensor]") -> Any:
    """A tensor, or a dictionary of tensors, each of them changed."""
    if isinstance(inputs, Mapping):
        return {key: change(one) for key, one in inputs.items()}
    return change(inputs)
