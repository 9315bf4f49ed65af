"""Forks that measure in turns: the order of their passes, and how each of them may end."""

import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attnsweep.core.containment import ensured
from attnsweep.core.deployment import Ask, Deployment, Subject, Weights
from attnsweep.core.errors import UserError
from attnsweep.engine import measuring_process
from attnsweep.engine.measuring_process import Ended, Fork, in_turns
from attnsweep.measuring import measure
from attnsweep.results.schema import ARCHITECTURE
from attnsweep.results.store import Row

LIMIT_S = 60.0


def ask(name: str, passes: int = 2) -> Ask:
    """An ask for an architecture that is known after so many passes."""
    config = dict.fromkeys(column.name for column in ARCHITECTURE)
    return Ask(Deployment(batch=passes), Subject(name, config))


@pytest.fixture
def diary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The first letters of the architectures whose passes began, one after another."""
    path = tmp_path / "diary"
    path.touch()

    def passes(one: Ask) -> Iterator[tuple[Row, bool]]:
        assert one.subject
        name = one.subject.arch_id
        for number in range(1, 6):
            with path.open("a") as file:
                file.write(name[0])
            if name == "dies":
                os._exit(3)
            if name == "forks" and os.fork() == 0:
                time.sleep(60)
            if name == "sleeps":
                time.sleep(60)
            row = {"arch_id": name, "passes": number, "peak_mem_mb": 1e4 if name == "large" else 1.0}
            yield row | {"error": None}, number == one.deployment.batch

    monkeypatch.setattr(measuring_process, "passes", passes)
    return path.read_text


def test_each_has_its_pass_before_any_has_the_next(diary: Callable[[], str]) -> None:
    asks = [ask("a"), ask("b", 4), ask("c")]
    found = list(in_turns(asks, LIMIT_S, 0))
    assert diary() == "abcabcbb"
    assert [(i, row["arch_id"], row["passes"]) for i, row in found] == [(0, "a", 2), (2, "c", 2), (1, "b", 4)]


def test_passes_lie_apart_in_time(diary: Callable[[], str]) -> None:
    began = time.monotonic()
    assert len(list(in_turns([ask("a", 3), ask("b")], LIMIT_S, 0.2))) == 2
    assert 0.4 <= time.monotonic() - began < LIMIT_S


def test_a_large_one_does_not_wait_in_memory(diary: Callable[[], str]) -> None:
    found = list(in_turns([ask("a"), ask("large", 3), ask("c")], LIMIT_S, 0))
    assert diary() == "alllcac" and [i for i, _ in found] == [1, 0, 2]


@pytest.mark.parametrize(
    ("name", "error", "limit_s"),
    [("dies", "its process ended with status 3", LIMIT_S), ("sleeps", "it took longer than 5 s", 5.0)],
)
def test_one_that_ends_otherwise_takes_no_other_with_it(
    diary: Callable[[], str], name: str, error: str, limit_s: float
) -> None:
    found = dict(in_turns([ask("a"), ask(name), ask("c")], limit_s, 0))
    assert {i: row["error"] for i, row in found.items()} == {0: None, 1: error, 2: None}
    assert found[1]["latency_ms_p50"] is None and found[1]["arch_id"] == name


def test_a_fork_that_was_killed_is_tried_once_more(
    diary: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever needed memory then: it may succeed the next time, and is not known to fail."""
    with Fork(ask("a")) as fork:
        assert fork.turn(LIMIT_S) is None
        for child, is_measured in ((fork.child, True), (0, False)):
            os.kill(child or fork.child, signal.SIGKILL)
            row = fork.turn(LIMIT_S)
            assert (row is None) is is_measured
        assert (
            row and row["error"] == "its process ended with SIGKILL (the system may have run out of memory)"
        )
    assert diary() == "aa"


def test_a_reference_that_cannot_be_measured_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring_process, "passes", lambda one: os._exit(1))
    with pytest.raises(Ended, match="its process ended with status 1"):
        list(in_turns([Ask(Deployment())], LIMIT_S, 0))


def test_a_fork_ends_with_its_parent_though_later_forks_live_on(diary: Callable[[], str]) -> None:
    """A later fork does not hold the parent's end of an earlier one's pipe."""
    with Fork(ask("first")) as first:
        with Fork(ask("second")) as second:
            assert first.turn(LIMIT_S) is None and second.turn(LIMIT_S) is None
            child, first.child = first.child, 0  # as if this process had ended
            first.connection.close()
            until = time.monotonic() + LIMIT_S
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                assert time.monotonic() < until, "it waits for a parent that is gone"
                time.sleep(0.01)


