"""Planners of one's own: what a class may be, what it is given, and that it is trained and judged like
others.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from attnsweep.core.deployment import Deployment, Subject
from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.measuring.measure import measure_architecture
from attnsweep.space.files import read_sweep
from attnsweep.space.trials import make_trial
from attnsweep.tasks.driving.own_planner import whole
from attnsweep.tasks.driving.records import presets, scenes
from attnsweep.tasks.driving.records.batches import INPUTS
from attnsweep.tasks.driving.stack.planner import STANDING
from attnsweep.tasks.registry import TASKS, build, procedure, resolve, takes
from attnsweep.training.trial import Options, run

ROOT = Path(__file__).parent.parent
NETS = """
import torch
from torch import nn

class Planner(nn.Module):
    def __init__(self, *, width=8, depth=1, points=8, columns=3, head="tanh"):
        super().__init__()
        self.shape = points, columns
        layers = [nn.Linear(24, width), *(nn.Linear(width, width) for _ in range(depth - 1))]
        self.net = nn.Sequential(*layers, nn.Linear(width, points * columns))

    def forward(self, sample):
        assert set(sample) == {"bev", "route", "command", "ego_state"}
        return self.net(sample["route"].flatten(1)).unflatten(1, self.shape)

class Sees(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 16)

    def forward(self, sample):
        return self.net(sample["cams"].float().mean(dim=(2, 3, 4))).unflatten(1, (8, 2))

class Flat(Planner):
    def forward(self, sample):
        return super().forward(sample).flatten(1)

class Listed(Planner):
    def forward(self, sample):
        return [super().forward(sample)]

class Commanded(Planner):
    places = 3

    def __init__(self):
        super().__init__(columns=3)
        self.shift = nn.Embedding(self.places, 1)

    def forward(self, sample):
        return super().forward(sample) + self.shift(sample["command"].long())[:, None]

class TwoCommands(Commanded):
    places = 2

class Still(Planner):
    def forward(self, sample):
        return super().forward(sample).detach()

class Keeps(Planner):
    last = 0.0

    def forward(self, sample):
        self.last = super().forward(sample) + (self.last if self.training else 0.0)
        return self.last

class Undefined(Planner):
    def forward(self, sample):
        return super().forward(sample).log()

class Complex(Planner):
    def forward(self, sample):
        return super().forward(sample) + 0j

class Needs(Planner):
    def forward(self, sample):
        return sample["lidar"]
