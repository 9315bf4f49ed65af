"""Characters that a figure's font lacks, in names of others: drawn by another font that is installed, or else
left out with a sentence that says which.
"""

import contextlib
import logging
import unicodedata
import warnings
from collections.abc import Iterator
from functools import cache

from matplotlib.artist import Artist
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text

from attnsweep.core.text import counted

NO_GLYPH = "\ufffd"
LAST_RESORT = "Last Resort"  # it comes with matplotlib, and has a box for every character
MOST_NAMED = 10  # characters in the sentence
log = logging.getLogger("attnsweep")


def fit(figure: Artist) -> None:
    """Gives every text of a figure the fonts that it takes. What none has becomes U+FFFD, with a warning."""
    lacking = set[str]()
    for text in figure.findobj(Text):
        if isinstance(text, Text) and (none := add_fonts(text)):
            text.set_text(text.get_text().translate(dict.fromkeys(map(ord, none), NO_GLYPH)))
            lacking |= none
    if lacking:
        named = " ".join(sorted(lacking)[:MOST_NAMED]) + (" ..." if len(lacking) > MOST_NAMED else "")
        log.warning(
            "%s cannot be drawn (%s), as no installed font has them; install one, such as fonts-noto-cjk",
            counted(len(lacking), "character"), named,
        )  # fmt: skip


def add_fonts(text: Text) -> frozenset[str]:
    """Adds fonts to those of a text that have what its own lack; returns the characters that none has."""
    path = findfont(text.get_fontproperties())
    wanted = frozenset(char for char in text.get_text() if is_drawn(char)) - characters(path)
    if not wanted:
        return wanted
    (names, none), own = stand_ins(wanted), text.get_fontfamily()
    text.set_fontfamily([*own, *(name for name in names if name not in own)])
    return none


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Where texts are measured before `fit`: matplotlib warns of each character."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def is_drawn(char: str) -> bool:
    """Whether a character takes a glyph; those of format, such as a joiner of emoji, may do without."""
    return not char.isspace() and unicodedata.category(char) != "Cf"


@cache
def stand_ins(wanted: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The installed fonts that have as many of the characters as can be had, and those that none has."""
    names: list[str] = []
    fonts = [font for font in fontManager.ttflist if not font.name.startswith(LAST_RESORT)]
    for font in sorted(fonts, key=lambda one: ("Sans" not in one.name, one.name, one.fname)):
        if not wanted:
            break
        if found := wanted & characters(font.fname):
            names.append(font.name)
            wanted -= found
    return tuple(dict.fromkeys(names)), wanted


@cache
def characters(path: str) -> frozenset[str]:
    """What a font has glyphs for; nothing where matplotlib cannot use it, as fonts of coloured bitmaps."""
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
