"""How long trials will take, from a few of their steps."""

import io
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.engine import console, runner
from attnsweep.engine.command import Command
from attnsweep.engine.deadline import Deadline
from attnsweep.space.estimate import Speed
from attnsweep.space.sweep import Sweep
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


def test_a_time_in_which_no_epoch_ends_is_said_before_and_after_with_one_in_which_it_would() -> None:
    out = io.StringIO()
    new = (trial(model="cnn", epochs=2),)
    speed = Speed()
    speed.observe(new[0], 2 * 2_000.0)
    plan: Any = SimpleNamespace(new=new, samples=(), open=(), speed=speed, seconds=speed.estimate(new))
    screen = Console(file=out, width=200)
    console.show_deadline(screen, plan, 1, 1_000.0)
    remedy = "an epoch takes about 33 min here, so use --hours 0.84 or more"  # 12 s + 1.5 * 2,000 s
    assert out.getvalue().endswith(f"in that time no epoch ends, and nothing is kept: {remedy}\n")
    over = Deadline(1_000.0, clock=iter([0.0, *[1_001.0] * 9]).__next__)
    sentence = console.unkept(over, plan)
    assert sentence == f"no epoch has ended, so nothing of it is kept: {remedy}"
    counts = Counter(new=1)
    console.show_closing(screen, counts, "results", 1e3, tasks=(), interrupted=False, unkept=sentence)
    assert f"0 done; {sentence}" in out.getvalue() and "goes on" not in out.getvalue().splitlines()[-1]
    over.kept = 1
    assert console.unkept(over, plan) == "" == console.unkept(Deadline(), plan)


def test_where_no_epoch_is_known_more_hours_are_asked_for() -> None:
    plan: Any = SimpleNamespace(new=(trial(model="cnn"),), samples=(), open=(), speed=Speed())
    over = Deadline(36.0, clock=iter([0.0, 50.0, 50.0]).__next__)
    assert console.unkept(over, plan).endswith("so nothing of it is kept: use --hours 0.02 or more")


@pytest.mark.parametrize(
    ("seconds", "left_s", "slots", "asked"),
    [
        (10_000.0, math.inf, 1, 60.0),  # a guess of much time
        (1_000.0, math.inf, 2, 25.0),
        (100.0, math.inf, 2, None),  # of little, shared by two
        (1.0, 400.0, 1, 20.0),  # a limit
        (1.0, 50.0, 1, None),  # of less than steps beforehand are worth
    ],
)
def test_steps_are_taken_beforehand_where_much_time_would_be_guessed_or_time_is_limited(
    monkeypatch: pytest.MonkeyPatch, seconds: float, left_s: float, slots: int, asked: float | None
) -> None:
    given: list[float] = []
    monkeypatch.setattr(probe, "seconds_of", lambda *_, budget_s, gpu: given.append(round(budget_s, 3)) or {})
    plan = SimpleNamespace(new=(trial(model="cnn"),), speed=Speed(), seconds=seconds)
    until = SimpleNamespace(seconds=left_s, left_s=left_s)
    command: Any = SimpleNamespace(
        plan=plan,
        until=until,
        screen=Console(file=io.StringIO()),
        where=SimpleNamespace(data=Path("nowhere")),
    )
    Command.probe(command, slots, 0)
    assert given == ([] if asked is None else [asked])


def test_rows_that_cannot_be_read_are_said_where_time_is_limited_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("torn")

    ended = SimpleNamespace(interrupted=False, trials=())
    monkeypatch.setattr(runner, "execute", lambda *_, **__: ended)
    monkeypatch.setattr(runner, "load", refuse)
    assert runner.run(Sweep(model="cnn"), results=tmp_path / "none", hours=1).empty
    (tmp_path / "some/trials").mkdir(parents=True)
    (tmp_path / "some/trials/one.parquet").touch()
    with pytest.raises(UserError, match="torn"):
        runner.run(Sweep(model="cnn"), results=tmp_path / "some", hours=1)
