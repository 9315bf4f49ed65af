"""The wheel alone is enough: for a sweep, for its answers, and for what is printed as next; no checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from commands import PATIENCE_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of an environment that holds the wheel, and sees the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *offline, "--wheel-dir", folder, ROOT], check=True, timeout=PATIENCE_S)
    venv.create(folder / "env", with_pip=False)
    python = folder / "env/bin/python"
    (wheel,) = folder.glob("*.whl")
    install = [*pip, "--python", python, "install", "--no-deps", wheel]
    subprocess.run(install, check=True, timeout=PATIENCE_S)
    (packages,) = (folder / "env/lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env/bin/attnsweep"


def run(script: Path, folder: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [script, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.ray
def test_an_example_is_written_run_and_answered_without_a_checkout(script: Path, tmp_path: Path) -> None:
    assert "Does depth buy accuracy" in run(script, tmp_path, "new")
    assert "wrote" in run(script, tmp_path, "new", "quickstart")
    small = ("depth=1", "epochs=1", "model=vit", "--no-latency", "--address", "local")
    out = run(script, tmp_path, "quickstart.py", *small)
    assert "1 done" in out
    (following,) = re.findall(r"next: python -m attnsweep (.*)", out)
    assert "on the front" in run(script, tmp_path, *following.split())
    assert "vit" in run(script, tmp_path, "pick", "--params", "1e7")
    assert "| Model" in run(script, tmp_path, "table", "results")


def test_an_example_brings_the_models_that_it_names(script: Path, tmp_path: Path) -> None:
    run(script, tmp_path, "new", "own_model")
    assert {path.name for path in tmp_path.iterdir()} == {"own_model.py", "own_net.py"}
    assert "Mixer" in run(script, tmp_path, "own_model.py", "--dry-run", "depth=2", "token_dim=16")
