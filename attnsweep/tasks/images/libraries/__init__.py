"""Models of other libraries by their names there: `timm:vit_tiny_patch16_224`, `torchvision:swin_t`.

The arguments of their constructors are hyperparameters: one that is an axis of images by its name and range
stands in the column of that axis, all others in `model_args`; those that a sweep does not name are the
library's own. Channels, classes and, where a model asks for it, the side of the images come from the data.
"""

import difflib
import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from attnsweep.core.axes import Config, filled
from attnsweep.core.errors import UserError, reason
from attnsweep.core.text import counted
from attnsweep.tasks import own
from attnsweep.tasks.images.axes import KNOWN
from attnsweep.tasks.images.libraries.library import Library, Preprocessing

if TYPE_CHECKING:
    from torch import nn

OF_DATA = ("num_classes", "channels", "in_chans", "image_size", "img_size")  # whatever a class means by them
SIZES = {  # the axes in whose columns arguments may stand
    key: axis for key, axis in KNOWN.items() if axis.architecture and axis.settable and key not in OF_DATA
}
DROPOUT = KNOWN["dropout"]  # whose range is that of every such rate
SPECIAL = ("self", "device", "dtype")  # of a constructor, and no matter of a sweep
Point = Mapping[str, object]
LIBRARIES = ("timm", "torchvision")


def has(model: str) -> bool:
    """Whether a model's name is `timm:NAME` or `torchvision:NAME`."""
    library, colon, _ = model.partition(":")
    return bool(colon) and library in LIBRARIES and not own.is_own(model)


def known(model: str) -> tuple[Library, str]:
    """The library of a model, and its name there. Raises UserError where there is none of that name."""
    prefix, _, name = model.partition(":")
    library = library_of(model)
    names = library.names()
    if name not in names:
        begin = [one for one in names if name and one.startswith(name)]
        near = [*begin, *difflib.get_close_matches(name, names, n=4, cutoff=0.5)][:4]
        hint = f"; near are {', '.join(near)}" if near else f", which has {len(names):,}"
        raise UserError(f"model={model!r} is no model of {prefix}{hint}")
    return library, name


def library_of(model: str) -> Library:
    """Raises UserError where it is timm, and timm is not installed: torchvision always is."""
    if model.startswith("torchvision:"):
        from attnsweep.tasks.images.libraries import torchvision_models  # here: torch takes seconds to import

        return torchvision_models
    try:
        from attnsweep.tasks.images.libraries import timm_models
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise UserError(f"model={model!r}: timm is not installed; pip install 'attnsweep[timm]'") from error
    return timm_models


@lru_cache(maxsize=256)
def parameters(model: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of a model that a sweep may name. Raises UserError as `known` does."""
    library, name = known(model)
    found = constructor(library.class_of(name))
    return {key: one for key, one in found.items() if key not in SPECIAL and one.kind in own.KINDS}


def constructor(kind: type) -> Mapping[str, inspect.Parameter]:
    """The parameters of a class's constructor, and of those that it passes any others on to."""
    found: dict[str, inspect.Parameter] = {}
    for one in kind.__mro__:
        if "__init__" in vars(one):
            parameters = inspect.signature(one.__init__).parameters  # type: ignore[misc]
            found = {**parameters, **found}
            if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
                break
    return found


def takes(model: str) -> Collection[str]:
    """The keys of a sweep that mean an argument of a model; `img_size` is the side of the images, whatever
    the class calls it. Raises UserError as `known` does.
    """
    return {*parameters(model), "img_size"}


def preprocessing(model: str) -> Preprocessing:
    """What its published weights were trained with. Raises UserError as `known` does."""
    library, name = known(model)
    return library.preprocessing(name)


def complete(
    point: Point, model: str, *, recipe: Sequence[str], of_data: Callable[[Point], Config]
) -> Config:
    """The configuration of a library's model; see `own.complete`. Raises UserError."""
    sized = with_image_size(point, model)
    data = of_data(sized)
    if (channels := point.get("in_chans")) not in (None, data["channels"]):
        raise UserError(
            f"in_chans={channels!r} of {model} comes from the data, whose images have "
            f"{counted(data['channels'], 'channel')}; leave it out"
        )
    given = {
        key: value
        for key, value in sized.items()
        if key in parameters(model) and key not in OF_DATA and key not in recipe and value is not None
    }
    for key, value in given.items():
        check_range(key, value)
    columns = [key for key, value in given.items() if key in SIZES and own.fits(SIZES[key], value)]
    config = filled(KNOWN, (*recipe, *columns), sized) | {"model": model} | data
    recorded = {key: recordable(key, value) for key, value in given.items() if key not in columns}
    return config | ({"model_args": json.dumps(recorded, sort_keys=True)} if recorded else {})


def check_range(key: str, value: object) -> None:
    """Raises UserError where an argument is a number that no axis of its name admits, or a rate of dropout
    that is none: libraries take nearly any, and train nonsense, or fail at a step.
    """
    axis = SIZES.get(key)
    if ("drop" in key or key.endswith("prob")) and not key.endswith("size"):
        axis = replace(DROPOUT, name=key)
    for one in value if isinstance(value, list | tuple) and key not in SIZES else [value]:
        if axis and axis.kind is not str and isinstance(one, int | float) and not isinstance(one, bool):
            axis.check(one)


def with_image_size(point: Point, model: str) -> dict[str, object]:
    """The point with `image_size` for the library's own word. Raises UserError where it says both."""
    theirs, ours = point.get("img_size"), point.get("image_size")
    if theirs is not None and ours not in (None, theirs):
        raise UserError(f"img_size={theirs!r} and image_size={ours!r} of {model} are one thing; give one")
    return {**point, "image_size": theirs if ours is None else ours}


def recordable(key: str, value: object) -> Any:
    """A value as a row records it. Raises UserError where it cannot."""
    if (plain := own.plain(value)) is own.MISSING:
        raise UserError(f"{key}={value!r} cannot be recorded; use a number, a string, True, False or a list")
    return plain


def build(config: Config) -> "nn.Module":
    """The freshly initialised model of a configuration. Raises UserError where it cannot be built so."""
    model = config["model"]
    library, name = known(model)
    taken = parameters(model)
    arguments = {key: own.as_tuple(value) for key, value in json.loads(config["model_args"] or "{}").items()}
    arguments |= {key: config[key] for key in taken if key in SIZES and config[key] is not None}
    arguments |= {key: config["image_size"] for key in ("img_size", "image_size") if key in taken}
    try:
        return library.build(name, arguments, channels=config["channels"], num_classes=config["num_classes"])
    except Exception as error:  # whatever a library raises at what does not fit
        given = ", ".join(f"{key}={value}" for key, value in arguments.items())
        size = library.preprocessing(name).image_size
        raise UserError(
            f"{model} cannot be built with {given or 'its own arguments'} ({reason(error)}); "
            f"it is made for image_size={size}"
        ) from error
