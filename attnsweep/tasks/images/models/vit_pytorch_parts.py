"""vit-pytorch module by module: a model needs one or two, and the package imports all fifty, among them one
that needs torchvision, which imports torch's compiler. That is half of what a new worker imports.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any

NAME = "vit_pytorch"


class PartByPart(ModuleType):
    """A package whose modules are imported by name; its own file is executed only when asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        whole: ModuleType = self
        whole.__class__ = ModuleType
        self.__spec__.loader.exec_module(whole)
        return getattr(whole, name)


def import_part_by_part(name: str = NAME) -> None:
    """Has a package imported so from now on; one that is imported already, or is not installed, stays as it
    is. Whoever imports something from it finds what they would have found.
    """
    if name in sys.modules or (spec := importlib.util.find_spec(name)) is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = PartByPart
    sys.modules[name] = module


import_part_by_part()
