"""Planners as models of a sweep: the stack, and the rules and networks that it must beat."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attnsweep.core.source import Source
from attnsweep.tasks import own
from attnsweep.tasks.driving.judging.baselines import STEADY, ConstantVelocity, EgoMLP, RouteFollowing, Stop
from attnsweep.tasks.driving.own_planner import OwnPlanner
from attnsweep.tasks.driving.records.batches import inputs_of
from attnsweep.tasks.driving.records.samples import FUTURE
from attnsweep.tasks.driving.space import OF_MODELS
from attnsweep.tasks.driving.stack.prediction import Prediction
from attnsweep.tasks.driving.stack.stack import Stack


class Expert(nn.Module):
    """The world's own driver, who sees all and drives without plans: asked for one, it gives NaN."""

    def forward(self, bev: Tensor, route: Tensor, command: Tensor, ego_state: Tensor) -> Prediction:
        return Prediction(plan=torch.full((len(route), FUTURE, 3), torch.nan), planned=False)


PLANNERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "planning": Stack,
    "ego_mlp": lambda config: EgoMLP(config["dim"], config["depth"]),
    "route_mlp": lambda config: EgoMLP(config["dim"], config["depth"], motion=False),
    "stop": lambda config: Stop(),
    "constant_velocity": lambda config: ConstantVelocity(),
    "route_following": lambda config: RouteFollowing(),
    "steady": lambda config: RouteFollowing(STEADY),
    "expert": lambda config: Expert(),
}


def build(
    config: Mapping[str, Any], source: Source | None, *, example: Callable[[], tuple[Tensor, ...]]
) -> nn.Module:
    """The planner of a configuration; `source` is the text of one's own, `example` gives inputs."""
    model, names = config["model"], inputs_of(config)
    if not own.is_own(model):
        return PLANNERS[model](config)

    def sample() -> tuple[dict[str, Tensor]]:
        return (dict(zip(names, example(), strict=True)),)

    return OwnPlanner(own.build(config, source, axes=OF_MODELS, example=sample), names, name=model)
