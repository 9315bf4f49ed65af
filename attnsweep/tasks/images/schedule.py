"""The learning rate of a step: a warm-up, then steps, a cosine, or a constant."""

import functools
import math
from collections.abc import Mapping
from typing import Any


def learning_rate(config: Mapping[str, Any], step: int, steps_per_epoch: int) -> float:
    """The rate of a step, counted from 0 over the whole training.

    It rises evenly to `lr` over `warmup_epochs`. Then, by `schedule`: a factor `lr_gamma` less in each epoch,
    counted from the first; `lr` (1 + cos(pi t)) / 2, where t goes from 0 to 1 over what is left (Loshchilov
    and Hutter 2016, https://arxiv.org/abs/1608.03983, equation 5); or `lr` throughout.
    """
    lr = float(config["lr"])
    rise = round((config.get("warmup_epochs") or 0) * steps_per_epoch)
    if step < rise:
        return lr * (step + 1) / rise
    if (schedule := config.get("schedule") or "step") == "step":
        return rate_of_epoch(lr, config["lr_gamma"], step // steps_per_epoch)
    if schedule == "constant":
        return lr
    left = steps_per_epoch * config["epochs"] - rise
    return lr * (1 + math.cos(math.pi * (step - rise) / left)) / 2


@functools.lru_cache(maxsize=8)
def rate_of_epoch(lr: float, gamma: float, epoch: int) -> float:
    """The rate multiplied epoch by epoch, as torch's StepLR does, so that both are equal to the bit."""
    for _ in range(epoch):
        lr *= gamma
    return lr
