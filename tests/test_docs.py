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
    ],
)
def test_a_page_names_all_that_there_is(hooks: ModuleType, page: str, names: set[str]) -> None:
    text = hooks.on_page_markdown((DOCS / page).read_text())
    assert "<!--" not in text
    assert {name for name in names if f"`{name}`" not in text} <= {"task", "model", "dataset"}


def test_the_page_of_the_api_has_every_public_name() -> None:
    page = (DOCS / "api.md").read_text().splitlines()
    assert {f"::: attnsweep.{name}" for name in attnsweep.__all__ if name != "__version__"} <= {*page}


def test_what_is_not_carried_stands_beside_its_reason(hooks: ModuleType) -> None:
    rows = [line for line in hooks.not_carried().splitlines() if line.startswith("| `")]
    for name, why in NOT_CARRIED.items():
        assert any(f"`{name}`" in row and row.endswith(f"| {why} |") for row in rows)
