"""The folders that a Python file adds to `sys.path`, as far as its text says which: nothing of it is run.

What is looked for are `sys.path.insert(0, PATH)`, `append` and the like, where PATH is made of strings,
`__file__`, `os.path` and `pathlib`, also by way of names that the file gives to such paths. Where packages
are installed, nothing is the user's.
"""

import ast
import contextlib
import functools
import operator
import os
import pathlib
from collections.abc import Mapping
from typing import Any

SETTERS = ("insert", "append", "extend")
# of os and os.path
FUNCTIONS = ("abspath", "dirname", "expanduser", "getcwd", "join", "normpath", "realpath")
METHODS = ("absolute", "as_posix", "cwd", "expanduser", "joinpath", "resolve", "with_name")  # of a path
INSTALLED = {"site-packages", "dist-packages"}
PARTS = ("curdir", "pardir", "parent", "parents", "path", "Path")
KNOWN: Mapping[str, Any] = {"os": os, "pathlib": pathlib, "Path": pathlib.Path, "path": os.path, "str": str}


class Unknown(ValueError):
    """An expression whose value the text alone does not say."""


@functools.lru_cache(maxsize=1024)
def added(text: str, file: str) -> tuple[str, ...]:
    """The folders that a file adds, in full, the first ones first. Nothing where the text is no Python."""
    if "path" not in text:
        return ()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    names: dict[str, Any] = {**KNOWN, "__file__": os.path.abspath(file)}
    return tuple(dict.fromkeys(folder for node in ordered(tree) for folder in folders_of(node, names)))


def ordered(tree: ast.AST) -> list[ast.stmt | ast.expr]:
    """All statements and expressions, each before those that come after it in the text."""
    placed = [node for node in ast.walk(tree) if isinstance(node, ast.stmt | ast.expr)]
    return sorted(placed, key=lambda node: (node.lineno, node.col_offset))


def folders_of(node: ast.AST, names: dict[str, Any]) -> list[str]:
    """The folders that one node adds; of an assignment, the name is noted where its value is known."""
    found: list[Any] = []
    with contextlib.suppress(Unknown, RecursionError):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = value_of(value, names)
            case ast.Call(func=ast.Attribute(value=place, attr=attr), args=[*_, last]) if attr in SETTERS:
                found = as_list(value_of(last, names)) if is_search_path(place) else []
            case (
                ast.AugAssign(target=place, value=value)
                | ast.Assign(targets=[ast.Subscript(value=place)], value=value)
            ):
                found = as_list(value_of(value, names)) if is_search_path(place) else []
    paths = [os.path.abspath(one) for one in found if isinstance(one, str | os.PathLike)]
    return [one for one in paths if not INSTALLED & {*pathlib.Path(one).parts}]


def is_search_path(node: ast.AST) -> bool:
    """Whether it is `sys.path`."""
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path"


def as_list(value: Any) -> list[Any]:
    """The value itself, or those that it has."""
    return list(value) if isinstance(value, list | tuple) else [value]


def value_of(node: ast.AST, names: Mapping[str, Any]) -> Any:
    """The value of an expression. Raises Unknown."""
    match node:
        case ast.Constant(value=str() | int() as value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [value_of(item, names) for item in items]
        case ast.Attribute(value=owner, attr=attr) if attr in (*PARTS, *FUNCTIONS, *METHODS):
            return computed(getattr, value_of(owner, names), attr)
        case ast.Subscript(value=owner, slice=index):
            return computed(operator.getitem, value_of(owner, names), value_of(index, names))
        case ast.BinOp(left=left, op=(ast.Div() | ast.Add()) as sign, right=right):
            function = operator.truediv if isinstance(sign, ast.Div) else operator.add
            return computed(function, value_of(left, names), value_of(right, names))
        case ast.JoinedStr(values=parts):
            return "".join(str(value_of(part, names)) for part in parts)
        case ast.FormattedValue(value=value, format_spec=None):
            return value_of(value, names)
        case ast.Call(func=function, args=arguments, keywords=[]):
            return computed(value_of(function, names), *(value_of(one, names) for one in arguments))
    raise Unknown


def computed(function: Any, *arguments: Any) -> Any:
    """What a function gives. Raises Unknown for whatever it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        raise Unknown from error
