"""Training that begins with weights: which of a model's parameters are trained, and how fast."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from attnsweep.core.axes import Config
from attnsweep.core.source import Source
from attnsweep.tasks.images import weights
from attnsweep.tasks.task import Tuning


def tune(model: nn.Module, config: Mapping[str, Any], source: Source | None) -> Tuning:
    """Puts the weights into a model where its configuration names some. The head is trained at the learning
    rate of the recipe, all else at `backbone_lr` times that, or not at all.

    Raises UserError where the weights do not fit.
    """
    named, frozen = dict(model.named_parameters()), config["freeze"] == "backbone"
    if config["weights"] is None and not frozen and config["backbone_lr"] == 1:
        return Tuning([(list(named.values()), 1.0)])
    keys = weights.head_of(lambda sizes: build(sizes, source), dict(config))
    weights.begin(model, config, keys)
    head = [parameter for name, parameter in named.items() if name in keys]
    backbone = [parameter for name, parameter in named.items() if name not in keys]
    if frozen:
        for parameter in backbone:
            parameter.requires_grad_(False)
        return Tuning([(head, 1.0)], weights.frozen_parts(model, keys))
    return Tuning([(head, 1.0), (backbone, config["backbone_lr"])])


def build(config: Config, source: Source | None) -> nn.Module:
    """See `tasks.images.build`."""
    from attnsweep.tasks.images import build  # here: that module is what names this one

    return build(config, source)
