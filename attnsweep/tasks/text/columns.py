"""The measures that only models of text have."""

from attnsweep.core.columns import FLOAT, Column

PARTS = (("val", "the validation part, which selects the epoch"), ("test", "the test part"))
COLUMNS = tuple(
    Column(
        f"{part}_bpb", FLOAT, "bit/byte", f"text: bits per byte of {where}, each window from its start",
        "lower", per_epoch=True, over_seeds="mean", objective=part == "val",
        shown=("closing", "pick", "curve"),
    )
    for part, where in PARTS
) + tuple(
    Column(
        f"{part}_saved", FLOAT, "fraction", f"text: 1 - {part}_bpb / 8, the share of the bits that is saved",
        "higher", per_epoch=True, over_seeds="mean", objective=part == "val",
    )
    for part, _ in PARTS
)  # fmt: skip
