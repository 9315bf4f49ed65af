"""An axis is a hyperparameter with its type, range, default and meaning. Here are those that several tasks
share; those of one task are in `tasks/NAME/axes.py`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from attnsweep.core.errors import UserError, one_of

Value = str | int | float | None
Config = dict[str, Any]  # the name of every axis to its Value


@dataclass(frozen=True)
class Axis:
    """One hyperparameter. `default=None`: it is derived from others, or null."""

    name: str
    kind: type
    default: Value
    meaning: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False  # True where `low` itself is not allowed
    choices: tuple[str, ...] = ()
    architecture: bool = True  # whether latency, parameters and MACs depend on it
    settable: bool = True  # False where a trial derives it: it is a column, but no key of a sweep
    before: Value = None  # its value in all trials from before the axis existed: with it they keep their ids
    shorthand: bool = False  # True where it only sets other axes: no id depends on it
    names_file: bool = False  # True where it is a path: the id depends on the file's hash, another axis

    def check(self, value: object) -> Any:
        """`value` as this axis's type. Raises UserError where the type or the range is wrong."""
        return self._choice(value) if self.kind is str else self._number(value)

    def _choice(self, value: object) -> str:
        if not self.choices:
            if not isinstance(value, str) or not value:
                raise UserError(f"{self.name}={value!r} is no text; write it in quotes")
            return value
        return one_of(self.name, value, self.choices)

    def _number(self, value: object) -> int | float:
        number: Any = value
        if hasattr(value, "item") and math.prod(getattr(value, "shape", ())) == 1:
            number = value.item()  # numpy's, as domains draw them
        if isinstance(number, bool) or not isinstance(number, int | float) or number != number:
            raise UserError(f"{self.name}={value!r} is not {self.noun}; use {self.range}")
        if not self.low <= number <= self.high or (self.open_low and number == self.low):
            raise UserError(f"{self.name}={value!r} is out of range; use {self.range}")
        if self.kind is int and number != math.floor(number):
            raise UserError(f"{self.name}={value!r} is not {self.noun}; use {self.range}")
        return self.kind(number) + 0  # the negative zero is zero

    @property
    def noun(self) -> str:
        return "a whole number" if self.kind is int else "a number"

    @property
    def range(self) -> str:
        """The allowed values, such as `a whole number from 1 to 1000`."""
        above = "above" if self.open_low else "from"
        low = f"{above} {self.low:g}" if self.low > -math.inf else "of any size"
        high = f"{' up' if self.open_low else ''} to {self.high:g}" if self.high < math.inf else ""
        return f"{self.noun} {low}{high}"


