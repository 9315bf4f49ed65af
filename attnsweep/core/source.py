"""The text of a user's own model: its file, and the modules beside it that it imports.

All of it travels with a trial, so that a worker needs no file and trains what was planned, and its hash is
part of the trial's id. What counts are the modules that Python would find in the file's folder, in the
package that the file belongs to, in a folder that the file adds to `sys.path`, in the working directory or on
PYTHONPATH; what is installed is not looked into.
"""

import ast
import functools
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attnsweep.core import files
from attnsweep.core.importing import Module
from attnsweep.core.path_edits import added

ANY = ".*"  # after the name of a package: any of its modules
FOLDER = "attnsweep_folder"  # the package that a file is in, where its folder is none: for relative imports
LIBRARIES = {*sys.stdlib_module_names, "attnsweep", "numpy", "torch"}  # in use before any model is
Reader = Callable[[str | Path], bytes]
STANDARD = sysconfig.get_paths()["stdlib"]


@dataclass(frozen=True)
class Source:
    """The text of a Python file, the package that it belongs to, and the modules that it imports, by name."""

    file: str
    text: str
    package: str = FOLDER
    modules: tuple[Module, ...] = ()

    @functools.cached_property
    def sha256(self) -> str:
        """Of the file's text; where it imports modules, of their names and texts too. Paths do not count."""
        if not self.modules:
            return digest(self.text)
        parts = {module.name: digest(module.text) for module in self.modules}
        return digest(json.dumps([digest(self.text), parts], sort_keys=True))


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def read(file: str | Path, *, trusted: bool = False) -> Source:
    """The file and the modules that it imports, as they are now; `trusted`: where nobody but this user and
    root can have written any of them.

    Raises OSError, which is `files.Unsafe` where somebody else can, and SyntaxError or UnicodeError where the
    bytes of one of them are no text.
    """
    bytes_of = files.read_trusted if trusted else functools.partial(files.read, follow=True)
    text, above = decode(bytes_of(file)), [os.path.basename(folder) for folder in packages_above(file)]
    package = ".".join(reversed(above)) or FOLDER  # such as `models.vision`
    places = [*added(text, str(file)), *roots(file)]
    here = os.path.dirname(os.path.abspath(file))
    there = functools.cache(functools.partial(places_of, places=places, here=here))
    known: dict[str, Module] = {}
    opened: set[str] = set()  # packages all of whose modules are known
    named = [*imports(text, package)]
    waiting = [*named]
    while waiting:
        name = waiting.pop()
        if name.endswith(ANY):
            opened.add(below := name.removesuffix(ANY))
            waiting += modules_of(below, there(name.partition(".")[0]))
        elif name not in known and (module := found(name, there(name.partition(".")[0]), bytes_of)):
            known[name] = module
            more = imports(module.text, name if module.is_package else name.rpartition(".")[0])
            if new := [one for one in added(module.text, module.file) if one not in places]:
                places += new
                there.cache_clear()
                waiting += named
            named += more
            waiting += more
    modules = sorted([*without_init(known), *known.values()], key=lambda module: module.name)
    modules = [replace(one, is_open=True) if one.name in opened else one for one in modules]
    return Source(str(file), text, package, tuple(modules))


decode = importlib.util.decode_source  # the text of a Python file, by the encoding that it declares


def packages_above(file: str | Path) -> list[str]:
    """The folders with an `__init__.py` that a file lies in, the innermost first."""
    folder, packages = os.path.dirname(os.path.abspath(file)), []
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        packages.append(folder)
        folder = os.path.dirname(folder)
    return packages


def roots(file: str | Path) -> list[str]:
    """The folders in which the file's own modules are looked for, the first ones first: where it lies, where
    the package lies that it belongs to, the working directory, and what stands before the standard library on
    `sys.path`: the folder of the script, and PYTHONPATH.
    """
    here = os.path.dirname(os.path.abspath(file))
    above = [os.path.dirname(folder) for folder in packages_above(file)[-1:]]
    first, _ = search_path(tuple(sys.path))
    return [*dict.fromkeys([here, *above, *(os.path.abspath(folder) for folder in ("", *first))])]


def places_of(top: str, places: Sequence[str], here: str) -> list[str]:
    """The folders in which a module without dots may lie, without its `.py`; `here` is that of the file."""
    if top == FOLDER:
        return [here]
    paths = [os.path.join(place, top) for place in places if top not in LIBRARIES]
    return [path for path in paths if os.path.isdir(path) or os.path.isfile(f"{path}.py")]


