"""Planners as models of a sweep: the stack, and the rules and networks that it must beat."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attnsweep.planning.baselines import ConstantVelocity, EgoMLP, RouteFollowing, Stop
from attnsweep.planning.prediction import Prediction
from attnsweep.planning.samples import FUTURE
from attnsweep.planning.stack import Stack


class Expert(nn.Module):
    """The world's own driver, who sees all and drives without plans: asked for one, it gives NaN."""

    def forward(self, bev: Tensor, route: Tensor, command: Tensor, ego_state: Tensor) -> Prediction:
        return Prediction(plan=torch.full((len(route), FUTURE, 3), torch.nan), planned=False)


def ego_mlp(config: Mapping[str, Any]) -> nn.Module:
    """Plans by the ego's own motion and the route."""
    return EgoMLP(config["dim"], config["depth"])


PLANNERS = {
    "planning": Stack,
    "ego_mlp": ego_mlp,
    "stop": lambda config: Stop(),
    "constant_velocity": lambda config: ConstantVelocity(),
    "route_following": lambda config: RouteFollowing(),
    "expert": lambda config: Expert(),
}
