import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune

import attnsweep
from attnsweep import Sweep
from attnsweep.core.errors import UserError
from attnsweep.core.path_edits import added
from attnsweep.core.trial import Trial
from attnsweep.results.store import Store
from attnsweep.space.files import read_sweep
from attnsweep.space.labels import label, varying
from attnsweep.space.rerun import rerun_line
from attnsweep.space.trials import cost_of, expand, make_trial
from attnsweep.tasks import own
from attnsweep.tasks.images.space import OF_MODELS
from attnsweep.tasks.registry import build, resolve
from attnsweep.training.trial import Options, run

ROOT = str(Path(__file__).parents[1])
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, *, image_size, channels, num_classes, depth=2, width=8, act="relu", bias=True):
        super().__init__()
        layers = [nn.Flatten(), nn.Linear(channels * image_size**2, width, bias=bias)]
        for _ in range(depth - 1):
            layers += [nn.ReLU() if act == "relu" else nn.GELU(), nn.Linear(width, width, bias=bias)]
        self.net = nn.Sequential(*layers, nn.Linear(width, num_classes))

    def forward(self, images):
        return self.net(images)

class Wants(nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()

class Anything(nn.Sequential):
    def __init__(self, *layers, num_classes, **more):
        assert not layers and not more
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))

class Meta(type):
    def __call__(cls, *args, **kwargs):
        return super().__call__(*args, **kwargs)

class Registered(Anything, metaclass=Meta):
    def __init__(self, width=8, **more):
        super().__init__(num_classes=10, **more)

class ByPlace(nn.Module):
    def __init__(self, width, /):
        super().__init__()

class Breaks(nn.Module):
    def __init__(self, num_classes=10, width=3):
        super().__init__()
        raise ValueError(f"width {width} is odd")

class NoModule:
    def __init__(self, num_classes):
        pass
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path}/net.py"


def trial(model: str, **point: Any) -> Trial:
    return make_trial(resolve({"model": model, **point}), Path("nowhere"))


def refusal(model: str, **point: object) -> str:
    with pytest.raises(UserError) as caught:
        trial(model, **point)
    return str(caught.value)


# What a class may be


def test_an_axis_of_images_that_comes_later_leaves_own_models_their_arguments() -> None:
    """As a column it would change their ids: it belongs into `space.LATER`."""
    assert " ".join(sorted(OF_MODELS)) == (
        "attention batch_size channels depth dim dim_head dropout emb_dropout epochs geometry heads "
        "image_size lr lr_gamma mlp_dim num_classes optimizer patch_size precision seed "
        "unreadable weight_decay"
    )


@pytest.mark.slow
def test_axes_stand_in_their_columns_and_other_arguments_in_model_args(net: str) -> None:
    config = trial(f"{net}:Net", depth=3, width=5).config
    assert (config["depth"], config["image_size"], config["channels"], config["dim"]) == (3, 8, 1, None)
    assert json.loads(config["model_args"]) == {"act": "relu", "bias": True, "width": 5}
    assert config["task"] == "images" and config["lr"] == 1e-4


def test_the_model_is_built_with_the_arguments_of_its_configuration(net: str) -> None:
    one = trial(f"{net}:Net", depth=3, width=5, bias=False)
    built = build(one.config)
    assert sum(p.numel() for p in built.parameters()) == one.params == 64 * 5 + 2 * 25 + 5 * 10 + 10
    assert one.macs == 64 * 5 + 2 * 25 + 5 * 10
    assert built(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "point", "sentence"),
    [
        ("Net", {"widht": 3}, "takes no widht, did you mean 'width'?"),
        (
            "Net",
            {"colour": 3},
            "takes no colour; its arguments are image_size, channels, num_classes, ",
        ),
        ("Net", {"epochs": 0}, "epochs=0 is out of range"),
        ("Net", {"width": torch.nn.ReLU}, "cannot be recorded; use a number, a string, True, False or None"),
        ("Net", {"width": float("nan")}, "width=nan cannot be recorded"),
        ("Net", {"dataset": "reverse"}, "dataset='reverse' is for sequences"),
        ("Nett", {}, "has no class 'Nett', did you mean 'Net'?"),
        ("Wants", {}, "wants width; give it a value in the sweep, or a default in the class"),
        ("Anything", {"width": 3}, "takes no width"),
        ("ByPlace", {}, "takes width by its place; take it by its name, as rows record it"),
        ("NoModule", {}, "is not a class of torch.nn.Module; derive it from nn.Module"),
        ("Breaks", {"width": 5}, "cannot be built (ValueError: width 5 is odd) with "),
    ],
)
def test_a_class_that_does_not_fit_is_refused_with_the_reason(
    net: str, name: str, point: dict[str, object], sentence: str
) -> None:
    assert sentence in refusal(f"{net}:{name}", **point)


