import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune

import attnsweep
from attnsweep import Sweep
from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.engine import latency
from attnsweep.results.store import Store
from attnsweep.space.files import read_sweep
from attnsweep.space.labels import label, varying
from attnsweep.space.trials import cost_of, expand, make_trial
from attnsweep.tasks.registry import build, resolve
from attnsweep.training.trial import Options, run

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

class Anything(nn.Module):
    def __init__(self, **kwargs):
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
        ("Net", {"depth": 0}, "depth=0 is out of range"),
        ("Net", {"width": torch.nn.ReLU}, "cannot be recorded; use a number, a string, True, False or None"),
        ("Net", {"width": float("nan")}, "width=nan cannot be recorded"),
        ("Net", {"dataset": "reverse"}, "dataset='reverse' is for sequences"),
        ("Nett", {}, "has no class 'Nett', did you mean 'Net'?"),
        ("Wants", {}, "wants width; give it a value in the sweep, or a default in the class"),
        ("Anything", {}, "takes **kwargs; name each argument, so that a row can record it"),
        ("NoModule", {}, "is not a class of torch.nn.Module; derive it from nn.Module"),
        ("Breaks", {"width": 5}, "cannot be built (ValueError: width 5 is odd) with "),
    ],
)
def test_a_class_that_does_not_fit_is_refused_with_the_reason(
    net: str, name: str, point: dict[str, object], sentence: str
) -> None:
    assert sentence in refusal(f"{net}:{name}", **point)


def test_a_file_that_is_missing_or_broken_is_refused(tmp_path: Path) -> None:
    assert "there is no file gone.py; name it from here, or from the sweep file" in refusal("gone.py:Net")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    assert "cannot be imported (ModuleNotFoundError: " in refusal(f"{tmp_path}/broken.py:Net")


def test_a_misspelt_key_is_still_refused_where_no_model_is_ones_own() -> None:
    with pytest.raises(UserError, match="'widht' is not a key of a sweep"):
        Sweep(model="vit", widht=3)


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
    monkeypatch.setattr(latency, "BATCHES", (latency.LATENCY_BATCH,))  # the other one takes seconds more
    file = Path(net).with_name("own.py")
    file.write_text("from attnsweep import Sweep\nsweep = Sweep(model='net.py:Net', width=32, epochs=1)\n")
    attnsweep.run(file, tmp_path / "results", address="local")
    (row,) = Store(tmp_path / "results").read("trials").to_pylist()
    assert row["status"] == "done"
    assert row["latency_ms_p50"] > 0 and json.loads(row["model_args"])["width"] == 32
