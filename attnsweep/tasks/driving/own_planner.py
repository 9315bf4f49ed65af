"""A planner of one's own, `FILE.py:CLASS`: any nn.Module class that maps what an ego senses to plans.

Its `forward` takes one argument, a dictionary of tensors with b examples each, in the frame of the ego at the
key frame (x forward, y left, metres, radians), and nothing that only a label tells:

- `bev` (b, 6, 64, 64) uint8: counts of what a scanner returned, a metre to a cell; row i covers x from
  i - 16, column j covers y from j - 32. Layers 0 to 3: sweeps 1.5, 1.0, 0.5 and 0 s ago; 4: paint on the road
  that all of them saw; 5: stop lines in sight whose light is not green. On data sets with cameras instead
  `cams` (b, 6, 3, 64, 112) uint8, see `world.cameras.CAMERAS`.
- `route` (b, 12, 2) float32: points of the route ahead, the first after 4 m, 4 m apart; a route that ends
  earlier repeats its last point.
- `command` (b,) int8: 0 straight on, 1 left, 2 right over the next 48 m of the route.
- `ego_state` (b, 5) float32: speed (m/s), acceleration along and to the left (m/s2), yaw rate (rad/s), slip
  angle (rad).

It returns plans (b, t, 2) of x and y, or (b, t, 3) with yaw, where the ego shall be each half second from
half a second ahead on; 8 points are 4 s, which are driven and judged. Of a longer plan the first 8 count; a
shorter one goes on as its last step does. Without a yaw it is that of each step. It is asked about any number
of scenes in any order: what a planner keeps from call to call is of others.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records.samples import FUTURE
from attnsweep.tasks.driving.stack.planner import yaws
from attnsweep.tasks.driving.stack.prediction import Prediction


class OwnPlanner(nn.Module):
    """The planner `net` of a user as one of the package's: `inputs` are the names of what it is given."""

    def __init__(self, net: nn.Module, inputs: Sequence[str], *, name: str) -> None:
        super().__init__()
        self.net, self.inputs, self.name = net, tuple(inputs), name

    def forward(self, *sensed: Tensor) -> Prediction:
        """Raises UserError where what comes back is no plan for each example."""
        sample = dict(zip(self.inputs, sensed, strict=True))
        plan = self.net(sample)
        self.check(plan, examples=len(sensed[0]))
        return Prediction(plan=whole(plan.float()))

    def check(self, plan: object, *, examples: int) -> None:
        """Raises UserError where `plan` is not (b, t, 2) or (b, t, 3) of floats."""
        wanted = f"plans ({examples}, t, 2) or ({examples}, t, 3), t = 8 for 4 s"
        if not isinstance(plan, Tensor):
            raise UserError(f"{self.name} returns a {type(plan).__name__}; let forward return {wanted}")
        shape = tuple(plan.shape)
        if len(shape) != 3 or shape[0] != examples or shape[1] < 1 or shape[2] not in (2, 3):
            raise UserError(f"{self.name} returns a tensor {shape}; let forward return {wanted}")
        if not plan.is_floating_point():
            raise UserError(f"{self.name} returns plans of {plan.dtype}; let forward return float32")


def whole(plan: Tensor) -> Tensor:
    """Plans (b, 8, 3) of plans (b, t, 2 or 3); see the module."""
    xy = plan[:, :FUTURE, :2]
    before = torch.cat([torch.zeros_like(xy[:, :1]), xy], dim=1)
    step = before.diff(dim=1)
    ahead = torch.arange(1, FUTURE - xy.shape[1] + 1, device=plan.device)[:, None]
    onward = xy[:, -1:] + ahead * step[:, -1:]
    yaw = yaws(step) if plan.shape[2] == 2 else plan[:, :FUTURE, 2]
    last = yaw[:, -1:].expand(-1, onward.shape[1])
    return torch.cat([torch.cat([xy, onward], dim=1), torch.cat([yaw, last], dim=1)[..., None]], dim=2)
