"""The measures that only sequence models have."""

from attnsweep.core.columns import FLOAT, Column

TOKENS = "share of the answers' tokens, each end included, that decoding gets right, on the"
COLUMNS = tuple(
    Column(name, FLOAT, "fraction", f"sequences: {meaning}", "higher", per_epoch=True, over_seeds="mean")
    for name, meaning in (
        ("val_token_acc", f"{TOKENS} validation split"),
        ("test_token_acc", f"{TOKENS} test split"),
        ("test_acc_long", "accuracy on test examples of twice the length"),
    )
)
