"""What a trial is made of: every hyperparameter with its type, range and default, and which model takes
which.

Nothing here needs torch, so ten thousand points are checked in a second, before anything starts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnsweep import datasets
from attnsweep.errors import UserError, did_you_mean

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


SIDES = "image: the image's side is passed as its side; published: its area is"
AXES = {
    axis.name: axis
    for axis in (
        Axis("task", str, "images", "how the model is trained and judged", choices=("images",)),
        Axis("model", str, None, "architecture family: cnn, vit, deepvit, hybrid"),
        Axis("dataset", str, "digits", "digits, mnist, fashion_mnist, cifar10, cifar100 or folder:PATH"),
        Axis("geometry", str, "image", SIDES, choices=("image", "published")),
        Axis("image_size", int, None, "side of the input image; settable for folder: data", "pixel", 1, 1024),
        Axis("channels", int, None, "channels of the input image"),
        Axis("num_classes", int, None, "outputs of the head; at least the data set's classes", "", 2, 1e6),
        Axis("depth", int, 6, "transformer blocks; null, like all below, where there are none", "", 1, 1000),
        Axis("heads", int, 4, "attention heads in each block", "", 1, 1024),
        Axis("dim", int, 128, "width of a token", "", 1, 65536),
        Axis("dim_head", int, 64, "width of one head's queries, keys and values", "", 1, 65536),
        Axis("mlp_dim", int, 256, "width of the feed-forward layer", "", 1, 1e6),
        Axis("patch_size", int, None, "side of a patch of the image or feature map", "pixel", 1, 1024),
        Axis("dropout", float, 0.1, "dropout rate inside the blocks", "", 0, 0.99),
        Axis("emb_dropout", float, 0.1, "dropout rate on the embedded patches", "", 0, 0.99),
        Axis("optimizer", str, "adam", "sgd has momentum 0.9", choices=("adam", "adamw", "sgd")),
        Axis("lr", float, 1e-4, "learning rate of the first epoch", "", 0, 1e6, open_low=True),
        Axis("lr_gamma", float, 0.7, "factor on the learning rate after each epoch", "", 0, 1, open_low=True),
        Axis("weight_decay", float, 0.0, "weight decay of the optimiser", "", 0, 1e6),
        Axis("batch_size", int, 64, "examples in a training step", "", 1, 1e6),
        Axis("epochs", int, 15, "passes over the training part", "", 1, 1e6),
        Axis("precision", str, "fp32", "fp32, or bf16 by autocast", choices=("fp32", "bf16")),
        Axis("seed", int, 0, "fixes initialisation, order of the examples and dropout", "", 0, 2**31 - 1),
    )
}

BLOCKS = ("depth", "heads", "dim", "dim_head", "mlp_dim", "patch_size", "dropout", "emb_dropout", "geometry")
RECIPE = ("optimizer", "lr", "lr_gamma", "weight_decay", "batch_size", "epochs", "precision", "seed")
MODELS: dict[str, tuple[str, ...]] = {"cnn": (), "vit": BLOCKS, "deepvit": BLOCKS, "hybrid": BLOCKS}
DERIVED = ("channels",)  # a column, but not for a sweep to set
NOT_ARCHITECTURE = (
    "dataset",
    "dropout",
    "emb_dropout",
    *RECIPE,
)  # what latency, params and macs do not depend on


def resolve(point: Mapping[str, object]) -> Config:
    """The configuration of one point in full: every column of its task, null where its model has no such
    thing.

    Raises UserError where a value is unknown, of the wrong type, out of range, or does not fit the others.
    """
    model, dataset = known_model(point), datasets.find(point.get("dataset", "digits"))
    config: Config = dict.fromkeys(AXES)
    config.update(task="images", model=model, dataset=dataset.name, channels=dataset.channels)
    for name in (*MODELS[model], *RECIPE):
        value = point.get(name)
        config[name] = AXES[name].default if value is None else AXES[name].check(value)
    config["image_size"] = image_size(point.get("image_size"), dataset)
    config["num_classes"] = num_classes(point.get("num_classes"), dataset)
    if model != "cnn":
        config["patch_size"] = patch_size(config)
    elif feature_side(config) < 1:
        raise UserError(f"image_size={config['image_size']} is too small for cnn; use 6 or more")
    return config


def known_model(point: Mapping[str, object]) -> str:
    """The point's model. Raises UserError where task or model is missing or unknown."""
    AXES["task"].check(point.get("task", "images"))
    model = point.get("model")
    if model is None:
        raise UserError(f"no model; add model= one of {', '.join(MODELS)}")
    if not isinstance(model, str) or model not in MODELS:
        raise UserError(
            f"model={model!r} is unknown{did_you_mean(model, MODELS)}; use one of {', '.join(MODELS)}"
        )
    return str(model)


def image_size(value: object, dataset: datasets.ImageSet) -> int:
    """The side of the input image in pixels: the data set's own, or what was asked of a folder of images."""
    if value is None:
        return dataset.image_size
    if not dataset.is_folder and value != dataset.image_size:
        raise UserError(
            f"image_size={value!r} does not fit {dataset.name}, whose images are {dataset.image_size} wide"
        )
    size: int = AXES["image_size"].check(value)
    return size


def num_classes(value: object, dataset: datasets.ImageSet) -> int:
    """The outputs of the head: the data set's classes, or more where the point asks for it."""
    if value is None:
        return dataset.num_classes
    wanted: int = AXES["num_classes"].check(value)
    if wanted < dataset.num_classes:
        raise UserError(
            f"num_classes={wanted} is too few for {dataset.name}; use {dataset.num_classes} or more"
        )
    return wanted


def feature_side(config: Mapping[str, Any]) -> int:
    """The side of what is cut into patches: the image, or the feature map behind two 3x3 convolutions and a
    pooling.
    """
    side = int(config["image_size"])
    return side if config["model"] in ("vit", "deepvit") else (side - 4) // 2


def patch_size(config: Mapping[str, Any]) -> int:
    """The patch that was asked for, checked; else the largest that cuts the side into four or more
    (published: into two).
    """
    side = feature_side(config)
    if side < 1:
        raise UserError(
            f"image_size={config['image_size']} is too small for {config['model']}; use 6 or more"
        )
    divisors = [size for size in range(1, side + 1) if side % size == 0]
    asked = config["patch_size"]
    if asked is None:
        cuts = 2 if config["geometry"] == "published" else 4
        return max((size for size in divisors if size * cuts <= side), default=1)
    if asked not in divisors:
        what = "the image" if side == config["image_size"] else "the feature map"
        near = sorted(sorted(divisors, key=lambda size: abs(size - int(asked)))[:4])
        raise UserError(
            f"patch_size={asked} does not divide {what} of {config['model']} on {config['dataset']}, "
            f"{side} pixels wide; use {', '.join(map(str, near))}"
        )
    return int(asked)
