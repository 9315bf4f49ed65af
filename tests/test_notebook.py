"""The notebook in docs/ runs from beginning to end, away from the checkout."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_notebook_runs_where_only_the_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip(
        "nbformat", reason="nbformat is not installed: pip install attnsweep[test]"
    )
    nbclient = pytest.importorskip(
        "nbclient", reason="nbclient is not installed: pip install attnsweep[test]"
    )
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    notebook = nbformat.read(ROOT / "docs" / "answers.ipynb", as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1, "the figure is drawn"
    assert (tmp_path / "notebook" / "report.html").stat().st_size > 4e6
    assert all("outputs" not in cell or not cell["outputs"] for cell in stored(nbformat)), "none is committed"


def stored(nbformat: object) -> list[dict[str, object]]:
    """The cells as they lie in docs/."""
    return nbformat.read(ROOT / "docs" / "answers.ipynb", as_version=4).cells  # type: ignore[attr-defined,no-any-return]
