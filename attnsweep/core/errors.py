"""What people are told as a sentence, never as a traceback."""

import contextlib
import difflib
import sys
from collections.abc import Callable, Iterable, Iterator


class UserError(ValueError):
    """A value, file or address that cannot be used; the message names it and says what to do."""


class Interrupted(RuntimeError):
    """A sweep that ended early for a reason outside it, such as a full disk; what is finished stays."""


class Unreachable(UserError, OSError):
    """A store that is not a disk and refuses, or has failed for long; the message says how."""


@contextlib.contextmanager
def writing(where: object) -> Iterator[None]:
    """Turns what the file system refuses into an Interrupted that says what to do."""
    try:
        yield
    except Unreachable as error:
        raise Interrupted(f"{error}; finished rows are intact, the same command goes on") from error
    except OSError as error:
        raise Interrupted(
            f"{where} cannot be written ({error.strerror or error}); finished rows are intact. "
            "Make room, then the same command goes on"
        ) from error


def exit_status(script: Callable[[], None]) -> int:
    """Runs a script: 0, or 2 where it raises UserError, whose sentence goes to standard error."""
    try:
        script()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A hint such as `, did you mean 'depth'?`, or nothing."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""
