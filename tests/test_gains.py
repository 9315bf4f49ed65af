import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnsweep.core.errors import UserError
from attnsweep.figures import gains as gains_module
from attnsweep.figures.gains import gains, main, markdown, order_in_words, spread_out, swapped

BEFORE = {"vit": (0.40, 0.42, 0.41), "cnn": (0.50, 0.51, 0.49)}
AFTER = {"vit": (0.60, 0.66, 0.63), "cnn": (0.52, 0.54, 0.50)}


def rows(**changed: object) -> pd.DataFrame:
    """Trials of two models under two recipes."""
    found = [
        dict(arch_id=f"{model}-sizes", model=model, dataset="cifar10", epochs=5, seed=seed, status="done",
             recipe=recipe, test_acc=accuracy, **changed)
        for recipe, side in (("published", BEFORE), ("modern", AFTER))
        for model, accuracies in side.items()
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    return pd.DataFrame(found)


def test_gains_are_means_of_the_differences_of_one_seed_with_students_interval() -> None:
    frame = rows().sample(frac=1, random_state=0)  # in any order
    found = {gain.model: gain for gain in gains(frame, "recipe", "modern", "published")}
    for model, gain in found.items():
        apart = np.array(AFTER[model]) - np.array(BEFORE[model])
        low, high = stats.t.interval(0.95, 2, apart.mean(), stats.sem(apart))
        assert gain.mean == pytest.approx(apart.mean())
        assert (gain.low, gain.high) == pytest.approx((low, high))
        assert (gain.before, gain.after) == pytest.approx((np.mean(BEFORE[model]), np.mean(AFTER[model])))
        assert gain.seeds == 3


def test_the_best_model_of_before_stands_first_and_is_passed_by_what_is_better_after() -> None:
    found = gains(rows(), "recipe", "modern", "published")
    assert [gain.model for gain in found] == ["cnn", "vit"]
    assert swapped(found) == [("cnn", "vit")] and order_in_words(found) == "by their means vit passes cnn"
    same = gains(rows(), "recipe", "published", "published")
    assert not swapped(same) and order_in_words(same) == "the order of their means stays"


def test_a_seed_without_its_partner_does_not_count_and_one_seed_has_no_interval() -> None:
    frame = rows()
    one = gains(
        frame[(frame["recipe"] == "published") | (frame["seed"] == 1)], "recipe", "modern", "published"
    )
    assert [gain.seeds for gain in one] == [1, 1] and one[0].high == math.inf
    assert one[0].mean == pytest.approx(AFTER["cnn"][1] - BEFORE["cnn"][1])
    assert "| - | 1 |" in markdown(one, "modern", "published")


def test_trials_that_failed_do_not_count() -> None:
    frame = rows()
    frame.loc[frame["recipe"].eq("modern") & frame["seed"].eq(2), "status"] = "failed"
    assert [gain.seeds for gain in gains(frame, "recipe", "modern", "published")] == [2, 2]


@pytest.mark.parametrize(
    ("axis", "value", "sentence"),
    [
        ("recipee", "modern", "there is no axis 'recipee'"),
        ("recipe", "moderne", "no two rows differ in recipe=moderne and recipe=published alone"),
    ],
)
def test_what_is_not_there_is_refused(axis: str, value: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        gains(rows(), axis, value, "published")


def test_two_rows_of_one_seed_are_refused() -> None:
    with pytest.raises(UserError, match="several rows of one seed have recipe=modern; choose among them"):
        gains(pd.concat([rows(), rows(lr=0.1)]), "recipe", "modern", "published")


def test_names_are_moved_apart_and_keep_their_order() -> None:
    assert spread_out([3.0, 1.0, 1.1], least=0.5) == [3.0, 1.0, 1.5]


@pytest.mark.slow
def test_the_command_prints_the_table_and_writes_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gains_module, "load", lambda root: rows())
    assert main(["results", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| cnn | 50.0 | 52.0 | +2.0 | " in printed
    assert {path.name for path in tmp_path.iterdir()} == {"gains.svg", "gains.png"}
    assert main(["results", "--axis", "nothing"]) == 2
    assert "there is no axis 'nothing'" in capsys.readouterr().err
