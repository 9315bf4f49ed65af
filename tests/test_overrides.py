"""What overrides, grids and repeated points mean, and what a plan says of them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from attnsweep import Sweep
from attnsweep.core.errors import UserError
from attnsweep.core.text import duration
from attnsweep.space.files import literal, parse_overrides
from attnsweep.space.plan import make_plan
from attnsweep.space.search import expand_sweep
from attnsweep.space.trials import expand
from attnsweep.tasks.registry import resolve

NOWHERE = Path("nowhere")
DEPTHS = Sweep(model="vit", dataset="digits", depth=tune.grid_search([1, 2]))


@pytest.mark.parametrize("word", ["TRUE", "true", "False"])
def test_a_word_for_true_or_false_is_no_number(word: str) -> None:
    changed = DEPTHS.override({"depth": [literal(word)]})
    trials, invalid = expand(changed.points(), NOWHERE)
    assert not trials and {one.reason for one in invalid} == {
        f"depth={literal(word)} is not a whole number; use a whole number from 1 to 1000"
    }


def test_an_override_narrows_to_equal_numbers_however_they_are_written() -> None:
    assert [point["depth"] for point in DEPTHS.override({"depth": [literal("2.0")]}).points()] == [2]


def test_a_key_that_is_overridden_twice_is_a_sentence_that_writes_the_grid() -> None:
    with pytest.raises(UserError, match=r"depth= is given twice; for a grid write depth=1,2,4"):
        parse_overrides(["depth=1", "lr=1", "depth=2,4"])
    assert parse_overrides(["depth=1,2", "lr=0.1"]) == {"depth": [1, 2], "lr": [0.1]}


def test_an_option_that_is_given_several_values_is_refused() -> None:
    with pytest.raises(UserError, match=r"num_samples= takes one value, not 2: \[2, 3\]"):
        DEPTHS.override(parse_overrides(["num_samples=2,3"]))
    assert DEPTHS.override(parse_overrides(["objectives=val_acc,macs"])).objectives == ("val_acc", "macs")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"resources": {1: 1}}, "resources: 1 is no name"), ({"objectives": 3}, "objectives: 3 is unknown")],
)
def test_an_option_of_the_wrong_type_is_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Sweep(model="vit", **options)


def test_numbers_of_numpy_are_numbers_in_options() -> None:
    two, three = np.int64(2), np.int32(3)
    sweep = Sweep(model="vit", num_samples=two, trial_timeout=three, resources={"cpu": two})
    assert (sweep.num_samples, sweep.trial_timeout, sweep.resources) == (2, 3.0, {"cpu": 2})


def test_a_class_in_place_of_its_name_is_a_sentence_that_writes_it() -> None:
    with pytest.raises(UserError, match=r"model=Sweep is a class; name its file, too: 'FILE.py:Sweep'"):
        resolve({"model": Sweep})


@pytest.mark.parametrize("value", [np.zeros(2), np.zeros((2, 2)), np.zeros(0)])
def test_an_array_is_no_number(value: Any) -> None:
    ((one,), (two,)) = (
        expand(Sweep(model="vit", **{key: value}).points(), NOWHERE)[1] for key in ("lr", "depth")
    )
    assert "is not a number" in one.reason and "is not a whole number" in two.reason
    assert expand(Sweep(model="vit", depth=np.array([2])).points(), NOWHERE)[0][0].config["depth"] == 2


def test_none_is_a_word_where_an_axis_has_it_and_no_value_elsewhere() -> None:
    texts = ["positions=rope,none", "window=none,8", "qk_norm=none"]
    assert parse_overrides(texts) == {
        "positions": ["rope", "none"], "window": [None, 8], "qk_norm": ["none"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (itertools.count(), "depth: the grid has more than 100,000 values"),
        (itertools.repeat(3), "depth: the grid has more than 100,000 values"),
        ("vit", "depth: tune.grid_search takes a list, not 'vit'"),
        (5, "depth: tune.grid_search takes a list, not 5"),
    ],
)
def test_a_grid_without_an_end_and_one_that_is_none_are_refused(values: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Sweep(model="vit", depth=tune.grid_search(values))


def test_a_plan_counts_the_points_that_are_the_same_trial() -> None:
    sweep = Sweep(model="vit", dataset="digits", depth=tune.choice([1, 2]), num_samples=10)
    plan = make_plan(sweep, expand_sweep(sweep, NOWHERE), [])
    assert (len(plan.trials), plan.repeated) == (2, 8)
    assert make_plan(DEPTHS, expand_sweep(DEPTHS, NOWHERE), []).repeated == 0


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (8, "8 s"), (240, "4 min"), (7_500, "2 h 05 min"), (47 * 3_600, "47 h 00 min"),
        (72 * 3_600, "3 days"), (51_415 * 3_600, "5.9 years"),
    ],
)  # fmt: skip
def test_a_long_time_is_written_in_days_and_years(seconds: float, written: str) -> None:
    assert duration(seconds) == written
