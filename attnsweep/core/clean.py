"""Sanitises text for display: rows, file names and errors may contain anything that somebody else has put
there.

A terminal obeys escape sequences (which clear it, set its title, or type answers for the user), and direction
marks make text read differently. So unprintable characters are escaped, as by Python's `repr`. Passwords and
keys in URIs are left out.
"""

import logging
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MOST = 4000  # characters in a line
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # Unicode's categories of invisible characters
KEPT = "\t\u200c\u200d"  # Persian and emoji need the latter two
HIDDEN = "***"
USER_IN_URI = re.compile(r"(\b[a-z][a-z0-9+.-]*://)(?:[^\s/@'\"]*:[^\s@'\"]*|[^\s/@'\"]+)@", re.IGNORECASE)
KEY_IN_URI = re.compile(
    r"([?&;][\w.-]*(?:key|secret|token|passw|credential|signature|\bsig)[\w.-]*=)[^\s&;'\"]+", re.IGNORECASE
)

MARKUP = re.compile(r"[\\|$^*`<\[\]~]|(?<![^\W_])_|_(?![^\W_])")  # not the _ inside of a word


def clean(text: object) -> str:
    """`text` sanitised for one line; only the beginning of very long text."""
    shown = str(text)
    if len(shown) > MOST:
        shown = f"{shown[:MOST]}... ({len(shown) - MOST:,} characters more)"
    return printable(shown)


def printable(text: str) -> str:
    """The text with unprintable characters escaped, line breaks included, and without secrets."""
    shown = without_secrets(text)
    if shown.isprintable():
        return shown
    return "".join(char if char in KEPT else visible(char) for char in shown)


def lines(text: str) -> str:
    """The text made `printable` line by line."""
    return "\n".join(map(printable, text.split("\n")))


def visible(char: str) -> str:
    """A character, or its escape, such as `\\x1b`, if it is invisible."""
    return char.encode("unicode_escape").decode() if unicodedata.category(char) in UNSEEN else char


def without_secrets(text: str) -> str:
    """The text without the user part of URIs, and without keys and tokens in their queries."""
    if "://" not in text:
        return text
    return KEY_IN_URI.sub(rf"\1{HIDDEN}", USER_IN_URI.sub(rf"\1{HIDDEN}@", text))


def in_markdown(text: str) -> str:
    """Text escaped for Markdown, where a `|` would end a cell, and `$` begin a formula."""
    return MARKUP.sub(r"\\\g<0>", text)


def cleaned(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Rows with all text sanitised."""

    def sanitised(value: object) -> object:
        return printable(value) if isinstance(value, str) else value

    columns = {name: frame[name] for name in frame.select_dtypes(["object", "string", "category"])}
    texts = {name: one for name, one in columns.items() if any(isinstance(value, str) for value in one)}
    return frame.assign(**{name: one.astype(object).map(sanitised) for name, one in texts.items()})


class CleanRecords(logging.Filter):
    """Sanitises log messages; a warning is one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        record.msg = clean(message) if record.levelno >= logging.WARNING else lines(message)
        record.args = ()
        return True


logging.getLogger("attnsweep").addFilter(CleanRecords())
