"""The planning stack: UniAD (https://arxiv.org/abs/2212.10156, figure 2) from what is sensed to a plan.

Read in this order: `encoder` and `camera_encoder`, `track`, `lines`, `motion`, `occupancy`, `planner`;
`design` says which stages and which attentions there are, `losses` what trains them.
"""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn

from attnsweep.tasks.driving.records.samples import FUTURE
from attnsweep.tasks.driving.stack.camera_encoder import CameraEncoder
from attnsweep.tasks.driving.stack.design import complete, is_on
from attnsweep.tasks.driving.stack.encoder import BEVEncoder
from attnsweep.tasks.driving.stack.lines import DenseMap, MapFormer
from attnsweep.tasks.driving.stack.motion import MotionForecasts, MotionFormer
from attnsweep.tasks.driving.stack.occupancy import OccFormer, OccupancyHead
from attnsweep.tasks.driving.stack.planner import Planner, Scene
from attnsweep.tasks.driving.stack.prediction import Prediction
from attnsweep.tasks.driving.stack.refine import boxes_ahead, descended
from attnsweep.tasks.driving.stack.track import Detections, TrackFormer


class Stack(nn.Module):
    """The stages that a configuration names, which `design.complete` completes; raises its UserError."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        config = complete(config)
        self.grad_stop, self.post = is_on(config["grad_stop"]), is_on(config["post"])
        self.apart = config["topology"] == "parallel"
        dense, vector = (config["lines"] in (kind, "both") for kind in ("dense", "vector"))
        self.encoder = CameraEncoder(config) if config["sensor"] == "cameras" else BEVEncoder(config)
        self.track = TrackFormer(config) if is_on(config["track"]) else None
        self.dense_map = DenseMap(config) if dense else None
        self.lines = MapFormer(config) if vector else None
        self.motion = MotionFormer(config) if is_on(config["motion"]) else None
        occupancy = {"none": None, "head": OccupancyHead, "former": OccFormer}[config["occ"]]
        self.occupancy = occupancy(config) if occupancy else None
        self.planner = Planner(config) if is_on(config["plan"]) else None

    def forward(
        self,
        sensed: UInt8[Tensor, "b 6 64 64"] | UInt8[Tensor, "b 6 3 64 112"],
        route: Float[Tensor, "b 12 2"],
        command: Int8[Tensor, " b"],
        ego_state: Float[Tensor, "b 5"],
    ) -> Prediction:
        """Of the scanner's grids or the cameras' views, as in `samples.SAMPLE` and `cameras.CAMERAS`."""
        features = self.encoder(sensed)
        found = self.track(features) if self.track else None
        lines, line_queries = self.lines(features) if self.lines else (None, None)
        forecasts = self.motion(found, features, line_queries) if self.motion else None
        scene = Scene(features, found, lines, line_queries, forecasts)
        if self.grad_stop:
            scene = stopped(scene)
        plan, choice = route.new_full((len(route), FUTURE, 3), math.nan), None
        if self.planner:
            plan, choice = self.planner(scene, route, command, ego_state)
        occupancy = None
        if self.occupancy and found:
            occupancy = self.occupancy(who(found, None if self.apart else forecasts), features)
        prediction = Prediction(
            plan=plan,
            agents=found.agents if found else None,
            lines=lines,
            futures=forecasts.futures if forecasts else None,
            heat=found.heat if found else None,
            map=self.dense_map(features.fine) if self.dense_map else None,
            occupancy=occupancy,
            choice=choice,
            planned=self.planner is not None,
        )
        return prediction if self.training else self.mended(prediction)

    def mended(self, prediction: Prediction) -> Prediction:
        """The prediction with its plan mended, where that is configured."""
        if not self.post or prediction.agents is None:
            return prediction
        others = boxes_ahead(prediction.agents, prediction.futures)
        return replace(prediction, plan=descended(prediction.plan, *others))


def who(found: Detections, forecasts: MotionForecasts | None) -> Tensor:
    """Agents (b, q, d) as the occupancy stage knows them: who they are, and the strongest of their modes."""
    return found.queries if forecasts is None else found.queries + forecasts.queries.amax(dim=2)


def stopped(value: Any) -> Any:
    """A tensor, or a bundle of tensors and bundles, without gradients."""
    if isinstance(value, Tensor):
        return value.detach()
    if not is_dataclass(value):
        return value
    kind: Any = type(value)
    return kind(*(stopped(getattr(value, field.name)) for field in fields(value)))
