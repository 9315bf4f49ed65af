"""The tables of the site are filled in from the code."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import attnsweep
from attnsweep.results.schema import TABLES
from attnsweep.tasks.images.zoo_sizes import NOT_CARRIED
from attnsweep.tasks.registry import AXES, TASK_OF

DOCS = Path(__file__).parent.parent / "docs"
PACKAGE = Path(attnsweep.__file__).parent


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("axes.md", AXES),
        ("columns.md", {column.name for columns in TABLES.values() for column in columns}),
        ("models.md", {*TASK_OF, *NOT_CARRIED}),
        ("modules.md", {path.name for path in PACKAGE.rglob("[!_]*.py")}),
    ],
)
def test_a_page_names_all_that_there_is(hooks: ModuleType, page: str, names: set[str]) -> None:
    text = hooks.on_page_markdown((DOCS / page).read_text())
    assert "<!--" not in text
    assert {name for name in names if f"`{name}`" not in text} <= {"task", "model", "dataset"}


def test_each_file_says_what_it_is_for(hooks: ModuleType) -> None:
    said = {path: hooks.first_sentence(path) for path in PACKAGE.rglob("*.py")}
    assert [path for path, sentence in said.items() if not sentence.endswith((".", "?"))] == []
    rows = [line for line in hooks.modules().splitlines() if line.startswith("| `")]
    assert len(rows) == len([path for path in said if not path.name.startswith("_")])


def test_the_tree_of_the_architecture_has_every_room() -> None:
    page = (DOCS / "architecture.md").read_text()
    tree = page.partition("    attnsweep/\n")[2].partition("    sweeps/")[0].splitlines()
    named, path = [], list[str]()
    for line in tree:
        name = line.split()[0].rstrip("/")
        path[(len(line) - len(line.lstrip()) - 6) // 2 :] = [name]
        named.append("/".join(path))
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert sorted(named) == sorted(folders - {"."})


def test_the_page_of_the_api_has_every_public_name() -> None:
    page = (DOCS / "api.md").read_text().splitlines()
    assert {f"::: attnsweep.{name}" for name in attnsweep.__all__ if name != "__version__"} <= {*page}


def test_what_is_not_carried_stands_beside_its_reason(hooks: ModuleType) -> None:
    rows = [line for line in hooks.not_carried().splitlines() if line.startswith("| `")]
    for name, why in NOT_CARRIED.items():
        assert any(f"`{name}`" in row and row.endswith(f"| {why} |") for row in rows)
