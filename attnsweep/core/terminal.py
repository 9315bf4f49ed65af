"""Standard output as a rich console, and the exit status of scripts."""

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from attnsweep.core.clean import lines
from attnsweep.core.errors import UserError

OUTPUT, ERRORS = 1, 2  # their descriptors
LEAST_WIDTH = 60  # columns


class Screen(Console):
    """A console that sanitises text, and raises BrokenPipeError where rich would end the process with 1."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(lines(text), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads the output any more")


def screen() -> Screen:
    """Standard output: bars and colours on a terminal, plain lines elsewhere."""
    shown = Screen(soft_wrap=True, force_jupyter=False, force_terminal=is_terminal(), emoji=False)
    if shown.width < LEAST_WIDTH:  # as with COLUMNS=0, where nothing would show
        shown.width = LEAST_WIDTH
    return shown


def is_terminal() -> bool:
    """Whether standard output is a terminal. The output of a notebook, which is no file, claims to be one and
    sets FORCE_COLOR, but would show cursor movements as text, and lose what a cell has printed.
    """
    return isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.isatty()


def print_anything() -> None:
    """Makes standard output and error escape characters that their encoding lacks (`\\xf6`), instead of
    failing; where they are closed, nobody reads what is printed.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def output_to_errors() -> Iterator[TextIO]:
    """A context in which what this process and those that it starts write to standard output goes to standard
    error; gives what writes to standard output all the same.
    """
    out, kept = sys.stdout, os.dup(OUTPUT)
    out.flush()
    os.dup2(ERRORS, OUTPUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if out is not sys.__stdout__ or not isinstance(out, io.TextIOWrapper):
                yield out  # of a notebook or a test: it has a way of its own
                return
            with open(kept, "w", encoding=out.encoding, errors=out.errors, closefd=False) as direct:
                yield direct
    finally:
        os.dup2(kept, OUTPUT)
        os.close(kept)


def leave_pipe() -> int:
    """Stops writing to a closed pipe, as after `| head`; returns the exit status for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def exit_status(script: Callable[[], None]) -> int:
    """Runs a script; returns its exit status: 0; 2 for a UserError, which is said; 141 for a closed pipe."""
    print_anything()
    try:
        try:
            script()
        finally:  # --help raises SystemExit
            sys.stdout.flush()
    except UserError as error:
        print(f"attnsweep: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return leave_pipe()
    return 0
