"""Mending a plan by the agents that were found, when it is judged: never in training.

UniAD minimises a cost of its occupancy with a solver (https://arxiv.org/abs/2212.10156, section 3.4). Here it
goes by boxes, for a whole batch at once, and slows the plan down on its way: candidates to its sides left the
road in 4 of 100 scenes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attnsweep.tasks.driving.stack.motion import straight_on
from attnsweep.tasks.driving.stack.prediction import Agents, Futures

LIKELY = 0.3  # the probability from which on an agent counts
HITS = 10.0  # m2 of deviation that a box in the ego's place outweighs
ROUNDS, RATE, STILL = 20, 0.1, 0.01  # of Adam; a gradient far below the last moves nothing
NEAR = 2.5  # m, how far the cost of a box reaches


def boxes_ahead(
    agents: Agents, futures: Futures | None
) -> tuple[Float[Tensor, "b 8 q 5"], Float[Tensor, "b 1 q"]]:
    """The most likely boxes of agents, and the probability of each; 0 for those that do not count."""
    if futures is None:
        offsets = straight_on(agents)[:, :, 0]
    else:
        best = futures.logits.argmax(dim=2)[:, :, None, None, None]
        offsets = torch.take_along_dim(futures.offsets, best, dim=2)[:, :, 0]
    xy = (agents.box[:, :, None, :2] + offsets).transpose(1, 2)
    rest = agents.box[:, None].expand(-1, xy.shape[1], -1, -1)
    yaw = torch.atan2(rest[..., 3:4], rest[..., 2:3])
    probability = agents.logit.sigmoid()
    weight = torch.where(probability > LIKELY, probability, 0)[:, None]
    return torch.cat([xy, yaw, rest[..., 4:]], dim=-1), weight


def paced(plan: Float[Tensor, "b 8 3"], shares: Float[Tensor, "b 8"]) -> Float[Tensor, "b 8 3"]:
    """The plan on the same way, but with shares, from 0 to 1, of its steps."""
    start = F.pad(plan, (0, 0, 1, 0))
    place = shares.cumsum(dim=1)
    low = place.detach().floor().long().clamp(max=plan.shape[1] - 1)
    part = (place - low)[..., None]
    before, after = (start.gather(1, k[..., None].expand(-1, -1, 3)) for k in (low, low + 1))
    return before + part * (after - before)


def descended(
    plan: Float[Tensor, "b 8 3"], others: Float[Tensor, "b 8 q 5"], weight: Float[Tensor, "b 1 q"]
) -> Float[Tensor, "b 8 3"]:
    """The plan, slowed down by Adam on its way so that it costs less; each example by itself.

    Boxes cost as in UniAD's optimiser, by the square of their distance, so that those beside the way count.
    """
    with torch.inference_mode(False), torch.enable_grad():
        wanted, others, weight = (x.detach().clone() for x in (plan, others, weight))
        shares = torch.ones_like(wanted[..., 0]).requires_grad_()
        adam = torch.optim.Adam([shares], lr=RATE, eps=STILL)
        for _ in range(ROUNDS):
            adam.zero_grad()
            slowed = paced(wanted, shares)
            square = (slowed[:, :, None, :2] - others[..., :2]).square().sum(dim=-1)
            close = (weight * torch.exp(-square / (2 * NEAR**2))).sum(dim=(1, 2))
            behind = (slowed - wanted)[..., :2].square().sum(dim=-1).mean(dim=1)
            (behind + HITS * close).sum().backward()
            adam.step()
            shares.data.clamp_(0, 1)
        return paced(wanted, shares.detach())
