"""Training that begins with weights: which of a model's parameters are trained, and how fast."""

import contextlib
import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from attnsweep.core.axes import Config
from attnsweep.core.source import Source
from attnsweep.core.trial import Trial
from attnsweep.tasks.images import weights
from attnsweep.tasks.images.building import build
from attnsweep.tasks.task import Tuning


def tune(model: nn.Module, config: Mapping[str, Any], source: Source | None) -> Tuning:
    """Puts the weights into a model where its configuration names some. The head is trained at the learning
    rate of the recipe, all else at `backbone_lr` times that, or not at all.

    Raises UserError where the weights do not fit.
    """
    named, frozen = dict(model.named_parameters()), config["freeze"] == "backbone"
    if not weights.tells_head(config):
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


def check(trial: Trial) -> None:
    """Tries before a trial is trained whether its model has a head, and its weights fit. Raises UserError."""
    config = dict(trial.config)
    wants_head, sha256 = weights.wants_head(config), config["weights_sha256"]
    check_once(Begun(trial.arch_id, wants_head, config["weights"], sha256, config, trial.source))


@dataclass(frozen=True)
class Begun:
    """An architecture and the weights that its training begins with, and what it takes to build it."""

    arch_id: str
    wants_head: bool
    weights: str | None
    weights_sha256: str | None
    config: Config = field(compare=False)
    source: Source | None = field(compare=False)


@functools.cache
def check_once(begun: Begun) -> None:
    """See `check`: trials that differ in their recipe alone are tried once."""
    with contextlib.redirect_stdout(sys.stderr):  # of what one's own model prints
        weights.check(lambda sizes: build(sizes, begun.source), begun.config)
