import signal
import threading
import time

import pytest

from attnsweep.engine.turns import Closed, Turns


def counting(turns: list["Turns[int]"], log: list[str], most: int = 3) -> "Turns[int]":
    """Turns of a function that hands over 0, 1, 2 ... and notes what it does."""

    def count() -> None:
        try:
            for number in range(most):
                log.append(f"before {number}")
                turns[0].hand_over(number)
                log.append(f"after {number}")
        finally:
            log.append("over")

    turns.append(Turns(count))
    return turns[0]


def test_only_one_of_the_two_is_at_work_at_any_time() -> None:
    log: list[str] = []
    for number in counting([], log):
        log.append(f"dealing with {number}")
        time.sleep(0.02)  # the function could go on meanwhile
        log.append(f"done with {number}")
    expected = [
        line
        for number in range(3)
        for line in (f"before {number}", f"dealing with {number}", f"done with {number}", f"after {number}")
    ]
    assert log == [*expected, "over"]


def test_what_the_function_raises_is_raised_where_its_values_are_awaited() -> None:
    def fail() -> None:
        turns.hand_over(1)
        raise OSError("disk")

    turns = Turns[int](fail)
    values = iter(turns)
    assert next(values) == 1
    with pytest.raises(OSError, match="disk"):
        next(values)


def test_whoever_stops_iterating_ends_the_function_where_it_hands_over() -> None:
    log: list[str] = []
    values = iter(counting([], log))
    next(values)
    values.close()  # type: ignore[attr-defined]
    assert log == ["before 0", "over"]


def test_a_function_that_hands_nothing_over_ends_where_it_checks() -> None:
    ended = threading.Event()

    def look() -> None:
        turns.hand_over(1)
        try:
            while True:
                turns.check()
                time.sleep(0.01)
        finally:
            ended.set()

    turns = Turns[int](look)

    values = iter(turns)
    next(values)
    threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        next(values)
    assert ended.wait(5)


def test_a_library_does_not_take_the_end_for_an_error_of_its_own() -> None:
    assert not issubclass(Closed, Exception)
