"""How most classes of vit-pytorch are built: they share their arguments' names."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from attnsweep.tasks.images.models.zoo.parts import ThreeChannels
from attnsweep.tasks.images.zoo_sizes import TAKES

Config = Mapping[str, Any]
Builder = Callable[[Config], nn.Module]


def load(path: str) -> Any:
    """`module.Class` of vit-pytorch, whose modules are imported only when one is built."""
    module, name = path.split(".")
    return getattr(importlib.import_module(f"vit_pytorch.{module}"), name)


def sizes(config: Config) -> dict[str, Any]:
    """The keyword arguments that vit-pytorch's flat models share, as far as the mechanism takes them."""
    taken = [axis for axis in TAKES[config["model"]] if axis != "drop_path"]  # which builders see to
    return {key: config[key] for key in ("image_size", "num_classes", *taken)}


def flat(path: str, fixed: Mapping[str, Any] | None = None) -> Callable[[Config], Any]:
    """The builder of a class that takes vit-pytorch's usual arguments, with some fixed ones."""
    return lambda config: load(path)(**sizes(config), channels=config["channels"], **(fixed or {}))


def rgb(path: str, fixed: Mapping[str, Any]) -> Builder:
    """The same of a class that knows only three channels."""
    return lambda config: nn.Sequential(ThreeChannels(), load(path)(**sizes(config), **fixed))
