"""Text that is shown: rows, names of files and errors may hold whatever somebody else has put there.

A terminal obeys escape sequences (it can be cleared, its title set, its answers typed for the user), and
marks of direction let text read as another. So what a terminal would not print as a character is written as
an escape, as Python's `repr` does. Passwords and keys in a URI are left out.
"""

import logging
import re
import unicodedata
from typing import TYPE_CHECKING

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


def clean(text: object, *, lines: bool = False) -> str:
    """`text` as it can be shown on one line, or on several with `lines`."""
    shown = without_secrets(str(text))
    if lines:
        return "\n".join(map(one_line, shown.split("\n")))
    return one_line(shown)


def one_line(text: str) -> str:
    """One line of text, without its end where that is far away."""
    if len(text) > MOST:
        text = f"{text[:MOST]}... ({len(text) - MOST:,} characters more)"
    if text.isprintable():
        return text
    return "".join(char if char in KEPT else visible(char) for char in text)


def visible(char: str) -> str:
    """A character, or the escape that stands for one that cannot be seen, such as `\\x1b`."""
    return char.encode("unicode_escape").decode() if unicodedata.category(char) in UNSEEN else char


def without_secrets(text: str) -> str:
    """The text without what a URI in it has before its host, and without keys and tokens after its `?`."""
    if "://" not in text:
        return text
    return KEY_IN_URI.sub(rf"\1{HIDDEN}", USER_IN_URI.sub(rf"\1{HIDDEN}@", text))


def cleaned(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Rows with all their text as it can be shown."""
    texts = frame.select_dtypes(["object", "string", "category"])
    return frame.assign(**{name: texts[name].map(clean, na_action="ignore") for name in texts})


class CleanRecords(logging.Filter):
    """Cleans what is logged, whoever prints it: a warning is one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = clean(record.getMessage(), lines=record.levelno < logging.WARNING)
        record.args = ()
        return True


logging.getLogger("attnsweep").addFilter(CleanRecords())
