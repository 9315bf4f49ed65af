"""Which query answers for which target: one Hungarian matching per example, as in DETR
(https://arxiv.org/abs/2005.12872, section 3.1), which tracking, motion and occupancy share as in UniAD
(https://arxiv.org/abs/2212.10156, section 3.5).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from scipy.optimize import linear_sum_assignment
from torch import Tensor

FOCUS, BALANCE = 2.0, 0.25  # gamma and alpha of the focal loss, https://arxiv.org/abs/1708.02002, eq. 5
CLASS_COST, NEAR_COST = 2.0, 0.25  # of the probability, and of a metre along x or y


@dataclass(frozen=True)
class Matching:
    """The `n` pairs of a batch."""

    example: Int[Tensor, " n"]
    query: Int[Tensor, " n"]
    target: Int[Tensor, " n"]

    def of_queries(self, values: Shaped[Tensor, "b q ..."]) -> Shaped[Tensor, "n ..."]:
        """Those of each pair's query."""
        return values[self.example, self.query]

    def of_targets(self, values: Shaped[Tensor, "b a ..."]) -> Shaped[Tensor, "n ..."]:
        """Those of each pair's target."""
        return values[self.example, self.target]


def focal(logit: Tensor, target: Tensor) -> Tensor:
    """The focal loss (...) of logits against targets of 0 and 1."""
    wrong = torch.where(target > 0, -logit, logit).sigmoid()
    weight = torch.where(target > 0, BALANCE, 1 - BALANCE)
    return weight * wrong**FOCUS * F.softplus(torch.where(target > 0, -logit, logit))


def agent_cost(
    logit: Float[Tensor, "b q"], xy: Float[Tensor, "b q 2"], wanted: Float[Tensor, "b a 2"]
) -> Float[Tensor, "b q a"]:
    """What it costs that queries of logits at points answer for targets at points."""
    found = focal(logit, torch.ones_like(logit)) - focal(logit, torch.zeros_like(logit))
    return CLASS_COST * found[:, :, None] + NEAR_COST * torch.cdist(xy, wanted, p=1)


@torch.no_grad()
def match(cost: Float[Tensor, "b q a"], mask: Bool[Tensor, "b a"]) -> Matching:
    """The pairs that cost least, as many as an example has targets, or queries if those are fewer."""
    rows = cost.detach().float().cpu().numpy()
    taken = mask.cpu().numpy()
    found = []
    for b in range(len(rows)):
        targets = np.flatnonzero(taken[b])
        query, target = linear_sum_assignment(rows[b][:, targets])
        found.append(np.stack([np.full(len(query), b), query, targets[target]]))
    return Matching(*torch.from_numpy(np.concatenate(found, axis=1)).to(cost.device))
