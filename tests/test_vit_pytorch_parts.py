"""A package that is imported part by part is to others what it was."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnsweep.tasks.images.models.vit_pytorch_parts import import_part_by_part

PACKAGE = {
    "__init__.py": "from parted.heavy import weight\nlight = 1\n",
    "small.py": "from parted.core import one\n",
    "core.py": "one = 1\n",
    "heavy.py": "weight = 100\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package `parted`, not imported yet."""
    (tmp_path / "parted").mkdir()
    for name, text in PACKAGE.items():
        (tmp_path / "parted" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "parted"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "code",
    [
        "import parted.small; assert 'parted.heavy' not in sys.modules and parted.small.one == 1",
        "import parted.small; from parted import weight; assert weight == 100 and parted.light == 1",
        "import parted; assert parted.light == 1 and parted.heavy.weight == 100",
        "from parted import small; assert small.one == 1",
        "import parted.small; assert not hasattr(parted, 'nothing') and 'parted.heavy' in sys.modules",
        "import importlib, parted.small; assert importlib.reload(parted).light == 1",
    ],
)
def test_whatever_is_asked_for_is_there(package: None, code: str) -> None:
    import_part_by_part("parted")
    exec(code, {"sys": sys})


def test_a_package_that_is_imported_already_stays_as_it_is(package: None) -> None:
    exec("import parted")
    import_part_by_part("parted")
    assert "parted.heavy" in sys.modules


def test_a_package_that_is_not_installed_is_no_module() -> None:
    import_part_by_part("of_no_such_name")
    assert "of_no_such_name" not in sys.modules


@pytest.mark.slow
def test_a_vit_needs_neither_torchvision_nor_the_compiler() -> None:
    code = (
        "import sys\nfrom attnsweep.tasks.registry import build, resolve\n"
        "build(resolve({'model': 'vit', 'dataset': 'digits'}))\n"
        "assert not {'torchvision', 'torch._dynamo'} & sys.modules.keys()\n"
        "from vit_pytorch import Dino, ViT\nimport vit_pytorch.vit\nassert vit_pytorch.vit.ViT is ViT\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
