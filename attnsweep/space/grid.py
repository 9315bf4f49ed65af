"""The search space: Ray Tune's grids and domains, and how they become points.

They are recognised by duck typing (`tune.grid_search` gives a plain dict, domains have `sample`), so that
reading and checking a sweep needs neither Ray nor torch.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attnsweep.core.errors import UserError
from attnsweep.tasks.registry import BEFORE

MOST_TRIALS = 100_000
Point = dict[str, Any]  # a key of a sweep to its value


def with_listed_grids(part: Mapping[str, Any]) -> Point:
    """The part with its grids as lists: `tune.grid_search` also takes iterators, which are read but once.

    Raises UserError where a grid has more than MOST_TRIALS values, or is no collection.
    """
    return {
        key: {"grid_search": listed(key, value["grid_search"])} if is_grid(value) else value
        for key, value in part.items()
    }


def listed(key: str, values: Any) -> list[Any]:
    """The values of a grid; see `with_listed_grids`."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(
            f"{key}: tune.grid_search takes a list, not {values!r}; write tune.grid_search([...])"
        )
    found = list(itertools.islice(values, MOST_TRIALS + 1))
    if len(found) > MOST_TRIALS:
        raise UserError(f"{key}: the grid has more than {MOST_TRIALS:,} values, the most; narrow it")
    return found


def is_grid(value: object) -> bool:
    """Whether `value` was made by `tune.grid_search`."""
    return isinstance(value, Mapping) and set(value) == {"grid_search"}


def is_domain(value: object) -> bool:
    """Whether `value` is one of Ray Tune's domains (`tune.choice`, `tune.loguniform`, ...)."""
    return hasattr(value, "sample")


def grid(value: Any) -> list[Any]:
    """The values of a grid, or a constant as its only value."""
    return list(value["grid_search"]) if is_grid(value) else [value]


def count_cells(part: Point) -> int:
    """The number of cells in a part's grid."""
    return functools.reduce(lambda product, value: product * len(grid(value)), part.values(), 1)


def cells_of(part: Point) -> Iterator[Point]:
    """Yields every cell of a part's grid."""
    several = len(models_of(part)) > 1
    for values in itertools.product(*(grid(value) for value in part.values())):
        cell = dict(zip(part, values, strict=True))
        yield without_later(cell) if several else cell


def models_of(part: Point) -> set[str]:
    """The models of a part; not those that are drawn from a domain."""
    return {str(model) for model in grid(part.get("model"))}


def without_later(cell: Point) -> Point:
    """The cell without keys that are meant for other models of its grid (see `applies_to`)."""
    later = BEFORE.get(str(cell.get("model")), {})
    return {key: value for key, value in cell.items() if key not in later}


def with_shared(shared: Point, parts: Sequence[Point]) -> list[Point]:
    """The parts, each with the shared keywords that apply to it."""
    whole = [{**shared, **part} for part in parts]
    return [
        {key: value for key, value in one.items() if key in part or applies_to(key, one, whole)}
        for one, part in zip(whole, parts, strict=True)
    ]


def applies_to(key: str, part: Point, parts: Sequence[Point]) -> bool:
    """Whether a key that is shared by all parts applies to one of them.

    An axis that a later version gave a model (`registry.BEFORE`) applies only to the other models in a sweep,
    if there are any: so a sweep from before that version, with `dim` beside a CNN, keeps its meaning.
    """
    models = models_of(part)
    later = all(key in BEFORE.get(model, {}) for model in models)
    return not later or all(models_of(other) <= models for other in parts)


def is_function(value: object) -> bool:
    """Whether `value` was made by `tune.sample_from`."""
    return hasattr(value, "func")


def narrow(parts: Sequence[Point], key: str, values: Sequence[Any]) -> list[Point]:
    """The parts with a key narrowed or set to values; see `Sweep.override`."""
    own = [value for part in parts if key in part and not is_domain(part[key]) for value in grid(part[key])]
    if not all(among(value, own) for value in values):
        wide = {key: {"grid_search": list(values)}}
        return [{**part, **wide} if key in part or applies_to(key, part, parts) else part for part in parts]
    kept = []
    for part in parts:
        if key in part and is_domain(part[key]):
            kept.append({**part, key: {"grid_search": list(values)}})
        elif key in part:
            left = [value for value in grid(part[key]) if among(value, values)]
            kept += [{**part, key: {"grid_search": left}}] if left else []
        else:
            kept.append(part)
    return kept


def among(value: object, values: Iterable[object]) -> bool:
    """Whether a value is one of several; True does not equal 1."""
    return any(other == value and isinstance(other, bool) == isinstance(value, bool) for other in values)
