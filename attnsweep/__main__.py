"""The command line: the first word chooses the command. Errors and signals become exit statuses here."""

import errno
import functools
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from attnsweep.cli.commands import COMMANDS, SWEEP
from attnsweep.core.errors import Interrupted, UserError
from attnsweep.core.terminal import leave_pipe, print_anything

FULL = (errno.ENOSPC, errno.EDQUOT)
UNREAD = "cut off: nobody reads its output; finished rows are intact, the same command goes on"


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit status.

    A user's mistake becomes a sentence on standard error and status 2.
    """
    print_anything()
    logging.basicConfig(format="attnsweep: %(message)s", level=logging.WARNING)
    hung_up: list[int] = []
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not where `nohup` has it ignored
        signal.signal(signal.SIGHUP, functools.partial(hang_up, hung_up))
    named = bool(arguments) and arguments[0] in COMMANDS
    command, rest = (COMMANDS[arguments[0]], arguments[1:]) if named else (SWEEP, arguments)
    try:
        try:
            refuse_deleted_folder()
            status = command.main(rest)
        finally:  # --help raises SystemExit
            sys.stdout.flush()
        return 128 + signal.SIGHUP if hung_up else status
    except BrokenPipeError:
        if not named and "--dry-run" not in rest:
            print(f"attnsweep: {UNREAD}", file=sys.stderr)
        return leave_pipe()
    except UserError as error:
        print(f"attnsweep: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(f"attnsweep: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in FULL:
            raise
        what = error.filename or "the output"
        print(f"attnsweep: {what} cannot be written ({error.strerror})", file=sys.stderr)
        leave_pipe()
        return 1
    except KeyboardInterrupt:
        print("attnsweep: cut off", file=sys.stderr)
        return 128 + (signal.SIGHUP if hung_up else signal.SIGINT)


def refuse_deleted_folder() -> None:
    """Raises UserError where somebody has deleted the working directory."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the folder that you are in has been deleted; go to another one: cd") from None


def stop(number: int, frame: Any) -> None:
    """SIGTERM ends a sweep like Ctrl-C."""
    raise KeyboardInterrupt


def hang_up(received: list[int], number: int, frame: Any) -> None:
    """SIGHUP, as of a closed terminal, does so too, and is remembered for the exit status."""
    received.append(number)
    raise KeyboardInterrupt


def script() -> int:
    """The console script `attnsweep`. Processes that it starts import nothing from the working directory
    either.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(script())
