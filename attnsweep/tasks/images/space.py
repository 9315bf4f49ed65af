"""Image classification: the axes of each model, and the checks of their values.

The data set determines the image's side, channels and classes; the side determines the possible patches.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from attnsweep.core.axes import KERNEL, SHARED, Config, Value, filled
from attnsweep.core.errors import UserError
from attnsweep.nn.design import RELATIVE, check, variant_of
from attnsweep.tasks import own
from attnsweep.tasks.images import datasets, libraries, patches, recipe, weights, zoo_sizes
from attnsweep.tasks.images.axes import KNOWN

BLOCKS = (
    "depth", "heads", "dim", "dim_head", "mlp_dim", "patch_size", "dropout", "emb_dropout", "geometry",
    "drop_path",
)  # fmt: skip
TUNING = ("weights", "freeze", "backbone_lr", "normalise")
RECIPE = (
    "unreadable", "optimizer", "lr", "lr_gamma", "weight_decay", "batch_size", "epochs", "precision", "seed",
    *recipe.AXES, *TUNING,
)  # fmt: skip
VARIANTS = ("kv_heads", "norm", "positions", "qk_norm", "mlp")  # null where all is as published
MODELS: dict[str, tuple[str, ...]] = {
    "cnn": ("dim", "pooling"),
    "vit": (*BLOCKS, "attention", *VARIANTS),
    "deepvit": BLOCKS,  # it mixes the attention maps, which no fused kernel shows
    "hybrid": (*BLOCKS, "attention"),
    **zoo_sizes.TAKES,
}
DEFAULT_DATASET = "digits"
OF_DATA = ("image_size", "channels", "num_classes")
# newer than users' own models, whose arguments of these names stay in `model_args`
LATER = {"pooling", "drop_path", *VARIANTS, *recipe.AXES, *TUNING}
OF_MODELS = {
    name: KNOWN[name] for name in (*OF_DATA, *RECIPE, *itertools.chain(*MODELS.values())) if name not in LATER
}
KERNELS = KERNEL["attention"].choices
CNN_DIM = 128  # the width of the PyTorch MNIST sample
CONVOLUTIONAL = ("cnn", "hybrid")  # two 3x3 convolutions and a pooling come first


def complete(point: Mapping[str, object], model: str) -> Config:
    """The configuration of a model. Raises UserError where a value does not fit."""
    refuse_drop_path(point, model)
    if own.is_own(model):
        return weights.completed(of_own_model(point, model) | {"model": model})
    if libraries.has(model):
        return weights.completed(of_library(point, model))
    return weights.completed(of_listed(point, model))


def of_library(point: Mapping[str, object], model: str) -> Config:
    """The configuration of another library's model. Raises UserError as `libraries` and `recipe` do."""
    asked: dict[str, Any] = {**recipe.defaults(point), **weights.defaults(point, model)}
    asked |= {key: value for key, value in point.items() if value is not None}
    return recipe.completed(libraries.complete(asked, model, recipe=RECIPE, of_data=of_images))


def of_listed(point: Mapping[str, object], model: str) -> Config:
    """The configuration of one of MODELS. Raises UserError where a value does not fit."""
    defaults = recipe.defaults(point) | ({"dim": None} if model == "cnn" else {})  # null: CNN_DIM
    defaults |= dict.fromkeys(VARIANTS)
    axes = KNOWN | ({"attention": SHARED["attention"]} if model == "vit" else {})
    config = filled(axes, (*MODELS[model], *RECIPE), point, defaults) | {"model": model} | of_images(point)
    config = recipe.completed(config)
    check_width(config)
    if feature_side(config) < 1:
        raise UserError(f"image_size={config['image_size']} is too small for {model}; use 6 or more")
    if model in zoo_sizes.TAKES:
        config["patch_size"] = config.get("patch_size") or zoo_sizes.default_patch(config)
        zoo_sizes.check(config)
    elif "patch_size" in MODELS[model]:
        config["patch_size"] = patch_size(config)
    return config | as_published(config) if model == "vit" else config


def as_published(config: Config) -> Config:
    """The axes of a ViT's variants, null where as published. Raises UserError where one does not fit."""
    if config["norm"] == "post":
        raise UserError("norm='post' is for transformer and decoder; a vit norms before: use pre or rms")
    if config["positions"] in RELATIVE:
        raise UserError(
            f"positions={config['positions']!r} is of tokens in a row, and a vit's patches lie in a plane; "
            "use learned, sinusoidal or none"
        )
    sizes = {key: config[key] for key in ("heads", "dim_head", "dropout")}
    check(config["attention"], variant_of(config), **(sizes | {"dropout": 0.0}))
    plain = {
        "kv_heads": config["heads"], "norm": "pre", "positions": "learned", "qk_norm": "none", "mlp": "gelu",
    }  # fmt: skip
    return {name: None for name, value in plain.items() if config[name] == value}


