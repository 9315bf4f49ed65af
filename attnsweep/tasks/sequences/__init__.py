"""Sequence to sequence: drawn problems with exact answers, for the transformer built from scratch."""

from typing import TYPE_CHECKING

from attnsweep.core.axes import Config
from attnsweep.core.source import Source
from attnsweep.tasks.sequences import space
from attnsweep.tasks.sequences.axes import AXES
from attnsweep.tasks.sequences.columns import COLUMNS
from attnsweep.tasks.sequences.cost import by_length, encoder_decoder
from attnsweep.tasks.sequences.problems import PROBLEMS
from attnsweep.tasks.task import Procedure, Task

if TYPE_CHECKING:
    from torch import nn


def build(config: Config, source: Source | None) -> "nn.Module":
    """From token ids (b, n) and (b, m) to logits (b, m, num_classes)."""
    from attnsweep.tasks.sequences.transformer import transformer

    return transformer(config)


def procedure() -> Procedure:
    from attnsweep.tasks.sequences import training

    return training


TASK = Task(
    name="sequences",
    numerics=2,
    axes=AXES,
    columns=COLUMNS,
    models=space.MODELS,
    recipe=space.RECIPE,
    quality="acc",
    quality_name="accuracy",
    default_dataset=space.DEFAULT_DATASET,
    dataset_names=tuple(PROBLEMS),
    find=PROBLEMS.get,
    complete=space.complete,
    revision=space.revision,
    cost=encoder_decoder,
    cost_columns=by_length,
    at_length=lambda config, tokens: {**config, "length": tokens},
    build=build,
    procedure=procedure,
    decoded=lambda config: config["length"] + 1,  # of a longest answer, its end included
)
