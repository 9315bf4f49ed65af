"""Asynchronous successive halving, against Ray Tune's own."""

import random
from collections.abc import Generator
from pathlib import Path

import pytest
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from attnsweep.core.trial import Trial
from attnsweep.engine.halving import RUNGS, Halving
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import AXES, TASKS, resolve


def one(**point: object) -> Trial:
    return make_trial(resolve({"model": "cnn", **point}), Path("nowhere"))


def epoch(trial: Trial, number: int, val_acc: float) -> dict[str, object]:
    return {"trial_id": trial.trial_id, "epoch": number, "val_acc": val_acc, "val_loss": 1 - val_acc}


def stream(
    chance: random.Random, trials: list[Trial], epochs: int
) -> Generator[tuple[Trial, int, float], bool, None]:
    """Epochs of trials that run side by side, three at a time, in an order of chance; what is sent says
    whether the trial goes on.
    """
    known, waiting = {trial.trial_id: trial for trial in trials}, list(trials)
    skill = {trial.trial_id: chance.choice([0.2, 0.5, 0.5, 0.8]) for trial in trials}
    running: dict[str, int] = {}
    while waiting or running:
        while waiting and len(running) < 3:
            running[waiting.pop(0).trial_id] = 0
        trial_id = chance.choice(sorted(running))
        running[trial_id] += 1
        goes_on = yield known[trial_id], running[trial_id], skill[trial_id] + chance.gauss(0, 0.1)
        if not goes_on or running[trial_id] == epochs:
            del running[trial_id]


@pytest.mark.parametrize("seed", range(20))
def test_without_seeds_the_decisions_are_those_of_rays_scheduler(seed: int) -> None:
    chance, trials = random.Random(seed), [one(lr=1e-4 * (1 + number)) for number in range(24)]
    theirs = ASHAScheduler(time_attr="epoch", metric="quality", mode="max", max_t=int(AXES["epochs"].high))
    records = {trial.trial_id: TuneTrial("", trial_id=trial.trial_id, stub=True) for trial in trials}
    for record in records.values():
        theirs.on_trial_add(None, record)  # type: ignore[arg-type]
    halving, events = Halving(), stream(chance, trials, epochs=20)
    decisions, event = [], next(events)
    while event:
        trial, number, quality = event
        expected = theirs.on_trial_result(
            None,
            records[trial.trial_id],
            {"epoch": number, "quality": quality},  # type: ignore[arg-type]
        )
        stops = halving.stops(trial, epoch(trial, number, quality))
        assert stops == (expected == TrialScheduler.STOP)
        decisions.append(stops)
        try:
            event = events.send(not stops)
        except StopIteration:
            break
    assert 0 < sum(decisions) < len(trials)


def test_rungs_stand_at_powers_of_four() -> None:
    assert RUNGS[:4] == (1, 4, 16, 64) and 4 * RUNGS[-1] > AXES["epochs"].high >= RUNGS[-1]


def test_seeds_of_one_configuration_do_not_compete() -> None:
    halving = Halving()
    for seed, quality in enumerate((0.9, 0.1, 0.5, 0.0)):
        trial = one(seed=seed)
        assert not halving.stops(trial, epoch(trial, 1, quality))


def test_a_configuration_counts_by_the_mean_of_its_seeds() -> None:
    """0.9 and 0.1 against 0.6: their mean is 0.5. The unlucky seed of the better one goes on."""
    halving = Halving()
    other = one(lr=1e-3)
    assert not halving.stops(other, epoch(other, 1, 0.6))
    lucky, unlucky = one(seed=0), one(seed=1)
    assert not halving.stops(lucky, epoch(lucky, 1, 0.9))
    assert halving.stops(unlucky, epoch(unlucky, 1, 0.1))
    better = one(seed=2)  # (0.9 + 0.1 + 0.9) / 3 = 0.633
    assert not halving.stops(better, epoch(better, 1, 0.9))


def test_many_seeds_of_one_configuration_are_one_competitor() -> None:
    """Eight good seeds of one setting leave the second best of three settings where it would be with one."""
    for seeds in (1, 8):
        halving = Halving()
        for seed in range(seeds):
            good = one(lr=1e-3, seed=seed)
            halving.stops(good, epoch(good, 1, 0.9))
        for lr, quality in ((2e-3, 0.1), (3e-3, 0.2)):
            trial = one(lr=lr)
            halving.stops(trial, epoch(trial, 1, quality))
        second = one(lr=4e-3)
        assert halving.stops(second, epoch(second, 1, 0.54))  # 0.2 + (0.9 - 0.2) / 2 = 0.55
        third = one(lr=5e-3)
        assert not halving.stops(third, epoch(third, 1, 0.9))


def test_trials_of_different_models_and_data_sets_are_not_compared() -> None:
    halving, good = Halving(), one()
    halving.stops(good, epoch(good, 1, 0.9))
    for other in (one(model="vit"), one(dataset="digits", epochs=3)):
        assert halving.stops(other, epoch(other, 1, 0.1)) == (other.config["model"] == "cnn")


def test_what_stands_in_the_table_of_epochs_refills_the_rungs() -> None:
    """Four good ones in one command; the bad ones of the next are stopped as if all had been in one."""
    good, bad = ([one(lr=lr * scale) for lr in (1e-3, 2e-3, 3e-3, 4e-3)] for scale in (1, 1e-3))
    rows = [epoch(trial, number, 0.9) for trial in good for number in (1, 2, 3)]
    halving = Halving()
    halving.refill([*good, *bad], reversed(rows))
    assert all(halving.stops(trial, epoch(trial, 1, 0.1)) for trial in bad)


def test_trials_of_other_sweeps_do_not_refill_the_rungs() -> None:
    good, bad = one(lr=1e-3), one(lr=1e-6)
    halving = Halving()
    halving.refill([bad], [epoch(good, 1, 0.9)])
    assert not halving.stops(bad, epoch(bad, 1, 0.1))


def test_a_trial_that_goes_on_from_its_checkpoint_is_not_judged_twice_at_a_rung() -> None:
    slow, good = one(lr=1e-6), one(lr=1e-3)
    halving = Halving()
    halving.refill([slow, good], [epoch(slow, 1, 0.1), epoch(slow, 2, 0.1), epoch(good, 1, 0.9)])
    assert not halving.stops(slow, epoch(slow, 3, 0.1))
    halving.stops(good, epoch(good, 4, 0.9))
    assert halving.stops(slow, epoch(slow, 4, 0.1))


def test_where_nothing_plans_a_low_loss_selects_whether_the_score_is_missing_or_null() -> None:
    driving = TASKS["driving"]
    for epoch in ({"val_loss": 2.0}, {"val_loss": 2.0, "val_score": None}):
        assert driving.selecting(epoch) == -2.0
    assert driving.selecting({"val_loss": 2.0, "val_score": 0.5}) == 0.5
    with pytest.raises(KeyError):
        TASKS["images"].selecting({"val_loss": 2.0})
