"""Errors that people see as one sentence, never as a traceback."""

import contextlib
import difflib
import errno
from collections.abc import Collection, Iterable, Iterator

from attnsweep.core.clean import printable, without_secrets


class Sentence(Exception):
    """An error whose message is shown on one line, with what a terminal would obey escaped."""

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().split("\n")))


class UserError(Sentence, ValueError):
    """A value, file or address that cannot be used. The message names it and says what to do."""


class Interrupted(Sentence, RuntimeError):
    """A sweep that ended early for an outside reason, such as a full disk; finished rows stay."""


class Unreachable(UserError, OSError):
    """An object store that refuses access, or has failed for too long; the message says how."""


@contextlib.contextmanager
def writing(where: object) -> Iterator[None]:
    """Turns an OSError while writing into an Interrupted that says what to do."""
    try:
        yield
    except Unreachable as error:
        raise Interrupted(f"{error}; finished rows are intact, the same command goes on") from error
    except OSError as error:
        place = error.filename if "/" in str(error.filename) else where  # not a file within an open folder
        remedy = "Make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Mend that"
        raise Interrupted(
            f"{place} cannot be written ({error.strerror or error}); finished rows are "
            f"intact. {remedy}, then the same command goes on"
        ) from error


NEAR = 0.65  # of `difflib`: `hed` is near `heads`, `augment` is not near `agent_map`


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A hint such as `, did you mean 'depth'?`, or nothing."""
    words = [*dict.fromkeys(known)]
    if same := next((one for one in words if one.lower() == str(word).lower() and one != word), None):
        return f", did you mean {same!r}?"
    longer = [one for one in words if len(str(word)) > 2 and one.startswith(f"{word}_")]
    near = difflib.get_close_matches(str(word), words, n=1, cutoff=NEAR) or longer
    return f", did you mean {near[0]!r}?" if near else ""


def reason(error: BaseException) -> str:
    """The error as one line: a user's mistake as its sentence, anything else with its type."""
    text = without_secrets(" ".join(str(error).split()))
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def one_of(name: str, word: object, words: Collection[str]) -> str:
    """The word, which is a value of `name`. Raises UserError where it is not one of the words."""
    if word not in words:
        raise UserError(
            f"{name}={word!r} is unknown{did_you_mean(word, words)}; use one of {', '.join(words)}"
        )
    return str(word)  # numpy's, as domains draw them
