"""Text that is shown: rows, names of files and errors may hold whatever somebody else has put there.

A terminal obeys escape sequences (it can be cleared, its title set, its answers typed for the user), and
marks of direction let text read as another. So what a terminal would not print as a character is written as
an escape, as Python's `repr` does. Passwords and keys in a URI are left out.
"""

import logging
import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MOST = 4000  # characters of one line: nobody reads on
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # Unicode's categories of what is no visible character
KEPT = "\t\u200c\u200d"  # the latter two are what Persian and emoji are written with
HIDDEN = "***"
USER_IN_URI = re.compile(r"(\b[a-z][a-z0-9+.-]*://)(?:[^\s/@'\"]*:[^\s@'\"]*|[^\s/@'\"]+)@", re.IGNORECASE)
KEY_IN_URI = re.compile(
    r"([?&;][\w.-]*(?:key|secret|token|passw|credential|signature|\bsig)[\w.-]*=)[^\s&;'\"]+", re.IGNORECASE
)

MARKUP = re.compile(r"[\\|$^*`<\[\]~]|(?<![^\W_])_|_(?![^\W_])")  # not the _ inside of a word


def clean(text: object) -> str:
    """`text` as it can be shown on one line; where it is far too long, its beginning."""
    shown = str(text)
    if len(shown) > MOST:
        shown = f"{shown[:MOST]}... ({len(shown) - MOST:,} characters more)"
    return printable(shown)


def printable(text: str) -> str:
    """The text with escapes for what a terminal would obey, and without keys; the ends of lines are escaped,
    too.
    """
    shown = without_secrets(text)
    if shown.isprintable():
        return shown
    return "".join(char if char in KEPT else visible(char) for char in shown)


def lines(text: str) -> str:
    """The text as `printable` has it, with its lines."""
    return "\n".join(map(printable, text.split("\n")))


def visible(char: str) -> str:
    """A character, or the escape that stands for one that cannot be seen, such as `\\x1b`."""
    return char.encode("unicode_escape").decode() if unicodedata.category(char) in UNSEEN else char


def without_secrets(text: str) -> str:
    """The text without what a URI in it has before its host, and without keys and tokens after its `?`."""
    if "://" not in text:
        return text
    return KEY_IN_URI.sub(rf"\1{HIDDEN}", USER_IN_URI.sub(rf"\1{HIDDEN}@", text))


def in_markdown(text: str) -> str:
    """Text that Markdown shows as it is: a `|` would end its cell, and `$` begin a formula."""
    return MARKUP.sub(r"\\\g<0>", text)


def cleaned(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Rows with all their text as it can be shown."""
    texts = [name for name in frame.select_dtypes(["object", "string", "category"]) if has_text(frame[name])]
    return frame.assign(**{name: frame[name].astype(object).map(as_text) for name in texts})


def has_text(column: "pd.Series[Any]") -> bool:
    """Whether a column holds any text."""
    return any(isinstance(value, str) for value in column)


def as_text(value: object) -> object:
    """A value of a row as it can be shown."""
    return printable(value) if isinstance(value, str) else value


class CleanRecords(logging.Filter):
    """Cleans what is logged, whoever prints it: a warning is one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        record.msg = clean(message) if record.levelno >= logging.WARNING else lines(message)
        record.args = ()
        return True


logging.getLogger("attnsweep").addFilter(CleanRecords())
