"""What a trial is made of: every hyperparameter of every task, with its type, range and default.

Which model takes which, and what fits together, is in the package `spaces`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.tasks.driving.stack import design

Value = str | int | float | None
Config = dict[str, Any]  # every column of a task's configuration to its Value


@dataclass(frozen=True)
class Axis:
    """One hyperparameter. `default=None` means that it is derived from the others."""

    name: str
    kind: type
    default: Value
    meaning: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False  # True where `low` itself is not allowed
    choices: tuple[str, ...] = ()

    def check(self, value: object) -> Any:
        """`value` as this axis's type. Raises UserError where the type or the range is wrong."""
        if self.kind is str:
            return self._choice(value)
        number = self._number(value)
        if self.open_low and number == self.low:
            raise UserError(f"{self.name}={value!r} is out of range; use {self.range}")
        return number

    def _choice(self, value: object) -> str:
        if value not in self.choices:
            hint = did_you_mean(value, self.choices)
            raise UserError(f"{self.name}={value!r} is unknown{hint}; use one of {', '.join(self.choices)}")
        return str(value)

    def _number(self, value: object) -> int | float:
        number: Any = value.item() if hasattr(value, "item") else value  # numpy's, as domains draw them
        if isinstance(number, bool) or not isinstance(number, int | float) or number != number:
            raise UserError(f"{self.name}={value!r} is not {self.article}; use {self.range}")
        if not self.low <= number <= self.high:
            raise UserError(f"{self.name}={value!r} is out of range; use {self.range}")
        if self.kind is int and number != math.floor(number):
            raise UserError(f"{self.name}={value!r} is not {self.article}; use {self.range}")
        return self.kind(number) + 0  # the negative zero is zero

    @property
    def article(self) -> str:
        return "a whole number" if self.kind is int else "a number"

    @property
    def range(self) -> str:
        """The values that are allowed, such as `a whole number from 1 to 1000`."""
        bound = (
            f"{'above' if self.open_low else 'from'} {self.low:g}" if self.low > -math.inf else "of any size"
        )
        upper = (
            f"{' up' if bound.startswith('above') else ''} to {self.high:g}" if self.high < math.inf else ""
        )
        return f"{self.article} {bound}{upper}"


def of_stack(name: str, meaning: str) -> Axis:
    """An axis of the planning stack, with the words and the default that `design` gives it."""
    return Axis(name, str, design.DEFAULTS.get(name), meaning, choices=design.CHOICES[name])