ATTENTION = (
    "explicit: softmax of the product, step by step; fused: torch's scaled_dot_product_attention; "
    "of decoders also linear, differential, gated, sigmoid"
)
NORM = "post: layer norm after each residual sum; pre: before each sub-layer; rms: there, without a mean"
POSITIONS = (
    "sinusoidal, learned: added to the tokens; rope, alibi: between queries and keys; none: nothing says them"
)
IDENTITY = (
    Axis("task", str, None, "how the model is trained and judged"),
    Axis("model", str, None,
         "architecture: a name, LIBRARY:NAME, or FILE.py:CLASS of one's own, the file's path as it was "
         "found"),
    Axis("model_args", str, None,
         "arguments of a model of one's own or of a library that have no column, as JSON", settable=False),
    Axis("model_sha256", str, None, "SHA-256 of the files of one's own model", settable=False),
    Axis("dataset", str, None, "name of the data set, or KIND:PATH of one's own, the path in full",
         architecture=False),
)  # fmt: skip
SIZES = (
    Axis("num_classes", int, None, "outputs of the head: classes, or the vocabulary", "", 2, 1e6),
    Axis("depth", int, 6, "transformer blocks; null, like all below, where there are none", "", 1, 1000),
    Axis("heads", int, 4, "attention heads in each block", "", 1, 1024),
    Axis("dim", int, 128, "width of a token; of a cnn's hidden layer", "", 1, 65536),
    Axis("dim_head", int, 64, "width of one head's queries, keys and values", "", 1, 65536),
    Axis("mlp_dim", int, 256, "width of the feed-forward layer", "", 1, 1e6),
    Axis("attention", str, "explicit", ATTENTION, before="explicit",
         choices=("explicit", "fused", "linear", "differential", "gated", "sigmoid")),
    Axis("norm", str, "post", NORM, choices=("post", "pre", "rms")),
    Axis("positions", str, "sinusoidal", POSITIONS,
         choices=("sinusoidal", "learned", "rope", "alibi", "none")),
    Axis("kv_heads", int, None, "heads of keys and values, shared by those of queries; null: as many",
         "", 1, 1024),
    Axis("window", int, None, "tokens attend to what is less than so many away; null: to all",
         "token", 1, 1e6),
    Axis("sinks", int, None, "first tokens that a window leaves open; null: none", "token", 0, 1e6),
    Axis("qk_norm", str, None, "rms: queries and keys are normed; null: they are not",
         choices=("none", "rms")),
    Axis("mlp", str, None, "of the feed-forward layer; null: relu", choices=("relu", "gelu", "swiglu")),
)  # fmt: skip
RECIPE = (
    Axis("dropout", float, 0.1, "dropout rate inside the blocks", "", 0, 0.99, architecture=False),
    Axis("attention_dropout", float, None, "dropout rate on the weights of attention; null: none",
         "", 0, 0.99, architecture=False),
    Axis("optimizer", str, "adam", "sgd has momentum 0.9", choices=("adam", "adamw", "sgd"),
         architecture=False),
    Axis("lr", float, 1e-4, "highest learning rate: of the first epoch, or at the end of warm-up",
         "", 0, 1e6, open_low=True, architecture=False),
    Axis("warmup_steps", int, 300, "steps until the highest learning rate", "step", 1, 1e9,
         architecture=False),
    Axis("weight_decay", float, 0.0, "weight decay of the optimiser", "", 0, 1e6, architecture=False),
    Axis("label_smoothing", float, 0.0, "share of the target spread over all classes, or words", "", 0, 0.99,
         architecture=False),
    Axis("batch_size", int, 64, "examples in a training step", "", 1, 1e6, architecture=False),
    Axis("epochs", int, 15, "passes over the training part", "", 1, 1e6, architecture=False),
    Axis("precision", str, "fp32", "fp32, or bf16 by autocast", choices=("fp32", "bf16"), architecture=False),
    Axis("seed", int, 0, "fixes initialisation, order of the examples and dropout", "", 0, 2**31 - 1,
         architecture=False),
)  # fmt: skip


def by_name(*groups: Iterable[Axis]) -> dict[str, Axis]:
    """The axes of all groups by their names. Raises ValueError where two of them share a name."""
    axes = [axis for group in groups for axis in group]
    named = {axis.name: axis for axis in axes}
    if len(named) < len(axes):
        twice = sorted({axis.name for axis in axes if named[axis.name] is not axis})
        raise ValueError(f"declared twice: {', '.join(twice)}")
    return named


SHARED = by_name(IDENTITY, SIZES, RECIPE)
# for a task without variants
KERNEL = {"attention": replace(SHARED["attention"], choices=("explicit", "fused"))}


def built_in(value: Any) -> Any:
    """The text or number that a member of an enumeration of such is; any other value as it is."""
    return value.value if isinstance(value, str | int | float) and isinstance(value, Enum) else value


def filled(
    axes: Mapping[str, Axis],
    names: Iterable[str],
    point: Mapping[str, object],
    defaults: Mapping[str, Value] | None = None,
) -> Config:
    """The values of the named axes: those of the point, else the defaults.

    Raises UserError where a value is of the wrong type or out of range.
    """
    config: Config = {}
    for name in names:
        value, default = point.get(name), (defaults or {}).get(name, axes[name].default)
        config[name] = default if value is None else axes[name].check(value)
    return config
