"""The search space in Ray Tune's words: grids, domains, and how both become points.

They are recognised by their shape (`tune.grid_search` gives a plain dict, domains have `sample`), so that
reading and checking a sweep needs neither Ray nor torch.
"""

import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Point = dict[str, Any]  # a key of a sweep to its value


def fixed(part: Mapping[str, Any]) -> Point:
    """The part with each grid as a list: `tune.grid_search` takes an iterator too, which can be read once."""
    return {key: {"grid_search": grid(value)} if is_grid(value) else value for key, value in part.items()}


def is_grid(value: object) -> bool:
    """Whether `value` was made by `tune.grid_search`."""
    return isinstance(value, Mapping) and set(value) == {"grid_search"}


def is_domain(value: object) -> bool:
    """Whether `value` is one of Ray Tune's domains (`tune.choice`, `tune.loguniform`, ...)."""
    return hasattr(value, "sample")


def grid(value: Any) -> list[Any]:
    """The values to go through: those of a grid, else the one."""
    return list(value["grid_search"]) if is_grid(value) else [value]


def cells(part: Point) -> int:
    """The number of cells in the grid of one part."""
    return functools.reduce(lambda product, value: product * len(grid(value)), part.values(), 1)


def crossed(part: Point) -> Iterator[Point]:
    """Every cell of one part's grid."""
    for values in itertools.product(*(grid(value) for value in part.values())):
        yield dict(zip(part, values, strict=True))


def draw(cell: Point, sample: int) -> Point:
    """The cell with its domains drawn; functions of the others (`tune.sample_from`) come last."""
    domains = sorted(
        (key for key in cell if is_domain(cell[key])), key=lambda key: hasattr(cell[key], "func")
    )
    drawn = {key: value for key, value in cell.items() if key not in domains}
    for key in domains:
        seed = int.from_bytes(hashlib.sha256(f"{key}:{sample}".encode()).digest()[:4])
        drawn[key] = cell[key].sample(config=dict(drawn), random_state=seeded(seed))
    return drawn


@functools.cache
def generator() -> "np.random.RandomState":
    """One for all draws: making one takes 80 us, seeding it 1 us."""
    import numpy as np

    return np.random.RandomState()


def seeded(seed: int) -> "np.random.RandomState":
    """The generator at the beginning of the stream of a seed."""
    generator().seed(seed)
    return generator()


def narrow(parts: Sequence[Point], key: str, values: Sequence[Any]) -> list[Point]:
    """The parts with `key` narrowed to `values`, or set to them; see `Sweep.override`."""
    own = [value for part in parts if key in part and not is_domain(part[key]) for value in grid(part[key])]
    if not all(value in own for value in values):
        return [{**part, key: {"grid_search": list(values)}} for part in parts]
    kept = []
    for part in parts:
        if key in part and is_domain(part[key]):
            kept.append({**part, key: {"grid_search": list(values)}})
        elif key in part:
            left = [value for value in grid(part[key]) if value in values]
            kept += [{**part, key: {"grid_search": left}}] if left else []
        else:
            kept.append(part)
    return kept
