"""What a person reads while a sweep waits."""

import io
import time

import pytest
from rich.console import Console

from attnsweep.engine import live
from attnsweep.engine.live import Waits


def lines_of(screen: Console) -> list[str]:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


def test_elsewhere_than_on_a_terminal_it_is_said_at_once_and_then_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    waits = Waits(screen := Console(file=io.StringIO()))
    said_at = []
    for second in range(200):
        now, before = float(second), len(lines_of(screen))
        waits.report("room")
        said_at += [second] * (len(lines_of(screen)) - before)
    assert said_at == [0, live.SAY_AGAIN_S, 2 * live.SAY_AGAIN_S, 4 * live.SAY_AGAIN_S]
    assert set(lines_of(screen)) == {"  waiting for room"}
    waits.report(None)
    waits.report("a worker [to start]")
    assert lines_of(screen)[-1] == "  waiting for a worker [to start]", "and no text is markup"


def test_on_a_terminal_it_has_a_place_that_is_cleared() -> None:
    shown: list[str] = []
    waits = Waits(screen := Console(file=io.StringIO(), force_terminal=True))
    with waits.shown(shown.append):
        for reason in ("room", "room", None, None):
            waits.report(reason)
    assert shown == ["waiting for room", "waiting for room", ""] and lines_of(screen) == []
    waits.report("room")
    assert len(lines_of(screen)) == 1, "a line, where there is no such place"


def test_what_comes_soon_is_not_waited_for() -> None:
    waits = Waits(screen := Console(file=io.StringIO()))
    with waits.after(30.0, "Ray to start"):
        pass
    assert lines_of(screen) == []
    with waits.after(0.0, "Ray to start"):
        time.sleep(0.2)
    assert lines_of(screen) == ["  waiting for Ray to start"]
