"""Driving: a planner after UniAD (https://arxiv.org/abs/2212.10156), learnt in minutes and judged by driving.

`world` is where it drives and what it senses there, `records` what it learns from, `stack` what it is made
of, `judging` what it is worth. Right-handed frames, x forward and y left in the frame of a vehicle; metres,
seconds, radians. Traffic drives on the right.
"""

from typing import TYPE_CHECKING

from attnsweep.core.axes import Config
from attnsweep.core.cost import Cost
from attnsweep.core.source import Source
from attnsweep.tasks.driving import datasets, space
from attnsweep.tasks.driving.axes import AXES
from attnsweep.tasks.driving.columns import COLUMNS
from attnsweep.tasks.driving.external import HIGHWAY_ENV
from attnsweep.tasks.task import Procedure, Rehearsal, Task

if TYPE_CHECKING:
    from torch import nn


def cost(config: Config) -> Cost | None:
    """A planner is counted as it is built."""
    return None


def build(config: Config, source: Source | None) -> "nn.Module":
    """From the arrays of a sample that `batches.inputs_of` names to a `prediction.Prediction`."""
    from attnsweep.tasks.driving import planners

    return planners.build(config, source, example=lambda: procedure().example(config, 1))


def rehearsal(config: Config) -> Rehearsal:
    """See `rehearsal.rehearsal_of`."""
    from attnsweep.tasks.driving.rehearsal import rehearsal_of

    return rehearsal_of(config)


def procedure() -> Procedure:
    """See `tasks.task`."""
    from attnsweep.tasks.driving import training

    return training


TASK = Task(
    name="driving",
    numerics=5,
    axes=AXES,
    columns=COLUMNS,
    models=space.MODELS,
    recipe=space.RECIPE,
    quality="score",
    quality_name="closed-loop score",
    default_dataset=space.DEFAULT_DATASET,
    dataset_names=datasets.NAMES,
    find=datasets.find,
    complete=space.complete,
    cost=cost,
    build=build,
    procedure=procedure,
    layers_repeat=2,  # attention in windows goes by turns, and the planner has a layer for two of the others
    own_models=True,
    rehearsal=rehearsal,
    own_recipe=space.OWN_RECIPE,
    privileged=("expert",),
    draws="planning",
    external=(HIGHWAY_ENV,),
    by_loss=True,  # where nothing plans
    tie_breaker="val_loss",  # a score of 40 maps is often the same
    clip_norm=lambda config: 1.0,  # whatever the stack: losses of several stages add up
)
