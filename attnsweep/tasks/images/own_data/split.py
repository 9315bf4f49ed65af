"""Which image trains, validates or tests, where its source does not say.

An image's part follows from the content of its file, class by class: whichever others are there, it stays
where it is, and copies of one image are in one part. A share of a class is a share of what SHA-256 may give,
so the parts are as large as asked for on average. Where none of a class would be in a part, the nearest image
is, with its copies; that alone may move when images are added.
"""

from collections.abc import Sequence

from attnsweep.tasks.images.own_data.listing import Entry

TEST_SHARE = 0.2  # of a class, without a part `test`
VALIDATION_SHARE = 0.1  # of what is left to train on, without a part `val`
LEAST = 3  # images of a class that is to be in all parts


def split(entries: Sequence[Entry], digests: Sequence[bytes]) -> tuple[list[str], set[int]]:
    """The part of each image: what its source says; else one drawn from the SHA-256 of its content. And which
    of them are in theirs as a copy of the nearest one is.
    """
    parts, nearby = [entry.part or "train" for entry in entries], set[int]()
    given = {entry.part for entry in entries}
    for part, at, share, least in (("test", 0, TEST_SHARE, 2), ("val", 8, VALIDATION_SHARE, 1)):
        if part in given:
            continue
        for indices in by_class(entries, parts):
            chosen, copies = drawn(indices, digests, at=at, share=share, most=len(indices) - least)
            nearby.update(copies)
            for i in [*chosen, *copies]:
                parts[i] = part
    return parts, nearby


def by_class(entries: Sequence[Entry], parts: Sequence[str]) -> list[list[int]]:
    """The indices of the images that train, class by class."""
    found: dict[str, list[int]] = {}
    for i, (entry, part) in enumerate(zip(entries, parts, strict=True)):
        if part == "train":
            found.setdefault(entry.label, []).append(i)
    return list(found.values())


def drawn(
    indices: Sequence[int], digests: Sequence[bytes], *, at: int, share: float, most: int
) -> tuple[list[int], list[int]]:
    """Those of a class whose digest, read from byte `at` on as a fraction of 1, is below `share`, `most` at
    most. Where there is none the nearest, and its copies.
    """
    fractions = {i: int.from_bytes(digests[i][at : at + 8], "big") / 2**64 for i in indices}
    below = sum(fraction < share for fraction in fractions.values())
    nearest = sorted(indices, key=lambda i: (fractions[i], i))[: max(most, 0)]
    copies = [] if below else [i for i in nearest[1:] if digests[i] == digests[nearest[0]]]
    return nearest[: max(below, 1)], copies
