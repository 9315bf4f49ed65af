"""The columns that only image classification has."""

from attnsweep.core.columns import FLOAT, INT, Column

SPLITS = {"val": "validation", "test": "test"}
MEASURES = {
    "balanced_acc": "mean over the classes of the share of their images that are recognised",
    "macro_f1": "mean over the classes of the harmonic mean of precision and recall",
    "top5_acc": "share of images whose class is among the five most likely; null with five classes or fewer",
}
COLUMNS = (
    *(
        Column(
            f"{split}_{name}", FLOAT, "fraction", f"on the {words} split, 0..1: {meaning}", "higher",
            per_epoch=True, over_seeds="mean",
        )
        for split, words in SPLITS.items()
        for name, meaning in MEASURES.items()
    ),
    Column(
        "images_skipped", INT, "image", "images of one's own left out because they cannot be read",
        of_data=True,
    ),
)  # fmt: skip
