"""A fourth task lands as one folder and one word, and is swept, stored, drawn and picked like the others."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import attnsweep

from commands import PATIENCE_S

HERE = Path(__file__).parent
SWEEP = """
from attnsweep import Sweep
space = dict(model="mlp", dim={"grid_search": [4, 16]}, noise=0.05)
sweep = Sweep(space, lr=0.03, epochs=20, seed=0, latency={"batch": 1})
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the folder of the toy task in it, and its name in the list of tasks."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(
        Path(attnsweep.__file__).parent, home / "attnsweep", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(HERE / "toy/sines", home / "attnsweep/tasks/sines")
    registry = home / "attnsweep/tasks/registry.py"
    text, changes = re.subn(r"(?m)^(ROOMS = .*)\)$", r'\1, "sines")', registry.read_text())
    assert changes == 1
    registry.write_text(text)
    (home / "sweep.py").write_text(SWEEP)
    return home


def run(home: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=home, env={**os.environ, "PYTHONPATH": str(home)}, text=True,
        capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def swept(home: Path) -> str:
    return run(home, "-m", "attnsweep", "sweep.py", "--serial")


@pytest.mark.slow
def test_it_is_swept_and_stored(home: Path, swept: str) -> None:
    assert "2 done" in swept and "val 0." in swept
    rows = pd.read_parquet(home / "results/trials").set_index("dim")
    assert (rows["test_r2"] > 0.5).all() and (rows["task"] == "sines").all()
    assert rows["latency_ms_p50"].notna().all() and rows.loc[4, "params"] == 4 + 4 + 4 + 1
    assert len(pd.read_parquet(home / "results/epochs")) == 40


@pytest.mark.slow
def test_it_is_picked_and_shown(home: Path, swept: str) -> None:
    assert "test_r2" in run(home, "-m", "attnsweep", "pick", "--params", "100")
    assert "sines: explained variance" in run(home, "-m", "attnsweep", "columns")


@pytest.mark.slow
def test_it_is_drawn(home: Path, swept: str) -> None:
    assert "on the front" in run(home, str(HERE.parent / "analysis/pareto.py"), "results")
    assert (home / "figures/pareto.png").stat().st_size > 10_000


def test_it_changes_no_table_of_other_tasks_but_by_its_columns() -> None:
    from attnsweep.results.schema import TABLES

    assert "noise" not in {column.name for column in TABLES["trials"]}
