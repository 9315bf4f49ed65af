"""Short names for trials and rows: which axes tell them apart, and how values are written."""

from collections.abc import Callable, Iterable, Sequence

from attnsweep.core.clean import clean


def model_name(model: object) -> str:
    """A model's name as people write it: of `FILE.py:CLASS` the class, of `LIBRARY:NAME` the name."""
    return str(model).rpartition(":")[2]


def shown(value: object) -> str:
    """A value of the configuration as it is typed: 6 and not 6.0."""
    return f"{value:.12g}" if isinstance(value, int | float) else clean(value)


def fewest(
    keys: Sequence[str], dispensable: Iterable[str], names: Callable[[Sequence[str]], int]
) -> list[str]:
    """Those of `keys` without which two things would share a name; `names(keys)` counts the names that keys
    tell apart, `dispensable` are the keys that may go, in the order in which they are given up.
    """
    kept = list(keys)
    wanted = names(kept)
    for key in dispensable:
        fewer = [other for other in kept if other != key]
        if names(fewer) == wanted:
            kept = fewer
    return kept
