"""Numbers as people write them, and the screen that they are written to."""

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from attnsweep.core.clean import lines


class Screen(Console):
    """Standard output, which shows text as it is, whatever somebody else has put into it.

    It leaves it to its user to say that nobody reads it: rich would end the process with 1.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(lines(text), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads the output any more")


def screen() -> Screen:
    """Standard output: bars and colours on a terminal, plain lines elsewhere."""
    return Screen(soft_wrap=True, force_jupyter=False, force_terminal=is_terminal(), emoji=False)


def is_terminal() -> bool:
    """Whether standard output is a terminal. A notebook's output, which is no file, says that it is one and
    sets FORCE_COLOR; it would show what moves the cursor as text, and lose what a cell itself has printed.
    """
    return isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.isatty()


def print_anything() -> None:
    """Has standard output and error write what their encoding lacks as `\\xf6`, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave_pipe() -> int:
    """Writes no more to a pipe that nobody reads, as after `| head`; returns the exit status for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def amount(value: float | None) -> str:
    """A count as people write it: 1,800,000 as `1.8 M`; `?` for what could not be counted."""
    if value is None:
        return "?"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def span(values: Sequence[float | None]) -> str:
    """`0.6 M` or `0.6 M to 1.8 M`, of the values that are known."""
    known = [value for value in values if value is not None]
    low, high = (amount(end(known, default=None)) for end in (min, max))
    return low if low == high else f"{low} to {high}"


def duration(seconds: float) -> str:
    """Seconds as `8 s`, `4 min`, `2 h 05 min`, `3 days` or `1.5 years`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    days = minutes / (24 * 60)
    if days < 2:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{days:.0f} days" if days < 365 else f"{days / 365.25:.1f} years"


def counted(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
