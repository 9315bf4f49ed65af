"""Text: what the decoder takes, and what fits."""

from collections.abc import Mapping

from attnsweep.core.axes import Config, Value, filled
from attnsweep.core.errors import UserError
from attnsweep.nn import cost
from attnsweep.nn.design import check, check_width, check_window, variant_of, width_of_head
from attnsweep.tasks.text import corpus
from attnsweep.tasks.text.axes import KNOWN

DEFAULT_DATASET = corpus.PYTHON
MODELS = {
    "decoder": (
        "depth", "heads", "kv_heads", "dim", "dim_head", "mlp_dim", "attention", "norm", "positions",
        "window", "sinks", "qk_norm", "mlp", "context", "encoding", "vocabulary",
    ),
}  # fmt: skip
RECIPE = (
    "dropout", "attention_dropout", "optimizer", "lr", "warmup_steps", "weight_decay", "batch_size", "epochs",
    "precision", "seed",
)  # fmt: skip
DEFAULTS: dict[str, Value] = {
    "depth": 4, "mlp_dim": 512, "dim_head": None, "attention": "fused", "norm": "pre", "positions": "rope",
    "mlp": "gelu", "optimizer": "adamw", "lr": 2e-3, "warmup_steps": 50, "weight_decay": 0.01,
    "batch_size": 32, "epochs": 6,
}  # fmt: skip
BYTES, PAIRS = 256, 1024  # tokens, by default


def complete(point: Mapping[str, object], model: str) -> Config:
    """The configuration of a decoder. Raises UserError where a value does not fit."""
    name = point.get("dataset")
    text = corpus.find(DEFAULT_DATASET if name is None else str(name))
    if text is None:
        raise UserError(f"dataset={name!r} is no text; use text:PATH, or text:python")
    config = filled(KNOWN, (*MODELS[model], *RECIPE), point, DEFAULTS) | {"dataset": text.name}
    config["vocabulary"] = vocabulary(config["encoding"], config["vocabulary"])
    config["num_classes"] = (config["vocabulary"] or BYTES) + 1  # with what begins a window
    config["kv_heads"] = config["kv_heads"] or config["heads"]
    config["dim_head"] = config["dim_head"] or width_of_head(config["dim"], config["heads"])
    config["sinks"] = config["sinks"] or None
    config["qk_norm"] = None if config["qk_norm"] == "none" else config["qk_norm"]
    check(
        config["attention"], variant_of(config),
        heads=config["heads"], dim_head=config["dim_head"], dropout=config["attention_dropout"] or 0.0,
    )  # fmt: skip
    check_width(config["dim"], config["norm"])
    corpus.check_context(text.name, context := config["context"])
    check_window(variant_of(config), longest=context, what=f"context={context}", causal=True)
    return config


def revision(config: Config) -> int:
    """See `tasks.task`. Differential attention's rotary positions changed, windows, long linear biases."""
    variant, context = variant_of(config), config["context"]
    turned = config["attention"] == "differential" and config["positions"] == "rope"
    in_blocks = cost.blockwise_pairs(context, variant, causal=True) is not None
    return int(turned or in_blocks or context >= cost.fold_from(config["attention"], variant))


def vocabulary(encoding: str, size: int | None) -> int | None:
    """The tokens of byte pairs. Raises UserError where bytes are given another number of them."""
    if encoding == "bpe":
        return size or PAIRS
    if size is not None:
        raise UserError(f"vocabulary={size} is for encoding='bpe'; of bytes there are {BYTES}, leave it out")
    return None


def text_of(config: Mapping[str, object]) -> corpus.Text:
    """The text of a configuration, encoded as it says."""
    return corpus.Text(str(config["dataset"]), int(str(config["context"])), str(config["encoding"]))
