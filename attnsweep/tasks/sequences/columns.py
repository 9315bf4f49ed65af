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
) + tuple(
    Column(name, FLOAT, "fraction", f"sequences: {meaning}", "higher", over_seeds="mean")
    for name, meaning in (
        ("test_acc_longer", "accuracy on test examples of four times the length, of the selected epoch"),
        ("test_token_acc_long", f"{TOKENS} examples of twice the length, of the selected epoch"),
        ("test_token_acc_longer", f"{TOKENS} examples of four times the length, of the selected epoch"),
    )
)
