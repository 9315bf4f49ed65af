"""Fills pages of the site from the code, so that they are never out of date.

A page says `<!-- axes -->`, `<!-- columns -->`, `<!-- models -->`, `<!-- modules -->` or
`<!-- not carried -->` where a table is to stand.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attnsweep
from attnsweep.core.axes import SHARED, Axis
from attnsweep.results.schema import TABLES
from attnsweep.tasks.images.zoo_sizes import NOT_CARRIED
from attnsweep.tasks.registry import TASKS

PACKAGE = Path(attnsweep.__file__).parent
ROOMS = (
    "core", "nn", "tasks", "results", "space", "answers", "measuring", "training", "engine", "walkthrough",
    "figures", "cli",
)  # fmt: skip


def on_page_markdown(markdown: str, **context: Any) -> str:
    """The page's text with its tables; mkdocs calls this for each page."""
    tables = {
        "axes": axes,
        "columns": columns,
        "models": models,
        "modules": modules,
        "not carried": not_carried,
    }
    for mark, table in tables.items():
        comment = f"<!-- {mark} -->"
        if comment in markdown:
            markdown = markdown.replace(comment, table())
    return markdown


def axes() -> str:
    """A table of the axes that tasks share, and one for each task."""
    groups = {"Shared": SHARED.values(), **{name.capitalize(): task.axes for name, task in TASKS.items()}}
    return "\n\n".join(f"## {title}\n\n{axes_table(group)}" for title, group in groups.items())


def axes_table(group: Iterable[Axis]) -> str:
    rows = [(f"`{axis.name}`", values_of(axis), default_of(axis), axis.meaning) for axis in group]
    return markdown_table(("axis", "values", "default", "meaning"), rows)


def values_of(axis: Axis) -> str:
    if axis.choices:
        return ", ".join(f"`{choice}`" for choice in axis.choices)
    return "text" if axis.kind is str else axis.range


def default_of(axis: Axis) -> str:
    if axis.default is None:
        return "null" if "null" in axis.meaning else "derived"
    return f"`{axis.default}`"


def columns() -> str:
    """A table for each table of results."""
    parts = []
    for name, described in TABLES.items():
        rows = [
            (f"`{column.name}`", str(column.type), column.unit, column.better or "", column.meaning)
            for column in described
        ]
        head = ("column", "type", "unit", "better", "meaning")
        parts.append(f"## `results/{name}` ({len(rows)} columns)\n\n{markdown_table(head, rows)}")
    return "\n\n".join(parts)


def models() -> str:
    """For each task its models, each with the axes of its architecture."""
    parts = []
    for name, task in TASKS.items():
        rows = [
            (f"`{model}`", ", ".join(f"`{axis}`" for axis in axes) or "none")
            for model, axes in task.models.items()
        ]
        recipe = ", ".join(f"`{axis}`" for axis in task.recipe)
        sets = ", ".join(f"`{dataset}`" for dataset in task.dataset_names)
        parts.append(
            f"## {name.capitalize()}\n\nData: {sets}. Every model is trained by {recipe}.\n\n"
            f"{markdown_table(('model', 'axes of its architecture'), rows)}"
        )
    return "\n\n".join(parts)


def modules() -> str:
    """For each room and what lies in it the files, each with the first sentence of its docstring."""
    parts = []
    for room in ROOMS:
        for folder in (PACKAGE / room, *sorted(one for one in (PACKAGE / room).rglob("*") if one.is_dir())):
            rows = [(f"`{one.name}`", first_sentence(one)) for one in sorted(folder.glob("[!_]*.py"))]
            if rows:
                title, says = folder.relative_to(PACKAGE), first_sentence(folder / "__init__.py")
                parts.append(f"## {title}\n\n{says}\n\n{markdown_table(('file', 'what it is for'), rows)}")
    return "\n\n".join(parts)


def first_sentence(path: Path) -> str:
    """What a module says that it is."""
    text = path.read_text()  # not parsed: of all files that would take seconds
    docstring = text[3:].partition('"""')[0] if text.startswith('"""') else ""
    paragraph = docstring.strip().split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[^.]\.) (?=[A-Z])", paragraph)[0]


def not_carried() -> str:
    """The modules of vit-pytorch from which no model is built, by the reason why not."""
    modules: dict[str, list[str]] = {}
    for name, why in NOT_CARRIED.items():
        modules.setdefault(why, []).append(f"`{name}`")
    rows = [(", ".join(names), why) for why, names in modules.items()]
    return markdown_table(("modules", "why not"), rows)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; `|` in a cell is text."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
