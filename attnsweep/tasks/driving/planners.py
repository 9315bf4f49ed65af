"""Planners as models of a sweep: the stack, and the rules and networks that it must beat."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attnsweep.tasks.driving.judging.baselines import STEADY, ConstantVelocity, EgoMLP, RouteFollowing, Stop
from attnsweep.tasks.driving.records.samples import FUTURE
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
