"""The columns that only image classification has."""

from attnsweep.core.columns import INT, Column

COLUMNS = (
    Column(
        "images_skipped", INT, "image", "images of one's own left out because they cannot be read",
        of_data=True,
    ),
)  # fmt: skip
