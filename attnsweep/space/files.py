"""Sweep files, and the overrides that follow them on the command line."""

import itertools
import os
import runpy
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attnsweep.core.errors import UserError, did_you_mean, reason
from attnsweep.core.source import Source
from attnsweep.space import words
from attnsweep.space.grid import Point, grid
from attnsweep.space.sweep import Sweep
from attnsweep.tasks import own
from attnsweep.tasks.registry import AXES

MOST_NAMED = 3  # files of a folder that is given in their place
WORDS = {"none": None, "null": None, "true": True, "false": False}  # of the command line


def parse_override(text: str) -> tuple[str, list[Any]]:
    """`seed=0,1,2` as ("seed", [0, 1, 2]), and `positions=none` as the word where an axis has it. Raises
    UserError where there is no `=` or no value.
    """
    key, sign, values = text.partition("=")
    if not sign or not values:
        raise UserError(f"{text!r} is not an override; write key=value, such as epochs=2 or seed=0,1,2")
    if values[0] in "[({" or values.startswith("tune."):
        raise UserError(f"{text!r} is Python; on the command line write a grid as {key}=1,2,3")
    words = AXES[key].choices if key in AXES else ()
    return key, [value if value in words else literal(value) for value in values.split(",")]


def parse_overrides(texts: Iterable[str]) -> dict[str, list[Any]]:
    """The overrides of a command line. Raises UserError where a key is named twice."""
    found: dict[str, list[Any]] = {}
    for key, values in map(parse_override, texts):
        if key in found:
            both = ",".join(map(str, [*found[key], *values]))
            raise UserError(f"{key}= is given twice; for a grid write {key}={both}")
        found[key] = values
    return found


def literal(text: str) -> Any:
    """A word of the command line as a number where it is one, or None, True or False."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_sweep(path: str | Path) -> Sweep:
    """The variable `sweep` of a sweep file, named after it. Raises UserError where the file gives none."""
    path = Path(path)
    if path.is_dir():
        inside = ", ".join(sorted(str(one) for one in path.glob("*.py"))[:MOST_NAMED])
        raise UserError(f"{path} is a folder; name a sweep file{f', such as {inside}' if inside else ''}")
    if not path.is_file():
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.py")])
        raise UserError(f"there is no sweep file {path}{near}")
    import pandas  # noqa: F401  looks for packages that it can do without: not beside the sweep file

    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # what lies beside it is found, after all that is installed
    try:
        with words.importable():
            names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}{line_of(error, path)}: {reason(error)}") from error
    if not isinstance(names.get("sweep"), Sweep):
        fault = (
            "defines no variable `sweep`"
            if "sweep" not in names
            else f"sets sweep to a {type(names['sweep']).__name__}"
        )
        raise UserError(
            f"{path} {fault}; write: from attnsweep import Sweep; sweep = Sweep(model='vit', depth=6)"
        )
    sweep: Sweep = names["sweep"]
    sweep.parts = tuple(relative_to_sweep(part, path.parent) for part in sweep.parts)
    return sweep if sweep.name else sweep.override({"name": [path.stem]})


def own_sources(sweep: Sweep) -> list[Source]:
    """The texts of the user's own models in a sweep. Raises UserError where one cannot be read."""
    models = itertools.chain.from_iterable(grid(part.get("model")) for part in sweep.parts)
    return [own.read(model) for model in dict.fromkeys(models) if own.is_own(model)]


def relative_to_sweep(part: Point, folder: Path) -> Point:
    """The part with the files of a user's own models looked for in the folder of the sweep file first."""
    models = grid(part.get("model"))
    if not any(map(own.is_own, models)):
        return part
    found = [own.located(one, folder) if own.is_own(one) else one for one in models]
    return {**part, "model": {"grid_search": found}}


def line_of(error: BaseException, path: Path) -> str:
    """`:LINE` of the sweep file where the error arose."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""