TASKS = ("images", "sequences", "driving")
STACK = {  # the planning stack's, whose words are in `design`
    "stages": "set of stages: a row of UniAD's table 2, or ours",
    "topology": "stages one after another, or side by side",
    "track": "no agents; their detection; with where each was before",
    "lines": "the map: not learned, as a grid, as lines, or both",
    "motion": "whether agents' futures are foretold",
    "occ": "occupancy: none, by agents' embeddings alone, or by OccFormer",
    "plan": "whether it plans",
    "agent_agent": "MotionFormer attends to agents",
    "agent_map": "MotionFormer attends to map lines",
    "agent_goal": "MotionFormer looks at where each future ends",
    "plan_agents": "Planner attends to agents",
    "plan_map": "Planner attends to map lines",
    "plan_motion": "Planner attends to agents' futures",
    "plan_bev": "Planner attends to the bird's-eye view",
    "query_init": "agent queries from peaks of a heat map, or learned",
    "plan_head": "progress along the route and offset; x and y; anchors",
    "nav": "what is told of the way: the route, a point of it, a command",
    "ego_state": "the ego's own motion as an input: none, at times, always",
    "grad_stop": "whom the planner's gradient does not reach",
    "bev_attention": "of the bird's-eye view's tokens",
    "sensor": "by what the stack sees: a scanner, or six cameras",
    "post": "what mends the plan afterwards",
}
SIDES = "image: the image's side is passed as its side; published: its area is"
KERNELS = "explicit: softmax of the product, step by step; fused: torch's scaled_dot_product_attention"
AXES = {
    axis.name: axis
    for axis in (
        Axis("task", str, None, "how the model is trained and judged", choices=TASKS),
        Axis("model", str, None, "architecture: a name, or FILE.py:CLASS of one's own"),
        Axis("model_args", str, None, "arguments of one's own model that have no column, as JSON"),
        Axis("model_sha256", str, None, "SHA-256 of the file of one's own model"),
        Axis("dataset", str, None, "name of the data set, or folder:PATH"),
        Axis("geometry", str, "image", SIDES, choices=("image", "published")),
        Axis("image_size", int, None, "side of the input image; settable for folder: data", "pixel", 1, 1024),
        Axis("channels", int, None, "channels of the input image"),
        Axis("length", int, 16, "longest sequence in training, and the one judged", "symbol", 1, 1024),
        Axis("num_classes", int, None, "outputs of the head: classes, or the vocabulary", "", 2, 1e6),
        Axis("depth", int, 6, "transformer blocks; null, like all below, where there are none", "", 1, 1000),
        Axis("heads", int, 4, "attention heads in each block", "", 1, 1024),
        Axis("dim", int, 128, "width of a token", "", 1, 65536),
        Axis("dim_head", int, 64, "width of one head's queries, keys and values", "", 1, 65536),
        Axis("mlp_dim", int, 256, "width of the feed-forward layer", "", 1, 1e6),
        Axis("patch_size", int, None, "side of a patch of the image or feature map", "pixel", 1, 1024),
        Axis("attention", str, "explicit", KERNELS, choices=("explicit", "fused")),
        Axis("norm", str, "post", "layer norm after each residual sum, or before", choices=("post", "pre")),
        Axis("positions", str, "sinusoidal", "of the tokens", choices=("sinusoidal", "learned")),
        *(of_stack(name, meaning) for name, meaning in STACK.items()),
        Axis("beam", int, 1, "beams of decoding when judged; 1 is greedy", "", 1, 64),
        Axis("dropout", float, 0.1, "dropout rate inside the blocks", "", 0, 0.99),
        Axis("emb_dropout", float, 0.1, "dropout rate on the embedded patches", "", 0, 0.99),
        Axis("label_smoothing", float, 0.1, "share of the target spread over all words", "", 0, 0.99),
        Axis("optimizer", str, "adam", "sgd has momentum 0.9", choices=("adam", "adamw", "sgd")),
        Axis("lr", float, 1e-4, "highest learning rate: of the first epoch, or at the end of warm-up",
             "", 0, 1e6, open_low=True),
        Axis("lr_gamma", float, 0.7, "factor on the learning rate after each epoch", "", 0, 1, open_low=True),
        Axis("warmup_steps", int, 300, "steps until the highest learning rate", "step", 1, 1e9),
        Axis("weight_decay", float, 0.0, "weight decay of the optimiser", "", 0, 1e6),
        Axis("batch_size", int, 64, "examples in a training step", "", 1, 1e6),
        Axis("epochs", int, 15, "passes over the training part", "", 1, 1e6),
        Axis("precision", str, "fp32", "fp32, or bf16 by autocast", choices=("fp32", "bf16")),
        Axis("seed", int, 0, "fixes initialisation, order of the examples and dropout", "", 0, 2**31 - 1),
    )
}  # fmt: skip

DERIVED = ("channels", "model_args", "model_sha256")  # columns, but not for a sweep to set
NOT_ARCHITECTURE = (  # what latency, params and macs do not depend on
    "dataset", "dropout", "emb_dropout", "label_smoothing", "optimizer", "lr", "lr_gamma", "warmup_steps",
    "weight_decay", "batch_size", "epochs", "precision", "seed", "grad_stop",
)  # fmt: skip


def model_name(model: object) -> str:
    """A model's name as people write it: of `FILE.py:CLASS` the class."""
    return str(model).rpartition(":")[2]


def fewest(
    keys: Sequence[str], dispensable: Iterable[str], names: Callable[[Sequence[str]], int]
) -> list[str]:
    """Those of `keys` without which two things would share a name; `names(keys)` counts the names that keys
    tell apart, `dispensable` are the keys that may go, in the order in which they are given up.
    """
    kept = list(keys)
    wanted = names(kept)
    for key in dispensable:
        fewer = [other for other in kept if other != key]
        if names(fewer) == wanted:
            kept = fewer
    return kept


def filled(
    names: Iterable[str], point: Mapping[str, object], defaults: Mapping[str, Value] | None = None
) -> Config:
    """Every column of the configuration: those of `names` as the point says, else by default; null elsewhere.

    Raises UserError where a value is of the wrong type or out of range.
    """
    config: Config = dict.fromkeys(AXES)
    for name in names:
        value, default = point.get(name), (defaults or {}).get(name, AXES[name].default)
        config[name] = default if value is None else AXES[name].check(value)
    return config
