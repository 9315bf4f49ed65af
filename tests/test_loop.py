"""What is decided about trials, with an engine that follows a script."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.engine.deadline import GRACE_S, Deadline, after, hours_of
from attnsweep.engine.engine import Event, Failed, Queue, Ready, Reported, Started, Tick
from attnsweep.engine.halving import Halving
from attnsweep.engine.loop import MOST_STARTS, SILENT_S, SILENT_STEPS, UNKNOWN_S, Silence, run_trials
from attnsweep.results.store import Row
from attnsweep.space.trials import make_trial
from attnsweep.tasks.registry import resolve

Script = Callable[[Trial, int], Iterator[Event]]  # of a trial and its how-manieth start, from 1


class Noted:
    """A record that keeps everything."""

    def __init__(self) -> None:
        self.started_ids: list[str] = []
        self.reports: list[Any] = []
        self.ends: dict[str, tuple[str, Row]] = {}
        self.retried: list[str] = []
        self.waited: list[str | None] = []
        self.left_ids: list[str] = []

    def started(self, trial: Trial) -> None:
        self.started_ids.append(trial.trial_id)

    def reported(self, trial: Trial, report: Any) -> None:
        self.reports.append(report)

    def ended(self, trial: Trial, status: str, row: Row) -> None:
        self.ends[trial.trial_id] = (status, row)

    def failed(self, trial: Trial, error: str) -> None:
        self.retried.append(error)

    def left(self, trial: Trial) -> None:
        self.left_ids.append(trial.trial_id)

    def waiting(self, waits_for: str | None) -> None:
        self.waited.append(waits_for)


class Scripted:
    """An engine whose trials do as the script says, one after another."""

    def __init__(self, script: Script) -> None:
        self.script, self.queue, self.starts, self.stopped = (
            script,
            list[Trial](),
            dict[str, int](),
            set[str](),
        )

    def start(self, trial: Trial) -> None:
        self.queue.insert(0, trial)

    def stop(self, trial: Trial) -> None:
        self.stopped.add(trial.trial_id)

    def events(self) -> Iterator[Event]:
        while True:
            if not self.queue:
                yield Ready()
            if not self.queue:
                return
            trial = self.queue.pop(0)
            self.starts[trial.trial_id] = self.starts.get(trial.trial_id, 0) + 1
            for event in self.script(trial, self.starts[trial.trial_id]):
                yield event
                if trial.trial_id in self.stopped:
                    break


def trials(number: int, **point: object) -> list[Trial]:
    return [
        make_trial(resolve({"model": "cnn", "seed": seed, **point}), Path("nowhere"))
        for seed in range(number)
    ]


def ran(
    script: Script,
    several: list[Trial],
    halving: Halving | None = None,
    deadline: Deadline | None = None,
) -> tuple[Noted, Scripted]:
    record, engine = Noted(), Scripted(script)
    run_trials(engine, Queue(several), record, halving, deadline)
    return record, engine


def test_every_trial_of_the_source_runs_once_and_in_order() -> None:
    def works(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)
        yield Reported(trial, {"status": "done", "row": {**trial.row(), "val_acc": 0.5}})

    several = trials(3)
    record, _ = ran(works, several)
    assert record.started_ids == [trial.trial_id for trial in several]
    assert [end[0] for end in record.ends.values()] == ["done"] * 3
    assert all(row["val_acc"] == 0.5 for _, row in record.ends.values())


def test_a_trial_whose_worker_dies_starts_again_and_is_a_failed_row_at_last() -> None:
    def dies(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)
        yield Reported(trial, {"row": {**trial.row(), "best_epoch": 1}})
        yield Failed(trial, "killed")

    (trial,) = several = trials(1)
    record, engine = ran(dies, several)
    assert engine.starts == {trial.trial_id: MOST_STARTS}
    assert record.retried == ["killed"] * (MOST_STARTS - 1)
    status, row = record.ends[trial.trial_id]
    assert (status, row["error"]) == ("failed", f"its worker failed, at {MOST_STARTS} starts: killed")
    assert row["best_epoch"] == 1, "what it had come to"


def test_a_worker_that_dies_before_it_begins_counts_too() -> None:
    def dies(trial: Trial, start: int) -> Iterator[Event]:
        yield Failed(trial, "cannot import torch")

    record, _ = ran(dies, trials(1))
    assert [status for status, _ in record.ends.values()] == ["failed"]


def test_a_failure_that_would_happen_again_is_not_tried_again() -> None:
    def hangs(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)
        yield Failed(trial, "it took longer than trial_timeout=1 s", final=True)

    record, engine = ran(hangs, trials(2))
    assert set(engine.starts.values()) == {1}
    assert [row["error"] for _, row in record.ends.values()] == ["it took longer than trial_timeout=1 s"] * 2


def test_a_trial_below_the_others_is_stopped_at_that_very_epoch() -> None:
    def learns(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)
        for epoch in range(1, 6):
            curve = [{"trial_id": trial.trial_id, "epoch": epoch, "val_acc": trial.config["lr"]}]
            yield Reported(
                trial, {"epoch": epoch, "curve": curve, "row": {**trial.row(), "best_epoch": epoch}}
            )
        yield Reported(trial, {"status": "done"})

    (good,), (bad,) = trials(1, lr=1e-2), trials(1, lr=1e-5)
    record, engine = ran(learns, [good, bad], Halving())
    assert record.ends[good.trial_id][0] == "done" and engine.stopped == {bad.trial_id}
    status, row = record.ends[bad.trial_id]
    assert (status, row["best_epoch"]) == ("stopped", 1)


def test_what_a_record_raises_ends_the_loop_and_the_engine() -> None:
    closed = []

    class Full(Noted):
        def started(self, trial: Trial) -> None:
            raise OSError("full")

    class Closing(Scripted):
        def events(self) -> Iterator[Event]:
            try:
                yield from super().events()
            finally:
                closed.append(True)

    def works(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)

    with pytest.raises(OSError, match="full"):
        run_trials(Closing(works), Queue(trials(1)), Full())
    assert closed == [True]


def test_what_trials_wait_for_is_passed_on() -> None:
    def waits(trial: Trial, start: int) -> Iterator[Event]:
        yield Tick("room")
        yield Started(trial)
        yield Tick()
        yield Reported(trial, {"status": "done"})

    assert ran(waits, trials(1))[0].waited == ["room", None]


def test_a_silent_trial_is_remarked_on_once(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    silence = Silence(clock=lambda: now)
    known, other = trials(2)
    silence.started(known)
    now = UNKNOWN_S
    silence.remark()
    assert not caplog.records
    silence.reported(known)  # its data took that long to load
    silence.ended(known)
    silence.usual["cnn"] = 10.0
    silence.started(other)
    now += max(SILENT_S, SILENT_STEPS * 10.0)
    silence.remark()
    assert not caplog.records
    now += 1
    silence.remark()
    silence.remark()
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"trial {other.trial_id} (cnn) has not reported for 201 s; trial_timeout=")


# A deadline


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_after_the_time_is_up_a_trial_ends_with_its_epoch_and_no_other_begins() -> None:
    clock = Clock()

    def trains(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)
        for epoch in range(1, 4):
            clock.now += 4
            yield Reported(trial, {"progress": epoch / 3 - 0.1})
            yield Reported(trial, {"epoch": epoch, "quality": 0.5, "row": trial.row()})
        yield Reported(trial, {"status": "done", "row": trial.row()})

    several = trials(4)
    record, engine = ran(trains, several, deadline=Deadline(15, clock))
    first, second = (trial.trial_id for trial in several[:2])
    assert record.started_ids == [first, second] and set(record.ends) == {first}
    assert record.left_ids == [second] and engine.stopped == {second}
    assert [report.get("epoch") for report in record.reports[-2:]] == [None, 1]


def test_an_epoch_that_takes_too_long_is_not_waited_for() -> None:
    clock = Clock()

    def crawls(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)
        for _ in range(1_000):
            clock.now += 10
            yield Tick()

    several = trials(2)
    record, _ = ran(crawls, several, deadline=Deadline(5, clock))
    assert record.left_ids == [several[0].trial_id] and not record.ends
    assert clock.now == 5 + GRACE_S + 5


def test_a_trial_that_begins_late_ends_with_its_first_report() -> None:
    clock = Clock()

    def joins(trial: Trial, start: int) -> Iterator[Event]:
        clock.now = 10  # it had waited for a worker
        yield Started(trial)
        yield Reported(trial, {"progress": 0.1})
        yield Reported(trial, {"status": "done", "row": trial.row()})

    (one,) = trials(1)
    record, _ = ran(joins, [one], deadline=Deadline(5, clock))
    assert record.left_ids == [one.trial_id] and not record.ends


def test_what_ends_in_time_is_done_and_a_worker_that_dies_late_is_not_replaced() -> None:
    clock = Clock()

    def ends(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)
        clock.now = 10
        if trial.config["seed"]:
            yield Failed(trial, "killed")
        else:
            yield Reported(trial, {"status": "done", "row": trial.row()})

    (one, other) = trials(2)
    record, _ = ran(ends, [one], deadline=Deadline(5, clock))
    assert record.ends[one.trial_id][0] == "done" and not record.left_ids
    clock.now = 0
    record, engine = ran(ends, [other], deadline=Deadline(5, clock))
    assert record.retried == ["killed"] and engine.starts == {other.trial_id: 1} and not record.ends


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf"), "2", True])
def test_hours_that_are_none_are_a_sentence(hours: Any) -> None:
    with pytest.raises(UserError, match=r"hours=.* is out of range; use a number of hours above 0"):
        after(hours)
    assert not after(None).is_over and after(2).seconds == 7_200


def test_what_has_ended_is_kept_and_what_has_not_tells_how_long_it_takes() -> None:
    clock = Clock()

    def crawls(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)
        for done in range(1, 4):
            clock.now += 100
            yield Reported(trial, {"progress": (trial.config["seed"] + done / 8) / trial.config["epochs"]})
        yield Tick()

    deadline = Deadline(5, clock)
    ran(crawls, trials(1, epochs=3), deadline=deadline)
    assert (deadline.kept, deadline.epoch_s) == (0, pytest.approx(800))

    def learns(trial: Trial, start: int) -> Iterator[Event]:
        yield Started(trial)
        clock.now += 100
        yield Reported(trial, {"epoch": 1, "quality": 0.5, "row": trial.row()})

    deadline = Deadline(5, clock)
    ran(learns, trials(1, epochs=3), deadline=deadline)
    assert deadline.kept == 1


@pytest.mark.parametrize(
    ("seconds", "hours"), [(3600, "1"), (3601, "1.1"), (36, "0.01"), (37, "0.011"), (3.6e6, "1000")]
)
def test_seconds_are_hours_of_two_digits(seconds: float, hours: str) -> None:
    assert hours_of(seconds) == hours
    assert float(hours) * 3600 >= seconds