@pytest.mark.parametrize("name", ["Anything", "Registered"])
def test_what_has_no_name_of_its_own_gets_nothing(net: str, name: str) -> None:
    one = trial(f"{net}:{name}")
    assert one.params == 650 and json.loads(one.config["model_args"] or "{}") == (
        {"width": 8} if name == "Registered" else {}
    )


def test_a_file_that_is_missing_or_broken_is_refused(tmp_path: Path) -> None:
    assert "there is no file gone.py; name it from here, or from the sweep file" in refusal("gone.py:Net")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    assert "cannot be imported (ModuleNotFoundError: " in refusal(f"{tmp_path}/broken.py:Net")


def test_a_misspelt_key_is_still_refused_where_no_model_is_ones_own() -> None:
    with pytest.raises(UserError, match="'widht' is not a key of a sweep"):
        Sweep(model="vit", widht=3)


# Arguments that bear the name of an axis


def keeper(folder: Path, parameter: str) -> str:
    """The name of a model that keeps what it is given for one parameter."""
    name = parameter.partition(":")[0].partition("=")[0].strip()
    (folder / "keeper.py").write_text(
        "from torch import nn\n"
        "class Keeper(nn.Sequential):\n"
        f"    def __init__(self, {parameter}, *, num_classes=10):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))\n"
        f"        self.kept = {name}\n"
    )
    return f"{folder}/keeper.py:Keeper"


