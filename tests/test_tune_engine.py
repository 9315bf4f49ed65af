"""The engine of Ray Tune, with Tune's calls made by hand; real sweeps are in test_runner.py."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from attnsweep.core.trial import Trial
from attnsweep.engine import tune as module
from attnsweep.engine.engine import Event, Failed, Queue, Ready, Reported, Settings, Started, Tick
from attnsweep.engine.trainable import bundle
from attnsweep.engine.tune import LatestFirst, Suggestions, TuneEngine, why
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import resolve


def ours(seed: int) -> Trial:
    return make_trial(resolve(dict(model="cnn", seed=seed)), Path("nowhere"))


def one_of_tunes(trial: Trial, *, status: str = TuneTrial.RUNNING) -> TuneTrial:
    """Tune's record of a trial."""
    record = TuneTrial("", config={"trial": trial}, evaluated_params={"trial": trial}, stub=True)
    record.placement_group_factory = tune.PlacementGroupFactory([{"CPU": 1}])
    record.set_status(status)
    return record


class Driven:
    """An engine whose events are dealt with at once: so many trials are to run, what fails starts again."""

    def __init__(
        self, trials: int, *, slots: int, timeout: float | None = None, ahead: float = math.inf
    ) -> None:
        self.engine = TuneEngine(
            Settings({}, timeout, ahead), {"cpu": 1}, slots=slots, waits_for=lambda: "room"
        )
        self.engine.turns.hand_over = self.take_turn  # type: ignore[method-assign]
        self.source, self.events = Queue([ours(seed) for seed in range(trials)]), list[Event]()
        self.suggestions = Suggestions(self.engine)
        self.records: dict[int, TuneTrial] = {}

    def take_turn(self, batch: list[Event]) -> None:
        for event in self.engine.delivered(batch):
            self.deal_with(event)

    def deal_with(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case Ready(spare):
                if trial := self.source.take(last=spare):
                    self.engine.start(trial)
            case Failed(trial, _, False):
                self.engine.start(trial)

    def given(self) -> int:
        """The seed of the next trial that Tune gets."""
        suggested = self.suggestions.suggest("x")
        assert isinstance(suggested, dict)
        trial: Trial = suggested["trial"]
        seed: int = trial.config["seed"]
        self.records[seed] = one_of_tunes(trial)
        return seed

    def begin(self, *seeds: int) -> None:
        for seed in seeds:
            self.engine.on_start(self.records[seed])

    def end(self, seed: int) -> bool:
        return self.report(seed, {"status": "done"})

    def report(self, seed: int, report: dict[str, Any]) -> bool:
        return self.engine.on_report(self.records[seed], {"event": [report]})

    @property
    def waits(self) -> bool:
        return self.suggestions.suggest("x") is None


@pytest.mark.parametrize(("slots", "ahead"), [(1, 2), (2, 2), (5, 5)])
def test_there_is_a_new_trial_whenever_a_worker_becomes_free(slots: int, ahead: int) -> None:
    """It is the next in line; those that wait for workers that may join are the last ones."""
    driven = Driven(30, slots=slots)
    spares = [29 - number for number in range(ahead)]
    assert [driven.given() for _ in range(slots + ahead)] == [*range(slots), *spares]
    assert driven.waits
    driven.begin(*range(slots))
    assert driven.waits, "the slots are taken"
    driven.end(0)
    assert driven.given() == slots
    assert driven.waits


def test_a_node_that_joins_is_one_more_to_find_work_for() -> None:
    driven = Driven(30, slots=2)
    assert [driven.given() for _ in range(4)] == [0, 1, 29, 28]
    driven.begin(0, 1, 29)
    driven.engine.on_step_end([])
    assert driven.given() == 27, "another one waits for a node that may join"
    driven.end(0)
    assert driven.given() == 2, "the three workers are all kept busy"
    assert driven.waits


def test_suggested_trials_are_not_taken_sooner_than_their_source_wants() -> None:
    driven = Driven(30, slots=4, ahead=1)
    assert [driven.given() for _ in range(5)] == [0, 1, 2, 3, 29]
    assert driven.waits


def test_a_source_that_has_nothing_now_is_asked_again_until_nothing_runs() -> None:
    driven = Driven(1, slots=2)
    driven.given()
    assert driven.waits
    driven.begin(0)
    assert driven.waits
    driven.end(0)
    assert driven.suggestions.suggest("x") == Searcher.FINISHED


def test_a_trial_that_is_stopped_in_its_report_does_not_go_on() -> None:
    driven = Driven(2, slots=2)
    driven.given(), driven.given()
    driven.begin(0, 1)

    def stop(event: Event) -> None:
        if isinstance(event, Reported) and event.report["epoch"] == 2:
            driven.engine.stop(event.trial)

    driven.deal_with = stop  # type: ignore[method-assign]
    assert driven.report(0, {"epoch": 1})
    assert not driven.report(0, {"epoch": 2})
    assert driven.report(1, {"epoch": 1})
    assert not driven.report(0, {"epoch": 3}), "whatever comes of it later"


def test_a_trial_that_takes_too_long_loses_its_worker_and_is_not_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[Any] = []
    monkeypatch.setattr("ray.kill", killed.append)
    driven = Driven(2, slots=2, timeout=10.0)
    driven.given(), driven.given()
    driven.begin(0, 1)
    driven.records[0].temporary_state.ray_actor = "its worker"  # type: ignore[assignment]
    record, since = driven.engine.running[ours(0).trial_id]
    driven.engine.running[ours(0).trial_id] = (record, since - 10.0)
    driven.engine.ticked -= module.TICK_S
    driven.engine.on_step_end([])
    assert killed == ["its worker"]
    sentence = "it took longer than trial_timeout=10 s; the same command tries it again"
    assert Failed(ours(0), sentence, final=True) in driven.events
    driven.engine.on_error(driven.records[0])  # Tune notices that the worker is gone
    assert sum(isinstance(event, Failed) for event in driven.events) == 1
    driven.end(1)
    assert driven.suggestions.suggest("x") == Searcher.FINISHED


def test_a_trial_whose_worker_dies_comes_before_those_that_have_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "worker_death", lambda record: "killed")
    driven = Driven(9, slots=2)
    assert [driven.given() for _ in range(4)] == [0, 1, 8, 7]
    driven.begin(0, 1)
    driven.engine.on_error(driven.records[0])
    assert Started(ours(0)) in driven.events
    assert [driven.given(), driven.waits] == [0, True]


