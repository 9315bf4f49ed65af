"""Imports from source code in memory: a user's modules, without their files.

A module `blocks` of one project is not that of another, nor an installed package of that name: the modules
are in `sys.modules` only while their importer is active.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PREFIX = "attnsweep_own_"


@dataclass(frozen=True)
class Module:
    """One Python module: its name, its file, its text, whether it is a package, and whether that is open:
    what else lies in its folder can be found there, as by listing it.
    """

    name: str
    file: str
    text: str
    is_package: bool = False
    is_open: bool = False


class Importer(importlib.abc.MetaPathFinder, importlib.abc.ExecutionLoader):
    """Imports the modules that it is given, while it is active."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.known: Mapping[str, Module] = {module.name: module for module in modules}
        self.tops = {name.partition(".")[0] for name in self.known}
        self.loaded: dict[str, types.ModuleType] = {}
        self.hidden: dict[str, types.ModuleType] = {}

    def enter(self) -> None:
        """Activates it: its modules can be imported, and no others of their names."""
        self.hidden = self._taken_out()
        sys.modules.update(self.loaded)
        sys.meta_path.insert(0, self)

    def leave(self) -> None:
        """Undoes `enter`."""
        sys.meta_path.remove(self)
        self.loaded = self._taken_out()
        sys.modules.update(self.hidden)

    def _taken_out(self) -> dict[str, types.ModuleType]:
        names = [name for name in [*sys.modules] if name.partition(".")[0] in self.tops]
        return {name: sys.modules.pop(name) for name in names}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`; None for what is not one of the texts."""
        if fullname not in self.known:
            return None
        spec = importlib.util.spec_from_loader(fullname, self, is_package=self.is_package(fullname))
        if spec and spec.submodule_search_locations and not self.known[fullname].is_open:
            spec.submodule_search_locations.clear()  # a file that lies there, but is not known, is not found
        return spec

    def get_filename(self, fullname: str) -> str:
        return self.known[fullname].file

    def get_source(self, fullname: str) -> str:
        return self.known[fullname].text

    def is_package(self, fullname: str) -> bool:
        return self.known[fullname].is_package


def main_name(sha256: str) -> str:
    """The name of a user's own file in `sys.modules`."""
    return f"{PREFIX}{sha256[:12]}"


@contextlib.contextmanager
def mains_kept() -> Iterator[None]:
    """Restores the modules of users' own files that are run again within the context."""
    before = {name: module for name, module in [*sys.modules.items()] if name.startswith(PREFIX)}
    try:
        yield
    finally:
        sys.modules.update(before)


def is_own(name: str) -> bool:
    """Whether a module is a user's own file, or a user's module that it imports."""
    return name.startswith(PREFIX) or name in active_names()


def active_names() -> set[str]:
    """The modules of the active importers."""
    return {name for importer in active() for name in importer.known}


def active() -> list[Importer]:
    """The active importers."""
    return [finder for finder in sys.meta_path if isinstance(finder, Importer)]


def activate(importers: Sequence[Importer]) -> None:
    """Activates these importers, and no others."""
    for importer in active():
        importer.leave()
    for importer in importers:
        importer.enter()