def found(name: str, places: Sequence[str], bytes_of: Reader) -> Module | None:
    """The first module of that name; None where it is none of the user's. `places` are those of its `top`."""
    top, _, rest = name.partition(".")
    for place in places if rest or top != FOLDER else ():
        module = module_at(name, os.path.join(place, *rest.split(".")) if rest else place, bytes_of)
        regular = top == FOLDER or os.path.isfile(os.path.join(place, "__init__.py"))
        if module and (not rest or regular or not is_installed(top)):
            return module
    return None


def modules_of(package: str, places: Sequence[str]) -> list[str]:
    """All modules and packages that lie in a package, by their names."""
    inner = package.split(".")[1:]
    folders = [folder for place in places if os.path.isdir(folder := os.path.join(place, *inner))]
    names = {
        name.removesuffix(".py")
        for folder in folders[:1]
        for name in os.listdir(folder)
        if name.endswith(".py") or os.path.isfile(os.path.join(folder, name, "__init__.py"))
    }
    return [f"{package}.{name}" for name in sorted(names - {"__init__"})]


def module_at(name: str, path: str, bytes_of: Reader) -> Module | None:
    """The module of that name, where its file without the `.py`, or its folder, is at a path."""
    for file, is_package in ((os.path.join(path, "__init__.py"), True), (f"{path}.py", False)):
        if os.path.isfile(file):
            return Module(name, file, decode(bytes_of(file)), is_package, is_package and has_compiled(path))
    return None


def has_compiled(folder: str) -> bool:
    """Whether compiled modules lie in a folder, which have no text."""
    return any(name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)) for name in os.listdir(folder))


@functools.lru_cache(maxsize=8)
def search_path(path: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stands on `sys.path` before the standard library, and what stands there from it on: installed."""
    place = path.index(STANDARD) if STANDARD in path else 0
    return path[:place], path[place:]


@functools.cache
def is_installed(package: str) -> bool:
    """Whether a package of that name is installed, with an `__init__.py`: it goes before a folder without."""
    spec = importlib.machinery.PathFinder.find_spec(package, search_path(tuple(sys.path))[1])
    return spec is not None and spec.origin is not None


def without_init(known: Mapping[str, Module]) -> Iterator[Module]:
    """The packages above known modules that have no `__init__.py`, as empty ones."""
    above = {str(parent) for name in known for parent in parents(name)}
    for name in above - known.keys():
        yield Module(name, "", "", is_package=True)


def parents(name: str) -> list[str]:
    """The packages that a module lies in: of `a.b.c` these are `a` and `a.b`."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


@functools.lru_cache(maxsize=1024)
def imports(text: str, package: str) -> tuple[str, ...]:
    """Every name that a module of a package may import, wherever in its text it does: `from a.b import c`
    names `a`, `a.b` and `a.b.c`. Nothing where the text is no Python.
    """
    try:
        nodes = [*ast.walk(ast.parse(text))]
    except (SyntaxError, ValueError, RecursionError):
        return ()
    named = {name for node in nodes for name in named_by(node, package)}
    return tuple(sorted({one for name in named for one in (*parents(name), name)}))


def named_by(node: ast.AST, package: str) -> Iterator[str]:
    """The modules that one node of a syntax tree names: an import statement, or `import_module("a.b")`."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            if base := absolute("." * level + (module or ""), package):
                yield from (base, *(f"{base}.{alias.name}" for alias in names if alias.name != "*"))
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[named, *_],
        ):
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield from filter(None, [absolute(named.value, package)])
            else:  # a name that is made as the file runs
                yield from named_below(named, package)
        case ast.Attribute(attr="iter_modules" | "walk_packages") if package != FOLDER:
            yield f"{package}{ANY}"


def named_below(made: ast.expr, package: str) -> Iterator[str]:
    """The package, as `a.b.*`, one of whose modules a name is, which begins with `a.b.` and is made of parts;
    without such a beginning, the module's own.
    """
    match made:
        case ast.BinOp(left=ast.Constant(value=str(first)), op=ast.Add() | ast.Mod()):
            pass
        case ast.JoinedStr(values=[ast.Constant(value=str(first)), *_]):
            pass
        case _:
            first = "."
    below, dot, _ = first.partition("%")[0].rpartition(".")
    if not dot:
        return
    whole = absolute(below, package) if below.strip(".") else absolute(f".{below}", package)
    if whole and whole != FOLDER:
        yield f"{whole}{ANY}"


def absolute(name: str, package: str) -> str:
    """A module's full name, from one with leading dots; nothing where it has too many."""
    try:
        return importlib.util.resolve_name(name, package)
    except ImportError:
        return ""
