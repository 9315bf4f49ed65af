"""What lies in the working directory is not run in place of what is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnsweep.results.store import Store

from commands import PATIENCE_S, TINY

ROOT = Path(__file__).parent.parent
PLANTED = ("pandas", "numpy", "torch", "ray", "random", "typing", "rich", "yaml", "numexpr", "attnsweep_zoo")
SWEEP = f"""
from ray import tune
from attnsweep import Sweep
from beside import SEEDS
sweep = Sweep({TINY}, model="vit", epochs=1, seed=SEEDS, latency={{"batch": 1}})
"""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder of results with files that have the names of packages, and leave a mark when they are run."""
    Store(tmp_path / "results").write("trials", [{"trial_id": "a", "status": "done"}], "a")
    for name in PLANTED:
        mark = tmp_path / "marks" / name
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w'); raise SystemExit({name!r})\n")
    (tmp_path / "marks").mkdir()
    (tmp_path / "beside.py").write_text("SEEDS = 1\n")
    (tmp_path / "s.py").write_text(SWEEP)
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
        2, "attnsweep: results has no done trial with a test accuracy or score; run a sweep first\n"
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_finds_the_module_beside_it_and_nothing_in_place_of_a_package(planted: Path) -> None:
    """Neither the driver, nor workers of Ray, nor the process that measures."""
    status, output = said(planted, "-m", "attnsweep", "s.py", "--address", "local")
    assert (status, "1 done in" in output) == (0, True), output


@pytest.mark.slow
def test_the_package_of_somebody_else_keeps_its_working_directory(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("import attnsweep\n")
    (tmp_path / "mine/tool.py").write_text("import beside; print(beside.WORD)\n")
    (tmp_path / "beside.py").write_text("WORD = 'found'\n")
    assert said(tmp_path, "-m", "mine.tool") == (0, "found\n")