OF_ITS_OWN: dict[
    str, tuple[str, dict[str, Any], Any]
] = {  # parameter, what the sweep says, what the class gets
    "a number for a word": ("stages: int = 3", {}, 3),
    "a number for a word, swept": ("stages: int = 3", {"stages": 4}, 4),
    "a truth for a word": ("attention: bool = True", {"attention": False}, False),
    "another word": ("attention: str = 'explicit'", {"attention": "linear"}, "linear"),
    "another word by default": ("attention: str = 'window'", {"attention": "fused"}, "fused"),
    "another task's word": ("norm: str = 'rms'", {}, "rms"),
    "another task's own word": ("norm: str = 'post'", {"norm": "pre"}, "pre"),
    "another task's number": ("lines: int = 1000", {"lines": 2000}, 2000),
    "another task's length": ("length: int = 5000", {}, 5000),
    "another task's truth": ("plan: bool = False", {"plan": True}, True),
    "out of range": ("heads: int = 4", {"heads": 0}, 0),
    "out of range by default": ("depth: int = 0", {}, 0),
    "a share that is none": ("dropout: float = 1.5", {}, 1.5),
    "a fraction": ("dim: float = 0.5", {"dim": 1.5}, 1.5),
    "a truth for a number": ("depth: bool = True", {}, True),
    "nothing": ("mlp_dim: int | None = None", {}, None),
    "sizes of stages": ("depth=(2, 2, 6, 2)", {}, (2, 2, 6, 2)),
    "sizes of stages, swept": ("depth=(2, 2, 6, 2)", {"depth": (1, [1, 3])}, (1, (1, 3))),
    "a list": ("dim=None", {"dim": [16, 32]}, [16, 32]),
    "a dictionary": ("options={'width': 3}", {}, {"width": 3}),
    "a dictionary, swept": (
        "options=None",
        {"options": {"b": [1, 2], "a": {"x": None}}},
        {"a": {"x": None}, "b": [1, 2]},
    ),
    "widths": ("channels=(16, 32)", {}, (16, 32)),
    "a width": ("channels=16", {"channels": 32}, 32),
    "two sides": ("image_size=(8, 8)", {}, (8, 8)),
    "a class": ("norm=nn.LayerNorm", {}, "LayerNorm"),
    "a class by an axis's name": ("attention=nn.MultiheadAttention", {}, "MultiheadAttention"),
    "an infinity": ("lr: float = float('inf')", {}, float("inf")),
    "another optimiser": ("optimizer: str = 'lion'", {}, "lion"),
    "another precision": ("precision: int = 16", {"precision": 32}, 32),
    "no seed": ("seed: str = 'none'", {"seed": "some"}, "some"),
    "a rate that is none": ("lr: str = 'auto'", {"lr": "slow"}, "slow"),
    "no model": ("model: str = 'resnet'", {}, "resnet"),
    "no task": ("task: str = 'segment'", {}, "segment"),
    "no data set": ("dataset: str = 'coco'", {}, "coco"),
    "no name of ours": ("name: str = 'x'", {"name": "y"}, "y"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_ITS_OWN)
def test_what_does_not_fit_an_axis_is_an_argument_of_the_classs_own(kind: str, tmp_path: Path) -> None:
    parameter, point, expected = OF_ITS_OWN[kind]
    one = trial(keeper(tmp_path, parameter), **point)
    kept: Any = build(one.config).kept
    assert getattr(kept, "__name__", kept) == expected
    assert isinstance(kept, type) or type(kept) is type(expected)
    name = parameter.partition(":")[0].partition("=")[0]
    assert expected is None or one.config.get(name) != expected, "the column is the axis's"
    store = Store(tmp_path / "results")
    store.write("trials", [{**one.row(), "sweep": "s", "status": "done"}], one.trial_id)
    (row,) = store.read("trials").to_pylist()
    recorded = json.loads(row["model_args"] or "{}")
    if point:
        assert recorded[name] == json.loads(json.dumps(expected))


@pytest.mark.parametrize(
    ("parameter", "point", "expected"),
    [
        ("depth", {}, 6),
        ("depth: int = 2", {}, 2),
        ("depth: int = 2", {"depth": 3.0}, 3),
        ("depth=None", {"depth": 3}, 3),
        ("attention='explicit'", {"attention": "fused"}, "fused"),
        ("dropout=0", {}, 0),
        ("lr: float = 0.1", {}, 0.1),
        ("lr: float = 0.1", {"lr": 0.2}, 0.2),
        ("lr", {"lr": 0.2}, 0.2),
        ("epochs", {"epochs": 3}, 3),
        ("batch_size: int = 32", {"batch_size": 16}, 16),
        ("seed: int = 1", {"seed": 5}, 5),
        ("channels", {}, 1),
        ("channels=None", {"channels": 1}, 1),
        ("image_size: int = 224", {}, 8),
    ],
)
def test_what_fits_an_axis_stands_in_its_column(
    parameter: str, point: dict[str, Any], expected: Any, tmp_path: Path
) -> None:
    name = parameter.partition(":")[0].partition("=")[0]
    one = trial(keeper(tmp_path, parameter), **point)
    assert (one.config[name], build(one.config).kept) == (expected, expected)
    assert one.config["model_args"] is None


def test_a_value_that_fits_is_the_recipes_even_where_the_class_means_something_else(tmp_path: Path) -> None:
    one = trial(keeper(tmp_path, "lr: str = 'auto'"), lr=0.5)
    assert (one.config["lr"], build(one.config).kept) == (0.5, 0.5)
    assert trial(keeper(tmp_path, "lr: str = 'auto'")).config["lr"] == 1e-4


def test_rates_and_seeds_that_a_class_takes_are_no_other_architectures(tmp_path: Path) -> None:
    model = keeper(tmp_path, "lr: float = 0.1")
    trials = [trial(model, lr=lr, seed=seed) for lr in (0.1, 0.2) for seed in (0, 1)]
    assert len({one.trial_id for one in trials}) == 4 and len({one.arch_id for one in trials}) == 1


def test_values_of_the_classs_own_are_swept(tmp_path: Path) -> None:
    model = keeper(tmp_path, "attention: str = 'linear'")
    sweep = Sweep(model=model, attention=tune.grid_search(["linear", "window", "fused"]))
    trials, invalid = expand(sweep.points(), tmp_path)
    assert not invalid
    assert len({one.trial_id for one in trials}) == 3
    assert [label(one, varying(trials)).split()[-1] for one in trials] == [
        "attention=linear",
        "attention=window",
        "attention=fused",
    ]


def test_the_line_that_runs_a_trial_again_gives_every_argument(tmp_path: Path) -> None:
    model = keeper(tmp_path, "dim=None, attention='linear', name='x', stages=3, options=None")
    one = trial(model, dim=[16, 32], attention="window", name="y", stages=4, options={"a": [1]})
    line = rerun_line({**one.row(), "sweep": "s"})
    swept: list[Sweep] = []
    code = shlex.split(line)[-1].replace("attnsweep.run(", "swept.append(").replace(", results='rerun'", "")
    exec(code, {"swept": swept})
    (again,), _ = expand(swept[0].points(), tmp_path)
    assert again.trial_id == one.trial_id


def test_a_class_without_a_constructor_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(
        "from torch import nn\n"
        "class Bare(nn.Module):\n"
        "    def forward(self, x): return x.new_zeros(len(x), 10)\n"
    )
    assert trial(f"{tmp_path}/bare.py:Bare").params == 0


# What identifies it


def test_an_edited_file_is_another_trial_and_a_moved_one_the_same(net: str, tmp_path: Path) -> None:
    before = trial(f"{net}:Net")
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "other.py"
    moved.write_text(NET)
    assert trial(f"{moved}:Net").trial_id == before.trial_id
    moved.write_text(NET + "\n# a remark\n")
    assert trial(f"{moved}:Net").trial_id != before.trial_id
    assert trial(f"{moved}:Net").arch_id != before.arch_id


def test_every_argument_tells_trials_and_architectures_apart(net: str) -> None:
    points = [{}, {"width": 9}, {"act": "gelu"}, {"bias": False}, {"depth": 3}]
    trials = [trial(f"{net}:Net", **point) for point in points]
    assert len({one.trial_id for one in trials}) == len({one.arch_id for one in trials}) == len(points)


def test_what_was_planned_is_trained_even_where_the_file_is_edited_or_not_there(net: str) -> None:
    planned = trial(f"{net}:Net", epochs=1)
    before = list(run(planned, Options(data_dir="nowhere")))[-1]["row"]
    Path(net).write_text(NET.replace("depth=2", "depth=3"))
    assert list(run(planned, Options(data_dir="nowhere")))[-1]["row"]["train_loss"] == before["train_loss"]
    Path(net).unlink()
    assert list(run(planned, Options(data_dir="nowhere")))[-1]["row"]["train_loss"] == before["train_loss"]


def test_a_model_whose_file_has_changed_is_not_measured_in_place_of_the_old_one(net: str) -> None:
    config = trial(f"{net}:Net").config
    Path(net).write_text(NET.replace("depth=2", "depth=3"))
    with pytest.raises(UserError, match="has changed since; run the sweep again, or restore the file"):
        build(config)


def test_the_cost_of_an_architecture_is_counted_once(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trial(f"{net}:Net", width=11)
    monkeypatch.setattr("attnsweep.tasks.counting.build", None)
    assert cost_of(trial(f"{net}:Net", width=11, lr=1e-2, seed=3).config).params == one.params


# The modules that it imports from beside itself

USES_BLOCKS = """
from torch import nn
from blocks import head

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(nn.Flatten(), head(num_classes))
"""
BLOCKS = """
from torch import nn
from parts.sizes import WIDTH

def head(classes):
    return nn.Sequential(nn.Linear(64, WIDTH), nn.Linear(WIDTH, classes))
"""


def project(folder: Path, width: int, *, net: str = USES_BLOCKS) -> str:
    """The name of a model whose file imports a module beside it, which imports a package there."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(net)
    (folder / "blocks.py").write_text(BLOCKS)
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "sizes.py").write_text(f"WIDTH = {width}\n")
    (folder / "unused.py").write_text("raise RuntimeError('nobody imports this')\n")
    return f"{folder}/net.py:Net"


def params_of(width: int) -> int:
    return 64 * width + width + 10 * width + 10


def test_modules_beside_the_file_are_imported_and_belong_to_its_project_alone(tmp_path: Path) -> None:
    before = {*sys.modules}
    models = {width: project(tmp_path / str(width), width) for width in (3, 5)}
    for width in (3, 5, 3):
        assert trial(models[width]).params == params_of(width)
        assert sum(one.numel() for one in build(trial(models[width]).config).parameters()) == params_of(width)
    assert not {"blocks", "parts", "parts.sizes"} & ({*sys.modules} - before)


def test_an_edit_of_an_imported_module_is_another_trial_at_once(tmp_path: Path) -> None:
    model = project(tmp_path, 3)
    before = trial(model)
    (tmp_path / "parts" / "sizes.py").write_text("WIDTH = 4\n")
    after = trial(model)
    assert (before.params, after.params) == (params_of(3), params_of(4))
    assert before.trial_id != after.trial_id and before.arch_id != after.arch_id
    with pytest.raises(UserError, match="has changed since"):
        build(before.config)
    (tmp_path / "unused.py").write_text("")
    assert trial(model).trial_id == after.trial_id


def test_a_project_that_was_moved_is_the_same(tmp_path: Path) -> None:
    one, other = (trial(project(tmp_path / name, 3)) for name in ("here", "there"))
    assert one.trial_id == other.trial_id


@pytest.mark.slow
def test_the_modules_travel_with_the_trial(tmp_path: Path) -> None:
    """A worker on another machine has none of the files, in a process that has never seen them."""
    planned = trial(project(tmp_path / "gone", 3), epochs=1)
    (tmp_path / "trial").write_bytes(pickle.dumps(planned))
    shutil.rmtree(tmp_path / "gone")
    code = (
        "import pickle, sys; from attnsweep.training.trial import Options, run\n"
        "trial = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print([*run(trial, Options(data_dir='.'))][-1]['status'])"
    )
    command, environment = (
        [sys.executable, "-c", code, f"{tmp_path}/trial"],
        {**os.environ, "PYTHONPATH": ROOT},
    )
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.strip() == "done", done.stderr


THREE = "width = 3"
IMPORTS: dict[str, tuple[str, dict[str, str]]] = {  # how the file gets its width, and the files beside it
    "a module": ("import blocks; width = blocks.width", {"blocks.py": THREE}),
    "a module by another name": ("import blocks as b; width = b.width", {"blocks.py": THREE}),
    "everything": ("from blocks import *", {"blocks.py": THREE}),
    "a package": (
        "from blocks import width",
        {"blocks/__init__.py": "from .a import width", "blocks/a.py": THREE},
    ),
    "a module of a package": (
        "import blocks.a; width = blocks.a.width",
        {"blocks/__init__.py": "", "blocks/a.py": THREE},
    ),
    "a module of a folder": ("from blocks.a import width", {"blocks/a.py": THREE}),
    "a relative import": ("from .blocks import width", {"blocks.py": THREE}),
    "a relative module": ("from . import blocks; width = blocks.width", {"blocks.py": THREE}),
    "from above, within its package": (
        "from ..common import width",
        {"__init__.py": "", "../__init__.py": "", "../common.py": THREE},
    ),
    "by the name of its package": (
        "from mine.nets.blocks import width",
        {"__init__.py": "", "../__init__.py": "", "blocks.py": THREE},
    ),
    "in turn": ("from a import width", {"a.py": "from b import width", "b.py": f"import a\n{THREE}"}),
    "by a word": (
        "import importlib; width = importlib.import_module('blocks').width",
        {"blocks.py": THREE},
    ),
    "what may be missing": (
        "try:\n    from blocks import width\nexcept ImportError:\n    width = 4",
        {"blocks.py": THREE},
    ),
    "another encoding": ("from blocks import width", {"blocks.py": f"# coding: latin-1\n# \u00e9\n{THREE}"}),
    "a folder that it adds": (
        "import sys, os; sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\n"
        "from blocks import width",
        {"lib/blocks.py": THREE},
    ),
    "a folder above, by a name": (
        "import sys; from pathlib import Path; ROOT = Path(__file__).resolve().parents[1]\n"
        "sys.path.append(str(ROOT / 'lib'))\nimport blocks.a; width = blocks.a.width",
        {"../lib/blocks/__init__.py": "", "../lib/blocks/a.py": THREE},
    ),
    "a folder that a module adds": (
        "import paths\nfrom blocks import width",
        {
            "paths.py": "import os, sys; sys.path.append(os.path.dirname(__file__) + '/lib')",
            "lib/blocks.py": THREE,
        },
    ),
    "a name that is made": (
        "import importlib; width = importlib.import_module(f'blocks.{chr(97)}').width",
        {"blocks/__init__.py": "", "blocks/a.py": THREE},
    ),
    "a package that imports what lies in it": (
        "import blocks; width = blocks.found['a.py'].width",
        {
            "blocks/__init__.py": "import importlib, os\n"
            "names = [name for name in os.listdir(os.path.dirname(__file__)) if name[:1] != '_']\n"
            "found = {name: importlib.import_module('.' + name[:-3], __name__) for name in names}",
            "blocks/a.py": THREE,
        },
    ),
    "a package that lists its modules": (
        "import blocks; width = blocks.found[0].width",
        {
            "blocks/__init__.py": "import importlib, pkgutil\nnames = pkgutil.iter_modules(__path__)\n"
            "found = [importlib.import_module(f'{__name__}.{one.name}') for one in names]",
            "blocks/a.py": THREE,
        },
    ),
    "like an installed package": ("from optuna import width", {"optuna.py": THREE}),
    "not a folder of an installed package's name": (
        "import einops; width = 3 + ('rearrange' not in dir(einops))",
        {"einops/data.txt": ""},
    ),
    "not a module of the standard library's": (
        "import colorsys; width = 3 + ('hsv_to_rgb' not in dir(colorsys))",
        {"colorsys.py": "raise RuntimeError"},
    ),
}


@pytest.mark.parametrize("kind", IMPORTS)
def test_whatever_python_would_import_is_imported(kind: str, tmp_path: Path) -> None:
    line, files = IMPORTS[kind]
    folder = tmp_path / "mine" / "nets"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="latin-1")
    (folder / "net.py").write_text(
        f"import dataclasses\nfrom torch import nn\n{line}\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes=10):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))\n"
    )
    one = trial(f"{folder}/net.py:Net")
    assert one.params == params_of(3)
    for name in [name for name, text in files.items() if THREE in text]:
        (folder / name).write_text((folder / name).read_text("latin-1").replace("= 3", "= 5"), "latin-1")
        assert trial(f"{folder}/net.py:Net").trial_id != one.trial_id


def test_of_a_path_that_is_added_only_what_its_text_says_is_known() -> None:
    lines = (
        "import os, sys", "from pathlib import Path", "HERE = Path(__file__).parent",
        "sys.path.insert(0, str(HERE / 'a'))", "sys.path += [f'{HERE}/b', os.path.join('/c', os.pardir)]",
        "sys.path[:0] = ['/d']", "sys.path.append(os.system('exit 3'))", "sys.path.extend(HERE.glob('*'))",
        "sys.path.append('/usr/lib/python3/dist-packages')", "path.append('/e')", "sys.path.append(nowhere)",
    )  # fmt: skip
    assert added("\n".join(lines), "/net/net.py") == ("/net/a", "/net/b", "/", "/d")
    assert added("import sys; sys.path.append('/a'", "net.py") == ()


def test_an_import_that_waits_for_the_constructor_or_the_images_is_found(tmp_path: Path) -> None:
    model = project(
        tmp_path,
        3,
        net="from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes=10):\n"
        "        super().__init__()\n"
        "        from blocks import head\n"
        "        self.head = head(num_classes)\n"
        "    def forward(self, x):\n"
        "        from parts import sizes\n"
        "        return self.head(x.flatten(1)) * sizes.WIDTH\n",
    )
    planned = trial(model, epochs=1)
    shutil.rmtree(tmp_path)
    assert list(run(planned, Options(data_dir="nowhere")))[-1]["status"] == "done"


def test_a_module_on_the_python_path_belongs_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = project(tmp_path / "nets", 3)
    (tmp_path / "lib").mkdir()
    for name in ("blocks.py", "parts"):
        shutil.move(tmp_path / "nets" / name, tmp_path / "lib" / name)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    before = trial(model)
    (tmp_path / "lib" / "parts" / "sizes.py").write_text("WIDTH = 4")
    assert (before.params, trial(model).params) == (params_of(3), params_of(4))


def test_a_module_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    model = project(tmp_path, 3)
    (tmp_path / "parts" / "sizes.py").write_text("WIDTH = \n")
    assert "cannot be imported (SyntaxError: " in refusal(model)
    (tmp_path / "blocks.py").unlink()
    assert "cannot be imported (ModuleNotFoundError: No module named 'blocks')" in refusal(model)
    (tmp_path / "blocks.py").write_bytes(b"# coding: utf-8\n\xff")
    assert "is no text" in refusal(model)


def test_an_imported_module_of_somebody_else_is_not_run_for_a_row(tmp_path: Path) -> None:
    model = project(tmp_path, 3)
    own.read(model, trusted=True)
    (tmp_path / "parts" / "sizes.py").chmod(0o666)
    with pytest.raises(UserError, match=r"sizes\.py may be somebody else's code"):
        own.read(model, trusted=True)


# In a sweep


def test_a_sweep_finds_the_file_beside_itself_and_mixes_it_with_built_in_models(net: str) -> None:
    file = Path(net).parent / "own.py"
    file.write_text(
        "from ray import tune\nfrom attnsweep import Sweep\nwidths = tune.grid_search([4, 8])\n"
        "sweep = Sweep([dict(model='net.py:Net', width=widths), dict(model='vit')], depth=1)\n"
    )
    sweep = read_sweep(file)
    trials, invalid = expand(sweep.points(), Path("nowhere"))
    assert not invalid
    names = [label(one, varying(trials)) for one in trials]
    assert names == [
        "Net act=relu bias=True width=4",
        "Net act=relu bias=True width=8",
        "vit",
    ]
    assert sweep.override({"width": [8]}).parts[0]["width"] == {"grid_search": [8]}


def test_the_plan_names_the_keys_that_mean_nothing_to_a_model(net: str) -> None:
    models = tune.grid_search(["cnn", "vit", f"{net}:Net"])
    assert Sweep(model=models, depth=2, heads=2, width=3, lr=1e-3, seed=1).unused() == {
        "cnn": ["depth", "heads", "width"],
        "vit": ["width"],
        f"{net}:Net": ["heads"],
    }


@pytest.mark.slow
def test_a_model_of_ones_own_is_trained_measured_and_written(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(net).with_name("own.py")
    one = "Sweep(model='net.py:Net', width=32, epochs=1, latency={'batch': 1})"
    file.write_text(f"from attnsweep import Sweep\nsweep = {one}\n")
    attnsweep.run(file, tmp_path / "results", serial=True)
    (row,) = Store(tmp_path / "results").read("trials").to_pylist()
    assert row["status"] == "done"
    assert row["latency_ms_p50"] > 0 and json.loads(row["model_args"])["width"] == 32


def test_two_classes_of_one_name_are_told_apart(net: str, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(NET + "# another\n")
    trials = [trial(f"{net}:Net"), trial(f"{other}:Net")]
    first, second = (label(one, varying(trials)) for one in trials)
    assert first.startswith("Net file=") and second.startswith("Net file=") and first != second
    assert label(trials[0], varying([trials[0], trial("vit")])) == "Net"
