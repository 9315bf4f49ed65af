"""The driving task: planners as models of a sweep, trained and judged on a few small scenes."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.results.schema import by_table
from attnsweep.space.trials import make_trial
from attnsweep.tasks.driving import training as driving
from attnsweep.tasks.driving.columns import BY_MAP, COLUMNS
from attnsweep.tasks.driving.records import presets, scenes
from attnsweep.tasks.driving.stack.design import STAGES
from attnsweep.tasks.registry import build, procedure, resolve
from attnsweep.training.trial import Options, run

pytestmark = pytest.mark.slow

RULES = ("stop", "constant_velocity", "route_following", "expert")
SMALL = dict(dataset="driving:tiny", dim=16, mlp_dim=16, heads=2, epochs=2, batch_size=32, warmup_steps=2)
TIMES = {"train_s", "epoch_s", "eval_s", "samples_per_s", "started_at", "finished_at", "peak_mem_mb"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    scenes.ensure(presets.find("driving:tiny"), folder, processes=1)
    return folder


def trial(**point: Any) -> Trial:
    return make_trial(resolve({**SMALL, **point}), Path("nowhere"))


def last(data_dir: Path, **point: Any) -> dict[str, Any]:
    """The final event of a trial; its curve is all epochs."""
    events = list(run(trial(**point), Options(data_dir=str(data_dir))))
    assert events[-1]["status"] == "done", events[-1]["row"].get("error")
    events[-1]["curve"] = [epoch for event in events for epoch in event.get("curve", ())]
    return events[-1]


@pytest.fixture(scope="module")
def full(data_dir: Path) -> dict[str, Any]:
    return last(data_dir, model="planning", stages="id12")


def refusal(**point: object) -> str:
    with pytest.raises(UserError) as caught:
        resolve({"model": "planning", **point})
    return str(caught.value)


# --- What is swept ---


def test_a_set_of_stages_fills_the_toggles_and_a_toggle_of_ones_own_wins() -> None:
    config = resolve({"model": "planning", "stages": "id11", "plan_map": "off"})
    assert {key: config[key] for key in STAGES["id11"]} == STAGES["id11"] | {"plan_map": "off"}
    assert (config["task"], config["dataset"]) == ("driving", "driving:small")


def test_toggles_that_make_no_sense_together_are_refused_with_what_to_do() -> None:
    assert "set track='offset' or motion='none'" in refusal(stages="id10", motion="former")
    assert "did you mean 'id12'" in refusal(stages="id122")
    assert "use dataset='driving:small', or model='cnn'" in refusal(dataset="digits")
    assert "did you mean 'driving:small'" in refusal(dataset="driving:smal")
    assert "is not a folder" in refusal(dataset="commonroad:/nowhere/at/all")


def test_a_rule_takes_no_notice_of_what_only_networks_have() -> None:
    assert resolve({"model": "stop", "epochs": 7, "lr": 1.0}) == resolve({"model": "stop"})


def test_parameters_and_macs_are_those_of_the_model_that_is_built() -> None:
    for stages in ("id0", "id10", "id12"):
        planned = trial(model="planning", stages=stages)
        model = build(planned.config)
        assert planned.params == sum(parameter.numel() for parameter in model.parameters())
        assert planned.macs > 1e6


def test_the_rate_rises_and_falls_to_nothing() -> None:
    config = {"lr": 1.0, "warmup_steps": 10, "epochs": 5}
    rates = [driving.learning_rate(config, step, 20) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (k + 1) for k in range(10)])
    assert rates[10] == 1.0 and max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 1e-3


# --- What comes out ---


@pytest.mark.parametrize("model", RULES)
def test_a_rule_is_judged_without_training(data_dir: Path, model: str) -> None:
    event = last(data_dir, model=model)
    row = event["row"]
    assert 0 <= row["test_score"] <= 1 and row["params"] == 0
    assert len(event["curve"]) == row["best_epoch"] == 1
    assert "train_loss" not in row and "epoch_s" not in row


def test_the_expert_drives_without_fault_and_is_its_own_measure(data_dir: Path) -> None:
    row = last(data_dir, model="expert")["row"]
    assert row["test_score"] > 0.9 and row["test_at_fault"] == 0
    assert row["test_l2_4s"] == row["test_col_4s"] == row["test_gt_col_4s"] == row["test_offroad_4s"] == 0


def test_a_planner_ends_with_every_column_of_driving(full: dict[str, Any]) -> None:
    row = full["row"]
    maps = json.loads(row["test_map_measures"])
    assert {"amota", "map_iou_drivable", "min_ade6", "l2_3s", "at_fault"} <= set(maps) <= set(BY_MAP)
    assert {len(values) for values in maps.values()} == {2}  # driving:tiny has two test maps
    assert np.mean(maps["off_road"]) == pytest.approx(row["test_off_road"], abs=1e-4)
    lacking = {column.name for column in COLUMNS} - set(row)
    few = {
        "test_finish_s",
        "test_vpq_near",
        "test_vpq_far",
        "test_min_ade6",
        "test_min_fde6",
        "test_miss_rate",
    }
    of_slices = {name for name in lacking if name.rpartition("_")[2] in ("turn", "interactive", "hard")}
    assert lacking - few - of_slices == {"highway_env_score"}  # few scenes: some things do not occur in them
    assert 0 <= row["test_score_low"] <= row["test_score"] <= row["test_score_high"] <= 1
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    assert row["val_score"] == max(epoch["val_score"] for epoch in full["curve"])


def test_a_measure_that_nobody_declared_raises(full: dict[str, Any]) -> None:
    """Those of a trial are all declared: none is dropped in silence."""
    by_table(full["row"])
    with pytest.raises(KeyError, match="test_kindness; declare it"):
        by_table({**full["row"], **driving.of_test({"kindness": 1.0})})


def test_the_same_planner_twice_gives_the_same_numbers_to_the_bit(
    data_dir: Path, full: dict[str, Any]
) -> None:
    again = last(data_dir, model="planning", stages="id12")
    first, second = ({k: v for k, v in one["row"].items() if k not in TIMES} for one in (full, again))
    assert first == second


def test_without_a_planner_the_loss_selects(data_dir: Path) -> None:
    event = last(data_dir, model="planning", stages="id9")
    row, losses = event["row"], [epoch["val_loss"] for epoch in event["curve"]]
    assert "test_score" not in row and "val_score" not in row and "test_ap" in row
    assert row["best_epoch"] == 1 + losses.index(min(losses))


def test_the_test_part_is_opened_once_at_the_selected_epoch(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, scores = [], iter([0.9, 0.1, 0.2])
    weights: list[torch.Tensor] = []

    def judge(model: torch.nn.Module, data: Any, config: Any) -> dict[str, float]:
        weights.append(next(model.parameters()).detach().clone())
        return {"val_score": next(scores), "val_loss": 1.0}

    def examine(model: torch.nn.Module, data: Any, config: Any) -> dict[str, Any]:
        calls.append(next(model.parameters()).detach().clone())
        return {"test_score": 0.5}

    monkeypatch.setattr(procedure("driving"), "judge", judge)
    monkeypatch.setattr(procedure("driving"), "examine", examine)
    row = last(data_dir, model="ego_mlp", epochs=3)["row"]
    assert (row["best_epoch"], row["test_score"]) == (1, 0.5)
    assert len(calls) == 1 and torch.equal(calls[0], weights[0]) and not torch.equal(calls[0], weights[2])


def test_of_epochs_with_one_score_the_one_with_the_lowest_loss_is_selected(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = iter([(0.4, 3.0), (0.5, 2.0), (0.5, 1.0), (0.5, 1.5)])

    def judge(model: torch.nn.Module, data: Any, config: Any) -> dict[str, float]:
        return dict(zip(("val_score", "val_loss"), next(epochs), strict=True))

    monkeypatch.setattr(procedure("driving"), "judge", judge)
    monkeypatch.setattr(procedure("driving"), "examine", None)
    row = last(data_dir, model="ego_mlp", epochs=4)["row"]
    assert (row["best_epoch"], row["val_score"], row["val_loss"]) == (3, 0.5, 1.0)


@pytest.mark.parametrize(("sensed", "shape"), [("bev", (6, 64, 64)), ("cams", (6, 3, 64, 112))])
def test_a_blank_sensor_is_blank_and_nothing_else_changes(sensed: str, shape: tuple[int, ...]) -> None:
    heard: list[dict[str, Any]] = []

    def policy(seen: Any) -> Any:
        heard.append(seen)
        return np.zeros((1, 8, 3))

    seen = {sensed: np.ones((1, *shape), np.uint8), "route": np.ones((1, 12, 2))}
    driving.blanked(policy, sensed)(seen)
    assert heard[0][sensed].shape == seen[sensed].shape and not heard[0][sensed].any()
    assert heard[0]["route"] is seen["route"] and seen[sensed].all()
