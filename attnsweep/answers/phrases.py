"""Doubt in words: a quality with its interval, and what a reader has to know of intervals."""

from typing import Any

from attnsweep.answers.doubt import NOTHING, PER_EXAMPLE, SEEDS, Doubt, is_fraction
from attnsweep.core.text import counted


def written(row: Any, quality: str) -> str:
    """A quality with its interval and how many seeds it is of: `98.3 % (97.1 to 99.0, 3 seeds)`."""
    unit = " %" if is_fraction(quality) else ""
    known = seeds_in_words(int(row["seeds"]), int(row["seeds_begun"]))
    if row["doubt_of"] == NOTHING:
        return f"{value_of(row[quality], quality)}{unit} ({known})"
    like = row[quality]
    ends = f"{value_of(row['low'], quality, like=like)} to {value_of(row['high'], quality, like=like)}"
    return f"{value_of(row[quality], quality)}{unit} ({ends}, {known})"


def value_of(value: float, quality: str, *, like: float | None = None) -> str:
    """A fraction in percent, one decimal; two where it or `like` is 99 % or more. Else as a number."""
    decimals = 2 if (value if like is None else like) >= 0.99 else 1
    return f"{100 * value:.{decimals}f}" if is_fraction(quality) else f"{value:.4g}"


def seeds_in_words(seeds: int, begun: int | None = None) -> str:
    """`3 seeds`, `1 of 3 seeds done`, or `one seed`."""
    if begun is not None and begun > seeds:
        return f"{seeds} of {begun} seeds done"
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def remarks(sure: Doubt) -> list[str]:
    """What a reader has to know of intervals: of how many settings they say less than they seem to."""
    settings, sentences = sure.settings, []
    alone = settings[settings["seeds"].eq(1)]
    if len(alone):
        what = (
            "intervals and p_front are of the trials that ran, and do not know how another seed would do"
            if sure.of_trials else "their seeds' spread is that of the others"
        )  # fmt: skip
        sentences.append(f"one seed alone: {len(alone)} of {len(settings)} settings; {what}")
    lost = settings[settings["seeds_begun"] > settings["seeds"]]
    if len(lost):
        missing = int((lost["seeds_begun"] - lost["seeds"]).sum())
        sentences.append(
            f"{counted(missing, 'seed')} of {counted(len(lost), 'setting')} not done: means are of the others"
        )
    if sure.lost:
        sentences.append(f"{counted(sure.lost, 'setting')} left out: none of their seeds is done")
    blind = settings[settings["doubt_of"].isin([SEEDS, NOTHING])]
    if len(blind) and sure.quality == PER_EXAMPLE:
        sentences.append(
            f"{len(blind)} of {len(settings)} settings do not say which test examples were right: run them "
            "again for intervals that allow for the test set"
        )
    return sentences
