from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from attnsweep.core.trial import Trial
from attnsweep.engine.tune import Feed, Messenger, Patient, Queue, bundle, forget, why
from attnsweep.results.store import Row
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import resolve


class Silent:
    """A record that keeps nothing."""

    def started(self, trial: Trial) -> None: ...

    def told(self, trial: Trial, event: Mapping[str, Any]) -> None: ...

    def ended(self, trial: Trial, status: str, row: Row) -> None: ...


def ours(seed: int) -> Trial:
    return make_trial(resolve(dict(model="cnn", seed=seed)), Path("nowhere"))


def one_of_tunes(trial: Trial, *, status: str) -> TuneTrial:
    """Tune's record of a trial that has told a result."""
    record = TuneTrial("", config={"trial": trial}, evaluated_params={"trial": trial}, stub=True)
    record.placement_group_factory = tune.PlacementGroupFactory([{"CPU": 1}])
    record.update_last_result({"event": [], "val_acc": 0.5, "config": {"trial": trial}})
    record.set_status(status)
    return record


def test_what_tune_keeps_of_ended_trials_is_a_shell() -> None:
    trials = [one_of_tunes(ours(seed), status=TuneTrial.TERMINATED) for seed in range(3)]
    every = list(trials)
    forget(trials)
    assert trials == every[-1:], "Tune cannot do without a last one"
    (state, result), (other_state, other_result), last = (one.get_json_state() for one in every)
    assert (state, other_state) == ("", "") and result is other_result
    assert "val_acc" in last[1] and "val_acc" not in result
    assert every[0].config == every[0].evaluated_params == {}


def test_trials_that_have_not_ended_are_left_as_they_are() -> None:
    statuses = (TuneTrial.RUNNING, TuneTrial.ERROR, TuneTrial.PENDING, TuneTrial.TERMINATED)
    trials = [one_of_tunes(ours(seed), status=status) for seed, status in enumerate(statuses)]
    forget(trials)
    assert [one.status for one in trials] == [TuneTrial.RUNNING, TuneTrial.PENDING, TuneTrial.TERMINATED]
    assert [one.config["trial"].config["seed"] for one in trials] == [0, 2, 3]
    assert trials[0].last_result["val_acc"] == 0.5


@pytest.mark.parametrize("private", ["_state_json", "_Trial__unresolved_config"])
def test_a_tune_that_keeps_other_things_is_no_error(private: str) -> None:
    trials = [one_of_tunes(ours(seed), status=TuneTrial.TERMINATED) for seed in range(2)]
    delattr(trials[0], private)
    forget(trials)
    assert len(trials) == 1


def test_a_feed_gives_first_what_an_earlier_call_of_tune_has_left() -> None:
    messenger = Messenger(Queue([ours(0), ours(1)]), Silent(), slots=2)
    first = Feed(messenger)
    assert given(first) == 0
    again = Feed(messenger)
    assert [given(again), given(again)] == [0, 1]
    assert again.suggest("x") == Searcher.FINISHED


def test_after_a_breakdown_what_was_under_way_goes_on_alone_and_the_rest_waits() -> None:
    messenger = Messenger(Queue([ours(seed) for seed in range(4)]), Silent(), slots=2)
    first = Feed(messenger)
    assert [given(first) for _ in range(3)] == [0, 1, 3]
    for seed in (0, 1):
        messenger.on_trial_start(0, [], one_of_tunes(ours(seed), status=TuneTrial.RUNNING))
    alone = Feed(messenger, alone=True)
    assert given(alone) == 0
    assert alone.suggest("x") is None, "the first has not ended"
    messenger.on_trial_complete(0, [], one_of_tunes(ours(0), status=TuneTrial.TERMINATED))
    assert given(alone) == 1
    messenger.on_trial_complete(0, [], one_of_tunes(ours(1), status=TuneTrial.TERMINATED))
    assert alone.suggest("x") == Searcher.FINISHED
    again = Feed(messenger)
    assert [given(again), given(again)] == [3, 2]


