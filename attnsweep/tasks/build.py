"""One architecture per file; `build` makes the one that a configuration describes."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from attnsweep.tasks.images import own
from attnsweep.tasks.images.models.cnn import cnn
from attnsweep.tasks.images.models.deepvit import deepvit
from attnsweep.tasks.images.models.hybrid import hybrid
from attnsweep.tasks.images.models.vit import vit
from attnsweep.tasks.images.models.zoo import MECHANISMS
from attnsweep.tasks.sequences.transformer import transformer

MODELS = {
    "cnn": cnn,
    "vit": vit,
    "deepvit": deepvit,
    "hybrid": hybrid,
    "transformer": transformer,
    **MECHANISMS,
}


def build(config: Mapping[str, Any], source: str | None = None) -> nn.Module:
    """The freshly initialised model of a configuration (see `spaces.resolve`).

    Of task images: images (b, channels, image_size, image_size) in, logits (b, num_classes) out; of task
    driving: the arrays of a sample that `batches.inputs_of` names in, a `prediction.Prediction` out.
    `source` is the text of the file of a user's own model, by default that of the file itself. Raises
    UserError where that is needed, and is gone or has changed.
    """
    if config["task"] == "driving":
        from attnsweep.tasks.driving.planners import (
            PLANNERS,  # here: they are made of attention, which is below
        )

        return PLANNERS[config["model"]](config)
    if not own.is_own(config["model"]):
        return MODELS[config["model"]](config)
    return own.build(config, source or own.source_of(config) or "")