def is_varied(config: Mapping[str, Any]) -> bool:
    """Whether a ViT differs from vit-pytorch's in any variant."""
    varies = config["attention"] not in KERNELS or any(config.get(name) is not None for name in VARIANTS)
    return bool(config["model"] == "vit" and varies)


def of_own_model(point: Mapping[str, object], model: str) -> Config:
    """The configuration of a user's own model. Raises UserError as `own.complete` and `recipe` do."""
    config = own.complete(
        point, model, axes=OF_MODELS, recipe=RECIPE, of_data=of_images, task_defaults=recipe.defaults,
        later={name: KNOWN[name] for name in (*recipe.AXES, *TUNING)},
    )  # fmt: skip
    return recipe.completed(config)


def refuse_drop_path(point: Mapping[str, object], model: str) -> None:
    """Raises UserError where `drop_path` is set for a model without that axis."""
    asked = point.get("drop_path")
    if asked is None or not KNOWN["drop_path"].check(asked):
        return
    can = [name for name, axes in MODELS.items() if "drop_path" in axes]
    if own.is_own(model):
        has = "drop_path" in own.signature(model, own.read(model))
    else:
        has = "drop_path" in libraries.takes(model) if libraries.has(model) else model in can
    if has:
        return
    instead = f"use one of {', '.join(can)}"
    if libraries.has(model):
        instead = "give the argument of that library, such as drop_path_rate of timm's"
    raise UserError(f"drop_path={asked!r} is nothing that {model} has; leave it out, or {instead}")


def of_images(point: Mapping[str, object]) -> Config:
    """The axes that the data set determines: its images are resized, and the head has more outputs than it
    has classes, where the point says so. Raises UserError where these are too few.
    """
    dataset = image_set(point)
    sizes: dict[str, Value] = {"image_size": dataset.image_size, "num_classes": dataset.num_classes}
    config = filled(KNOWN, sizes, point, sizes)
    if (wanted := config["num_classes"]) < dataset.num_classes:
        raise UserError(
            f"num_classes={wanted} is too few for {dataset.name}; use {dataset.num_classes} or more"
        )
    unreadable = point.get("unreadable") if dataset.is_folder else None
    return config | {"dataset": dataset.name, "channels": dataset.channels, "unreadable": unreadable}


def image_set(point: Mapping[str, object]) -> datasets.ImageSet:
    """The point's data set, digits by default. Raises UserError where there is none of that name."""
    name, skips = point.get("dataset"), point.get("unreadable") == "skip"
    found = datasets.find(DEFAULT_DATASET if name is None else str(name), skip_unreadable=skips)
    if found is None:
        raise UserError(f"dataset={name!r} has no images")
    return found


def image_set_of_trial(config: Config) -> datasets.ImageSet:
    """The data set of a configuration, at its size of images."""
    return datasets.sized(image_set(config), config["image_size"])


def feature_side(config: Mapping[str, Any]) -> int:
    """The side of what is cut: the image, or the feature map after two 3x3 convolutions and a pooling."""
    side = int(config["image_size"])
    return (side - 4) // 2 if config["model"] in CONVOLUTIONAL else side


def check_width(config: Mapping[str, Any]) -> None:
    """Raises UserError for a CNN's width that is no multiple of 4, and tokens that a layer norm erases."""
    model, dim = config["model"], config.get("dim")
    if model == "cnn" and dim is not None and dim % 4:
        near = ", ".join(str(4 * n) for n in (dim // 4, dim // 4 + 1) if n)
        raise UserError(f"dim={dim} is no multiple of 4, as cnn needs; use {near}")
    if model in ("vit", "deepvit", "hybrid") and config["dim"] < 3:
        raise UserError(f"dim={dim} is too small for {model}; use 3 or more")


def patch_size(config: Mapping[str, Any]) -> int:
    """The side of a patch: the point's, else the largest that cuts the side into 4 or more (published: 2).

    Raises UserError where it does not divide the side, layer norm would erase it, or there is no default.
    """
    side, hybrid = feature_side(config), config["model"] == "hybrid"
    sizes = patches.divisors(side)
    fit = [size for size in sizes if hybrid or patches.is_seen(size, config["channels"])]
    asked, cuts = config["patch_size"], 2 if config.get("geometry") == "published" else 4
    if asked is None and hybrid:  # a single place of its feature map has 64 values
        return max((size for size in fit if size * cuts <= side), default=1)
    if asked is None:
        return patches.default(fit, side, cuts=cuts)
    if asked not in sizes:
        what = "the feature map" if hybrid else "the image"
        raise UserError(
            f"patch_size={asked} does not divide {what} of {config['model']} on {config['dataset']}, "
            f"{side} pixels wide; use {patches.nearest(fit, asked)}"
        )
    if asked not in fit:
        raise patches.unseen(config["model"], asked, fit)
    return int(asked)
