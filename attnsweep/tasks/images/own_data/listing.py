"""What a source of images says of them before any is read: their names, classes and parts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.core.text import counted

PARTS = {  # by the names that people give them, in any case
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
}  # fmt: skip
MOST_NAMED = 20  # rows or classes in one sentence
Reader = Callable[[], bytes]  # the bytes of one image's file; raises OSError


@dataclass(frozen=True)
class Entry:
    """One image: its name as sentences and the checksum have it (a path, or a row), its class, and its part
    where the source says one: `train`, `test` or `val`.
    """

    name: str
    label: str
    part: str | None = None


@dataclass(frozen=True)
class Listing:
    """The images of a source in its own order; `readers` of some of them, by their ascending indices.

    `classes` are in the order of their labels where the source has one, else none. `named` says how the
    source calls its parts. Left out are `loose` images, which belong to no class, and files whose names do
    not end as those of images: how many there are of each ending.
    """

    dataset: str  # KIND:PATH, the path in full
    entries: Sequence[Entry]
    readers: Callable[[Sequence[int]], Iterator[Reader]] = field(repr=False)
    classes: Sequence[str] = ()
    named: Mapping[str, str] = field(default_factory=dict)
    loose: Sequence[str] = ()
    others: Mapping[str, int] = field(default_factory=dict)


def refusal(dataset: str, sentence: str) -> UserError:
    """The error that says which data set it is about."""
    return UserError(f"dataset={dataset!r}: {sentence}")


def first_of(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Names with commas between them, the first ones of many."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check(listing: Listing) -> None:
    """Raises UserError for fewer than two classes, or where training or test lacks one of another part."""
    if not listing.entries:
        raise refusal(listing.dataset, "it has no image; add images")
    parts = {entry.part for entry in listing.entries}
    if empty := [name for part, name in listing.named.items() if part not in parts]:
        raise refusal(listing.dataset, f"no image in {first_of(empty)}; add images, or leave the part out")
    classes: dict[str | None, set[str]] = {}
    for entry in listing.entries:
        classes.setdefault(entry.part, set()).add(entry.label)
    known = classes[None] if None in classes else classes["train"]
    for part in ("test", "val"):
        if strangers := sorted(classes.get(part, set()) - known):
            hint = did_you_mean(strangers[0], known)
            raise refusal(
                listing.dataset,
                f"classes of the {part} part that the training part lacks: {first_of(strangers)}{hint}",
            )
    if missing := sorted(known - classes.get("test", known)):
        raise refusal(
            listing.dataset,
            f"classes of the training part that the test part lacks: {first_of(missing)}; add images",
        )
    if len(known) < 2:
        raise refusal(
            listing.dataset, f"{counted(len(known), 'class')} ({', '.join(known)}); it wants two or more"
        )


def parts_or_refusal(dataset: str, given: Mapping[str, str | None], what: str) -> dict[str, str | None]:
    """The names of parts as their owner writes them, each with the part that it means; `given` are those that
    there are, as written and as `PARTS` has them. Without a part `test`, `val` is it, as in ImageNet.

    Raises UserError where one means nothing, or where train or test is missing.
    """
    if unknown := [name for name, part in given.items() if part is None]:
        raise refusal(dataset, f"{what} {unknown[0]!r} is no part; write train, val or test")
    there = set(given.values())
    if "train" not in there or len(there) == 1:
        missing = "test" if "train" in there else "train"
        raise refusal(dataset, f"{what} {', '.join(given)} without a part {missing!r}; add it")
    if "test" not in there:
        return {name: "test" if part == "val" else part for name, part in given.items()}
    return dict(given)