"""


@pytest.fixture
def nets(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(NETS)
    return f"{tmp_path}/nets.py"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    scenes.ensure(presets.find("driving:tiny"), folder, processes=1)
    return folder


def trial(model: str, **point: Any) -> Trial:
    return make_trial(resolve({"model": model, "dataset": "driving:tiny", **point}), Path("nowhere"))


def refusal(model: str, **point: object) -> str:
    with pytest.raises(UserError) as caught:
        trial(model, **point)
    return str(caught.value)


# --- What a class may be ---


@pytest.mark.slow
def test_the_data_set_says_that_a_model_of_ones_own_is_a_planner(nets: str) -> None:
    config = trial(f"{nets}:Planner", depth=2, width=5).config
    assert (config["task"], config["dataset"], config["depth"]) == ("driving", "driving:tiny", 2)
    assert config["model_args"] == '{"columns": 3, "head": "tanh", "points": 8, "width": 5}'
    assert (config["lr"], config["epochs"], config["warmup_steps"]) == (2e-3, 6, 100)  # those of planners
    assert config["plan"] is config["stages"] is config["sensor"] is None
    named = resolve({"model": f"{nets}:Planner", "task": "driving"})
    assert named["dataset"] == "driving:small"


def test_its_cost_is_that_of_the_class_itself(nets: str) -> None:
    one = trial(f"{nets}:Planner", depth=2, width=5)
    assert one.params == 24 * 5 + 5 + 25 + 5 + 5 * 24 + 24 and one.macs == 24 * 5 + 25 + 5 * 24


@pytest.mark.parametrize(
    ("name", "point", "sentence"),
    [
        ("Flat", {}, "Flat returns a tensor (1, 24); let forward return plans (1, t, 2) or (1, t, 3)"),
        ("Planner", {"columns": 4}, "returns a tensor (1, 8, 4); let forward return plans"),
        ("Listed", {}, "Listed returns a list; let forward return plans"),
        (
            "Needs",
            {},
            "Needs fails on 1 scene (KeyError: 'lidar'); a sample holds bev, route, command, ego_st",
        ),
        ("Complex", {}, "Complex returns plans of torch.complex64; let forward return float32"),
        ("Planner", {"widht": 3}, "takes no widht, did you mean 'width'?"),
        ("Planner", {"epochs": 0}, "epochs=0 is out of range"),
        ("Planner", {"dataset": "driving:smal"}, "did you mean 'driving:small'"),
        ("Planner", {"dataset": "reverse"}, "use dataset='digits', or model='transformer'"),
    ],
)
def test_a_planner_that_does_not_fit_is_refused_in_the_plan(
    nets: str, name: str, point: dict[str, object], sentence: str
) -> None:
    assert sentence in refusal(f"{nets}:{name}", **point)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("TwoCommands", "TwoCommands fails on 3 scenes (IndexError: index out of range in self); mend it"),
        ("Still", "Still returns plans without gradients, so it cannot learn"),
        ("Keeps", "Keeps fails on 3 scenes (RuntimeError: Trying to backward through the graph a second"),
        ("Undefined", "Undefined plans NaN or infinities before it has learnt"),
    ],
)
def test_a_planner_that_would_fail_in_training_is_refused_in_the_plan(
    nets: str, name: str, sentence: str
) -> None:
    assert trial(f"{nets}:Commanded").params
    assert sentence in refusal(f"{nets}:{name}")


def test_a_sweep_knows_the_axes_that_mean_something_to_a_planner(nets: str) -> None:
    assert {"warmup_steps", "lr", "width", "depth", "seed"} <= takes(f"{nets}:Planner")
    assert "heads" not in takes(f"{nets}:Planner")


# --- What it is given, and what becomes of what it says ---


def test_a_planner_sees_what_the_ego_senses_and_no_label(nets: str) -> None:
    config = trial(f"{nets}:Planner").config
    inputs = procedure("driving").example(config, 3)
    assert [tuple(one.shape) for one in inputs] == [(3, 6, 64, 64), (3, 12, 2), (3,), (3, 5)]
    assert build(config)(*inputs).plan.shape == (3, 8, 3)
    by_cameras = trial(f"{nets}:Sees", dataset="driving:tiny+cameras").config
    assert by_cameras["sensor"] == "cameras"
    assert build(by_cameras)(*procedure("driving").example(by_cameras, 3)).plan.shape == (3, 8, 3)
    assert set(INPUTS) == {"bev", "route", "command", "ego_state"}


@pytest.mark.parametrize("points", [1, 3, 8, 12])
@pytest.mark.parametrize("columns", [2, 3])
def test_plans_of_any_length_become_eight_poses(points: int, columns: int) -> None:
    step = torch.tensor([2.0, 1.0])
    xy = step * torch.arange(1, points + 1)[:, None]
    plan = torch.cat([xy, torch.full((points, 1), 0.3)], dim=1)[None, :, :columns]
    found = whole(plan)
    torch.testing.assert_close(found[0, :, :2], step * torch.arange(1, 9)[:, None])
    wanted = 0.3 if columns == 3 else math.atan2(1, 2)
    torch.testing.assert_close(found[0, :, 2], torch.full((8,), wanted))


def test_who_stands_keeps_the_yaw() -> None:
    xy = torch.tensor([[0.0, 2.0]] * 3 + [[0.0, 2.0 + STANDING / 2]] * 5)[None]
    torch.testing.assert_close(whole(xy)[0, :, 2], torch.full((8,), math.pi / 2))


# --- Trained and judged ---


@pytest.mark.slow
def test_a_planner_of_ones_own_learns_from_plans_and_is_judged_by_driving(nets: str, data_dir: Path) -> None:
    one = trial(f"{nets}:Planner", columns=2, epochs=3, lr=1e-2, warmup_steps=2)
    events = list(run(one, Options(data_dir=str(data_dir))))
    assert events[-1]["status"] == "done", events[-1]["row"].get("error")
    losses = [epoch["train_loss"] for event in events for epoch in event.get("curve", ())]
    assert losses[-1] < losses[0]
    row = events[-1]["row"]
    judged = ("score", "at_fault", "off_road", "l2_3s", "col_4s", "score_blank")
    assert all(math.isfinite(row[f"test_{name}"]) for name in judged)
    assert "test_amota" not in row and row["shortcut"]  # it looks at the route alone


@pytest.mark.slow
def test_its_latency_is_measured(nets: str) -> None:
    one = trial(f"{nets}:Planner")
    subject = Subject(one.arch_id, one.config, one.source)
    row = measure_architecture(subject, Deployment(), device="cpu", reference_ms=0.5)
    assert row["latency_ms_p50"] > 0 and row["params"] == one.params


@pytest.mark.slow
def test_the_example_of_a_planner_of_ones_own_fits(data_dir: Path) -> None:
    sweep = read_sweep(ROOT / "sweeps/own_planner.py").override({"dataset": ["driving:tiny"], "epochs": [1]})
    points = [point for point in sweep.points() if "own_planner_net" in str(point["model"])]
    assert len(points) == 4
    one = make_trial(resolve(points[0]), Path("nowhere"))
    *_, last = run(one, Options(data_dir=str(data_dir)))
    assert last["status"] == "done" and 0 <= last["row"]["test_score"] <= 1


# --- Advice ---


def test_whatever_is_advised_for_a_model_or_a_data_set_is_accepted() -> None:
    """Of each pair of tasks: a model of one with a data set of the other."""
    for task, other in itertools.permutations(TASKS.values(), 2):
        model = next(iter(task.models))
        with pytest.raises(UserError) as caught:
            resolve({"model": model, "dataset": other.default_dataset})
        sentence = str(caught.value)
        fits = sentence.rpartition("model='")[2].partition("'")[0]
        data = sentence.rpartition("use dataset='")[2].partition("'")[0]
        assert resolve({"model": fits, "dataset": other.default_dataset})["task"] == other.name
        assert resolve({"model": model, "dataset": data})["task"] == task.name
