"""What lies in the working directory is not run in place of what is installed; of sweeps see test_runner."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnsweep.results.store import Store

from commands import PATIENCE_S, plant

ROOT = Path(__file__).parent.parent


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder of results with files that have the names of packages, and leave a mark when they are run."""
    Store(tmp_path / "results").write("trials", [{"trial_id": "a", "status": "done"}], "a")
    plant(tmp_path)
    return tmp_path


def said(folder: Path, *words: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert not list((folder / "marks").iterdir()), done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_looking_at_results_runs_nothing_that_lies_beside_them(planted: Path) -> None:
    status, output = said(planted, "-m", "attnsweep", "pick")
    assert status == 2 and "no done trial has val_acc" in output
    assert said(planted, "-m", "attnsweep", "table", "results") == (
        2,
        "attnsweep: results has no done trial with a test accuracy or score; choose other trials\n",
    )


@pytest.mark.slow
def test_the_package_of_somebody_else_keeps_its_working_directory(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("import attnsweep\n")
    (tmp_path / "mine/tool.py").write_text("import beside; print(beside.WORD)\n")
    (tmp_path / "beside.py").write_text("WORD = 'found'\n")
    assert said(tmp_path, "-m", "mine.tool") == (0, "found\n")
