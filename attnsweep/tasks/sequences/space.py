"""Sequence to sequence: what the transformer of "Attention Is All You Need" takes, and what fits."""

from collections.abc import Mapping

from attnsweep.core.axes import Config, Value, filled
from attnsweep.core.errors import UserError
from attnsweep.nn import cost
from attnsweep.nn.design import check, check_width, check_window, variant_of, width_of_head
from attnsweep.tasks.sequences.axes import KNOWN
from attnsweep.tasks.sequences.problems import PROBLEMS, Problem, check_length

DEFAULT_DATASET = "reverse"
MODELS = {
    "transformer": (
        "depth", "encoder_depth", "decoder_depth", "heads", "kv_heads", "dim", "dim_head", "mlp_dim",
        "attention", "norm", "positions", "window", "sinks", "qk_norm", "mlp", "length",
    ),
}  # fmt: skip
RECIPE = (
    "beam", "dropout", "attention_dropout", "label_smoothing", "optimizer", "lr", "warmup_steps",
    "weight_decay", "batch_size", "epochs", "precision", "seed",
)  # fmt: skip
DEFAULTS: dict[str, Value] = {
    "depth": 2, "mlp_dim": 512, "attention": "fused", "lr": 1e-3, "epochs": 6,
    "dropout": 0.0,  # few examples come twice
    "label_smoothing": 0.1,
    "dim_head": None,  # dim // heads
}  # fmt: skip


UNCHANGED_FROM = 16  # below this length, the examples changed when those that judge were kept out of training


def revision(config: Config) -> int:
    """See `tasks.task`. How differential attention decodes changed too, and windows of long sequences."""
    longest, variant = positions_for(config["length"]), variant_of(config)
    in_blocks = any(cost.blockwise_pairs(longest, variant, causal=causal) for causal in (False, True))
    return int(config["length"] < UNCHANGED_FROM) + (config["attention"] == "differential" or in_blocks)


def complete(point: Mapping[str, object], model: str) -> Config:
    """The configuration of a transformer. Raises UserError where a value does not fit."""
    problem = find_problem(point)
    config = filled(KNOWN, (*MODELS[model], *RECIPE), point, DEFAULTS)
    config |= {"dataset": problem.name, "num_classes": problem.num_classes}
    check_length(problem, config["length"])
    check_width(config["dim"], config["norm"])
    if config["dim_head"] is None:
        config["dim_head"] = width_of_head(config["dim"], config["heads"])
    check(
        config["attention"], variant_of(config),
        heads=config["heads"], dim_head=config["dim_head"], dropout=config["attention_dropout"] or 0.0,
    )  # fmt: skip
    length = config["length"]
    check_window(variant_of(config), longest=length + 1, what=f"length={length}", causal=False)
    return config | {name: None for name, value in plain(config).items() if config[name] == value}


def plain(config: Config) -> Config:
    """What the axes that came later are where all is as the paper has it; they are null then."""
    return {
        "kv_heads": config["heads"], "encoder_depth": config["depth"], "decoder_depth": config["depth"],
        "sinks": 0, "qk_norm": "none", "mlp": "relu", "attention_dropout": 0.0,
    }  # fmt: skip


def find_problem(point: Mapping[str, object]) -> Problem:
    """The point's problem. Raises UserError where there is none of that name."""
    name = point.get("dataset")
    name = DEFAULT_DATASET if name is None else str(name)
    if name not in PROBLEMS:
        raise UserError(f"dataset={name!r} has no sequences; use one of {', '.join(PROBLEMS)}")
    return PROBLEMS[name]


def positions_for(length: int) -> int:
    """How many positions an encoder-decoder has whose longest source in training has `length` tokens: four
    times as many, and 8, so that its lengths can be exceeded.
    """
    return 4 * length + 8