@pytest.mark.parametrize(("slots", "ahead"), [(1, 2), (2, 2), (5, 5)])
def test_there_is_a_new_trial_whenever_a_worker_becomes_free(slots: int, ahead: int) -> None:
    """It is the next in line; those that wait for workers that may join are the last ones."""
    messenger = Messenger(Queue([ours(seed) for seed in range(30)]), Silent(), slots=slots)
    feed = Feed(messenger)
    spares = [29 - number for number in range(ahead)]
    assert [given(feed) for _ in range(slots + ahead)] == [*range(slots), *spares]
    assert feed.suggest("x") is None
    running = [one_of_tunes(ours(seed), status=TuneTrial.RUNNING) for seed in range(slots)]
    for one in running:
        messenger.on_trial_start(0, running, one)
    messenger.on_step_end(0, running)
    assert feed.suggest("x") is None, "the slots are taken"
    messenger.on_trial_complete(0, running, running[0])
    messenger.on_step_end(0, running[1:])
    assert given(feed) == slots
    assert feed.suggest("x") is None


def test_a_node_that_joins_is_one_more_to_find_work_for() -> None:
    messenger = Messenger(Queue([ours(seed) for seed in range(30)]), Silent(), slots=2)
    feed = Feed(messenger)
    assert [given(feed) for _ in range(4)] == [0, 1, 29, 28]
    running = [one_of_tunes(ours(seed), status=TuneTrial.RUNNING) for seed in (0, 1, 29)]
    for one in running:
        messenger.on_trial_start(0, running, one)
    messenger.on_step_end(0, running)
    assert given(feed) == 27, "another one waits for a node that may join"
    messenger.on_trial_complete(0, running, running[0])
    messenger.on_step_end(0, running[1:])
    assert given(feed) == 2, "the three workers are all kept busy"
    assert feed.suggest("x") is None


def test_suggested_trials_are_not_taken_sooner_than_their_source_wants() -> None:
    class Careful(Queue):
        ahead = 1

    feed = Feed(Messenger(Careful([ours(seed) for seed in range(30)]), Silent(), slots=4))
    assert [given(feed) for _ in range(5)] == [0, 1, 2, 3, 29]
    assert feed.suggest("x") is None


def test_a_breakdown_for_memory_is_told_in_one_line() -> None:
    wrapped = RuntimeError("Caught unexpected exception: Task was killed")
    wrapped.__cause__ = OutOfMemoryError("Task was killed due to the node running low on memory.\nAdvice")
    assert why(wrapped) == "a node ran out of memory, and Ray killed a worker"
    assert why(ValueError("one\ntwo")) == "Ray Tune stopped (one)"


def given(feed: Feed) -> int:
    """The seed of the next trial."""
    suggested = feed.suggest("x")
    assert isinstance(suggested, dict)
    seed: int = suggested["trial"].config["seed"]
    return seed


def test_a_source_that_has_nothing_now_is_asked_again() -> None:
    class Later(Queue):
        exhausted = False  # type: ignore[assignment]

    assert Feed(Messenger(Later([]), Silent(), slots=2)).suggest("x") is None


def test_all_trials_share_one_request() -> None:
    asked = (("cpu", 1.0), ("gpu", 0.0), ("special", 2.0))
    assert bundle(asked) is bundle(asked)
    assert bundle(asked).bundles == [{"CPU": 1.0, "special": 2.0}]


def test_a_free_worker_takes_the_trial_that_came_last() -> None:
    """The first one's own worker is about to start; the last but one's has taken it on already."""
    statuses = (TuneTrial.RUNNING, *3 * [TuneTrial.PENDING], TuneTrial.RUNNING)
    trials = [one_of_tunes(ours(seed), status=status) for seed, status in enumerate(statuses)]
    for trial, worker in zip(trials, (object(), None, None, object(), object()), strict=True):
        trial.temporary_state.ray_actor = worker
    controller = SimpleNamespace(get_trials=lambda: trials)
    assert Patient().choose_trial_to_run(controller) is trials[2]
    trials[1:3] = []
    assert Patient().choose_trial_to_run(controller) is None


def test_workers_are_first_asked_for_in_the_order_of_the_trials() -> None:
    trials = [one_of_tunes(ours(seed), status=TuneTrial.PENDING) for seed in range(3)]
    assert Patient().choose_trial_to_run(SimpleNamespace(get_trials=lambda: trials)) is None