class Alive:
    """Who holds the write end of a pipe: this process, and what it forks from now on."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def only_here(self) -> bool:
        """Whether all others end within some seconds."""
        os.close(self.writing)
        return bool(select.select([self.reading], [], [], LIMIT_S)[0]) and os.read(self.reading, 1) == b""


def test_what_a_fork_has_started_ends_before_its_answer_is_given(diary: Callable[[], str]) -> None:
    """After it the process that measures may be ended."""
    alive = Alive()
    found = in_turns([ask("forks")], LIMIT_S, 0)
    assert next(found)[1]["arch_id"] == "forks" and alive.only_here()


def test_forks_end_where_nobody_waits_for_their_answers(
    diary: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of a pass."""
    alive = Alive()
    monkeypatch.setattr(measuring_process, "PARENT", -1)
    with pytest.raises(SystemExit):
        list(in_turns([ask("sleeps"), ask("b")], 60, 0))
    assert alive.only_here() and diary() in ("", "s")


def test_a_fork_that_hangs_ends_itself_where_its_parent_cannot(
    diary: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring_process, "GRACE_S", 0.1)
    with Fork(ask("sleeps")) as fork:
        fork.connection.send(0.1)
        child, fork.child = fork.child, 0
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGALRM


@pytest.mark.slow
def test_a_process_that_is_told_to_end_ends_its_forks(
    diary: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a terminal is for the one who waits for its answers."""
    monkeypatch.setattr(measuring_process, "PARENT", os.getpid())
    alive, (theirs, ours) = Alive(), os.pipe()
    if (process := os.fork()) == 0:
        os.close(ours)
        os.dup2(theirs, 0)
        try:
            measuring_process.main()
        finally:
            os._exit(0)
    os.write(ours, pickle.dumps(([ask("a"), ask("sleeps")], 0, 60.0, 0.0)))
    until = time.monotonic() + LIMIT_S
    while diary() != "as":
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(process, signal.SIGINT)
    assert os.waitpid(process, os.WNOHANG) == (0, 0)
    os.kill(process, signal.SIGTERM)
    os.waitpid(process, 0)
    assert alive.only_here()


def test_a_model_that_ends_the_program_has_a_row_that_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def passes(*_: object, **__: object) -> Iterator[tuple[Row, bool]]:
        yield {"error": None}, False
        sys.exit("no licence")

    monkeypatch.setattr(measure, "architecture_passes", passes)
    (row, is_last) = list(measuring_process.passes(ask("quits")))[-1]
    assert row["error"] == "SystemExit: no licence" and is_last


def to_judge(name: str) -> Ask:
    return replace(ask(name), weights=Weights((), "", ""))


@pytest.mark.parametrize("gpus", [0, 1])
def test_int8_is_judged_when_the_state_that_a_model_has_changed_is_put_back(
    monkeypatch: pytest.MonkeyPatch, gpus: int
) -> None:
    def passes(*_: object, **__: object) -> Iterator[tuple[Row, bool]]:
        with ensured():
            os.environ["OF_THE_MODEL"] = "1"
            yield {"error": None}, False
            yield {"error": None, "ms": 2}, True

    monkeypatch.setattr(measure, "architecture_passes", passes)
    monkeypatch.setattr(
        measuring_process, "judged", lambda *_: {"val_acc": 0.5, "seen": "OF_THE_MODEL" in os.environ}
    )
    judged = {"error": None, "ms": 2, "val_acc": 0.5, "seen": False}
    assert measuring_process.whole(to_judge("a"), gpus) == judged
    assert list(in_turns([to_judge("a")], LIMIT_S, 0)) == [(0, judged)]


def unreadable(*_: object) -> Row:
    raise UserError("weights.pt cannot be read; delete it")


@pytest.mark.parametrize(
    ("judging", "error"),
    [
        (lambda *_: time.sleep(1.5) or {"val_acc": 0.5}, None),  # longer than a pass may take
        (unreadable, "weights.pt cannot be read; delete it"),
        (lambda *_: time.sleep(60), "it took longer than 3 s"),
        (lambda *_: os._exit(3), "its process ended with status 3"),
    ],
)
def test_judging_takes_its_own_time_and_its_failure_no_latency_away(
    monkeypatch: pytest.MonkeyPatch, judging: Callable[..., Row], error: str | None
) -> None:
    row = {"latency_ms_p50": 2.0, "error": None}
    monkeypatch.setattr(measure, "architecture_passes", lambda *_, **__: iter([(row, False), (row, True)]))
    monkeypatch.setattr(measuring_process, "judged", judging)
    monkeypatch.setattr(measuring_process, "JUDGE_S", 3.0)
    ((_, found),) = in_turns([to_judge("a")], 1.0, 0)
    because = {"error": f"its accuracy was not judged anew: {error}"} if error else {"val_acc": 0.5}
    assert found == row | because
