"""Which image trains, validates or tests, where its source does not say.

An image's part follows from the content of its file, class by class: whichever others are there, it stays
where it is, and copies of one image are in one part. A share of a class is a share of what SHA-256 may give,
so the parts are as large as asked for on average. Where none of a class would be in a part, the nearest image
is; that alone may move when images are added.
"""

from collections.abc import Sequence

from attnsweep.tasks.images.own_data.listing import Entry

TEST_SHARE = 0.2  # of a class, without a part `test`
VALIDATION_SHARE = 0.1  # of what is left to train on, without a part `val`
LEAST = 3  # images of a class that is to be in all parts


def split(entries: Sequence[Entry], digests: Sequence[bytes]) -> list[str]:
    """The part of each image: what its source says; else one drawn from the SHA-256 of its content."""
    parts = [entry.part or "train" for entry in entries]
    given = {entry.part for entry in entries}
    if "test" not in given:
        for indices in by_class(entries, parts):
            for i in drawn(indices, digests, at=0, share=TEST_SHARE, most=len(indices) - 2):
                parts[i] = "test"
    if "val" not in given:
        for indices in by_class(entries, parts):
            for i in drawn(indices, digests, at=8, share=VALIDATION_SHARE, most=len(indices) - 1):
                parts[i] = "val"
    return parts


def by_class(entries: Sequence[Entry], parts: Sequence[str]) -> list[list[int]]:
    """The indices of the images that train, class by class."""
    found: dict[str, list[int]] = {}
    for i, (entry, part) in enumerate(zip(entries, parts, strict=True)):
        if part == "train":
            found.setdefault(entry.label, []).append(i)
    return list(found.values())


def drawn(indices: Sequence[int], digests: Sequence[bytes], *, at: int, share: float, most: int) -> list[int]:
    """Those of a class whose digest, read from byte `at` on as a fraction of 1, is below `share`: one at
    least, and `most` at most.
    """
    fractions = {i: int.from_bytes(digests[i][at : at + 8], "big") / 2**64 for i in indices}
    below = sum(fraction < share for fraction in fractions.values())
    return sorted(indices, key=lambda i: (fractions[i], i))[: min(max(below, 1), max(most, 0))]
