"""Short names of trials and rows: the axes that tell them apart, and their values as text."""

from collections.abc import Callable, Iterable, Sequence

from attnsweep.core.clean import clean

FOLLOW = (  # from other axes, as a rule
    "model_sha256", "unreadable", "channels", "patch_size", "dim_head", "num_classes",
)  # fmt: skip


def model_name(model: object) -> str:
    """The short name of a model: the class of `FILE.py:CLASS`, the name of `LIBRARY:NAME`."""
    return str(model).rpartition(":")[2]


def shown(value: object) -> str:
    """A value of a configuration as text: 6 and not 6.0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.12g}" if is_number else clean(value)


def fewest(
    keys: Sequence[str], dispensable: Iterable[str], names: Callable[[Sequence[str]], int]
) -> list[str]:
    """The fewest keys that give as many distinct names as all `keys`. `names(keys)` counts distinct names;
    `dispensable` keys are tried in order, and dropped where no name is lost.
    """
    kept = list(keys)
    wanted = names(kept)
    for key in dispensable:
        fewer = [other for other in kept if other != key]
        if names(fewer) == wanted:
            kept = fewer
    return kept
