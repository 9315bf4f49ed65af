"""Recipes of training: named values of the axes of training, each of which a sweep may set otherwise.

`published` is that of the experiments that this package grew from (github.com/holestine/attention): Adam, a
step schedule, no augmentation.

`modern` is what attention models on little data live by. From CCT, Hassani et al. 2021 (arXiv:2104.05704, and
the commands and the configuration of CCT-7/3x1 for CIFAR-10 in github.com/SHI-Labs/Compact-Transformers):
AdamW at 5e-4, a cosine after 10 of 200 epochs of warm-up, RandAugment, mixup 0.8, CutMix 1.0, label smoothing
0.1, stochastic depth 0.1, no dropout, no average of the weights. From DeiT, Touvron et al. 2021
(arXiv:2012.12877, table 9): a weight decay of 0.05, random erasing of a quarter of the images, no clipping.
Not taken over: AutoAugment, repeated augmentation, cooling down, a least learning rate.

Sources of the parts: RandAugment, Cubuk et al. 2019 (arXiv:1909.13719); TrivialAugment, Müller and Hutter
2021 (arXiv:2103.10158); mixup, Zhang et al. 2017 (arXiv:1710.09412); CutMix, Yun et al. 2019
(arXiv:1905.04899); random erasing, Zhong et al. 2017 (arXiv:1708.04896); label smoothing, Szegedy et al. 2015
(arXiv:1512.00567); stochastic depth, Huang et al. 2016 (arXiv:1603.09382); cosine schedules, Loshchilov and
Hutter 2016 (arXiv:1608.03983).
"""

from collections.abc import Mapping

from attnsweep.core.axes import Config, Value
from attnsweep.core.errors import UserError
from attnsweep.tasks.images.axes import KNOWN

AXES = (  # in the order of time: those of the images, of the loss, of the step
    "recipe", "augment", "random_erasing", "mixup", "cutmix", "label_smoothing", "schedule", "warmup_epochs",
    "clip_norm", "ema",
)  # fmt: skip
WARMUP = 1 / 20  # of the epochs, in the modern recipe
MODERN: Mapping[str, Value] = {
    "optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.05, "schedule": "cosine", "augment": "randaugment",
    "random_erasing": 0.25, "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1, "drop_path": 0.1,
    "dropout": 0.0, "emb_dropout": 0.0,
}  # fmt: skip
DEFAULTS: Mapping[str, Mapping[str, Value]] = {"published": {}, "modern": MODERN}


def defaults(point: Mapping[str, object]) -> dict[str, Value]:
    """The defaults of the point's recipe, by axis. Raises UserError where there is none of that name."""
    recipe, epochs = point.get("recipe"), point.get("epochs")
    if (name := "published" if recipe is None else KNOWN["recipe"].check(recipe)) == "published":
        return {}
    axis = KNOWN["epochs"]
    return {
        **DEFAULTS[name],
        "warmup_epochs": WARMUP * axis.check(axis.default if epochs is None else epochs),
    }


def completed(config: Config) -> Config:
    """The configuration, in which what its schedule does not read is null.

    Raises UserError where its warm-up is longer than its training.
    """
    if config["warmup_epochs"] > config["epochs"]:
        raise UserError(
            f"warmup_epochs={config['warmup_epochs']:g} are more than epochs={config['epochs']}; "
            f"use {config['epochs']} or less"
        )
    return config if config["schedule"] == "step" else config | {"lr_gamma": None}
