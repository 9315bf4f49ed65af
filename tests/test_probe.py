"""How long trials will take, from a few of their steps."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from attnsweep.core.trial import Trial
from attnsweep.engine import console
from attnsweep.space.estimate import Speed
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import resolve
from attnsweep.training import probe


def trial(**point: Any) -> Trial:
    return make_trial(resolve({"dataset": "digits", "epochs": 1, **point}), Path("nowhere"))


@pytest.mark.slow
def test_a_trial_of_twice_the_epochs_is_probed_to_take_about_twice_as_long() -> None:
    once, often = trial(model="cnn"), trial(model="cnn", epochs=20)
    found = probe.seconds_of([once, often], "nowhere", budget_s=60)
    assert 0 < found[once.trial_id] < found[often.trial_id] < 200 * found[once.trial_id]


@pytest.mark.slow
def test_a_trial_that_cannot_begin_costs_no_estimate_of_those_before_it(tmp_path: Path) -> None:
    fine, lost = trial(model="cnn"), trial(model="cnn", dataset="mnist")
    assert set(probe.seconds_of([fine, lost], str(tmp_path), budget_s=60)) == {fine.trial_id}


def test_of_each_model_that_none_has_trained_the_middle_trial_is_probed() -> None:
    speed, vits = Speed(), [trial(model="vit", depth=depth) for depth in (1, 4, 2)]
    speed.observe(trial(model="cnn"), 1.0)
    assert speed.unseen([*vits, trial(model="cnn", epochs=2)]) == [vits[2]]


@pytest.mark.parametrize(
    ("left_s", "sentence"),
    [
        (100.0, "2 of 2 trials\n"),
        (15.0, "1 of 2 trials; the same command goes on with the others\n"),
    ],
)
def test_what_fits_into_the_time_is_said(left_s: float, sentence: str) -> None:
    out = io.StringIO()
    new = (trial(model="cnn"), trial(model="cnn", seed=1))
    speed = Speed()
    speed.observe(new[0], 10.0)
    plan: Any = SimpleNamespace(new=new, open=(), speed=speed, seconds=speed.estimate(new))
    console.show_deadline(Console(file=out, width=200), plan, 1, left_s)
    assert out.getvalue().endswith(f"about {sentence}")