def test_after_a_breakdown_what_was_under_way_goes_on_alone_and_the_rest_waits() -> None:
    driven = Driven(5, slots=2)
    assert [driven.given() for _ in range(4)] == [0, 1, 4, 3]
    driven.begin(0, 1)
    driven.engine._break_down("a node ran out of memory")
    assert driven.given() == 0
    assert driven.waits, "the first has not ended"
    driven.begin(0)
    assert driven.waits
    driven.end(0)
    assert driven.given() == 1
    driven.begin(1)
    assert driven.waits
    driven.end(1)
    assert [driven.given(), driven.given(), driven.given()] == [4, 3, 2]


def test_a_suspect_that_is_given_up_holds_nobody_up() -> None:
    driven = Driven(4, slots=1)
    assert driven.given() == 0
    driven.begin(0)
    deal_with, driven.deal_with = driven.deal_with, lambda event: None  # type: ignore[method-assign]
    driven.engine._break_down("a node ran out of memory")  # which is the last straw
    driven.deal_with = deal_with  # type: ignore[method-assign]
    driven.engine.declined = False
    assert driven.given() in (1, 2, 3)


def test_what_trials_wait_for_is_said_after_a_while_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(2, slots=2)
    driven.given()
    driven.engine.ticked -= module.TICK_S
    driven.engine.on_step_end([])
    driven.engine.ticked -= module.TICK_S
    driven.engine.quiet_since -= module.PATIENCE_S
    driven.engine.on_step_end([])
    driven.begin(0)
    driven.engine.ticked -= module.TICK_S
    driven.engine.on_step_end([])
    assert [event for event in driven.events if isinstance(event, Tick)] == [Tick(), Tick("room"), Tick()]


def test_a_breakdown_for_memory_is_told_in_one_line() -> None:
    wrapped = RuntimeError("Caught unexpected exception: Task was killed")
    wrapped.__cause__ = OutOfMemoryError("Task was killed due to the node running low on memory.\nAdvice")
    assert why(wrapped) == "a node ran out of memory, and Ray killed a worker"
    assert why(ValueError("one\ntwo")) == "Ray Tune stopped (one)"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "ray.exceptions.ActorDiedError: The actor died.\n\tpid: 7\nThe actor is dead. Worker exit type: "
            "SYSTEM_ERROR Worker exit detail: End of file. Some common causes include: (1) ...\n",
            "End of file.",
        ),
        (
            "Traceback (most recent call last):\n  File x\nValueError: no such thing\n",
            "ValueError: no such thing",
        ),
        ("", "the process ended"),
    ],
)
def test_why_a_worker_died_is_told_in_one_line(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "error.txt").write_text(text)
    record: Any = SimpleNamespace(error_file=str(tmp_path / "error.txt"))
    assert module.worker_death(record) == cause


def test_all_trials_share_one_request() -> None:
    asked = (("cpu", 1.0), ("gpu", 0.0), ("special", 2.0))
    assert bundle(asked) is bundle(asked)
    assert bundle(asked).bundles == [{"CPU": 1.0, "special": 2.0}]


def chosen(trials: list[TuneTrial]) -> TuneTrial | None:
    """The trial that a free worker gets."""
    return LatestFirst(Driven(0, slots=1).engine).choose_trial_to_run(controller_of(trials))


def controller_of(trials: list[TuneTrial]) -> Any:
    """What Tune's schedulers see of Tune."""
    room = SimpleNamespace(has_resources_for_trial=lambda trial: True)
    return SimpleNamespace(get_trials=lambda: trials, trial_executor=room)


def test_a_free_worker_takes_the_trial_that_came_last() -> None:
    """The first one's own worker is about to start; the last but one's has taken it on already."""
    statuses = (TuneTrial.RUNNING, *3 * [TuneTrial.PENDING], TuneTrial.RUNNING)
    trials = [one_of_tunes(ours(seed), status=status) for seed, status in enumerate(statuses)]
    for trial, worker in zip(trials, (object(), None, None, object(), object()), strict=True):
        trial.temporary_state.ray_actor = worker  # type: ignore[assignment]
    assert chosen(trials) is trials[2]
    trials[1:3] = []
    assert chosen(trials) is None


def test_workers_are_first_asked_for_in_the_order_of_the_trials() -> None:
    assert chosen([one_of_tunes(ours(seed), status=TuneTrial.PENDING) for seed in range(3)]) is None
