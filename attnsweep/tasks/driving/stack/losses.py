"""What trains the stack: the terms of section 3.5 of UniAD (https://arxiv.org/abs/2212.10156), each a mean
that does not depend on how many agents or lines there are.

A batch is a dictionary of tensors named as in `samples.SAMPLE`, a row per example.

Shapes: b examples, a agents, q queries, n matched pairs, m modes, l lines, t times.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from attnsweep.tasks.driving.stack.lines import KINDS
from attnsweep.tasks.driving.stack.matching import Matching, agent_cost, focal, match
from attnsweep.tasks.driving.stack.places import GRID, SIDE, read
from attnsweep.tasks.driving.stack.prediction import Agents, Choice, Futures, Lines, Prediction
from attnsweep.tasks.driving.world.geometry import separation

Batch = Mapping[str, Tensor]
WEIGHTS: dict[str, float] = {
    "heat": 1.0,
    "found": 2.0,
    "place": 0.25,
    "yaw": 1.0,
    "size": 0.25,
    "velocity": 0.2,
    "offset": 0.2,
    "line_kind": 2.0,
    "line_points": 0.5,
    "map": 1.0,
    "motion": 1.0,
    "mode": 0.2,
    "occupancy_dice": 1.0,
    "occupancy": 2.0,
    "plan": 1.0,
    "plan_yaw": 1.0,
    "choice": 1.0,
    "collision": 1.0,
    "boundary": 1.0,
}
INFLATIONS = ((0.0, 2.5), (0.5, 1.0), (1.0, 0.25))  # m, and what a metre of penetration weighs
DISCOUNT = 0.95  # of the occupancy, a second
HARDEST = 4  # one cell in so many counts
BLUR = 1.0  # cells, the width of a peak of the heat map


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The weighted sum of the terms."""
    return torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()


def losses(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    """The terms, unweighted, of what the prediction holds."""
    terms: dict[str, Tensor] = {}
    if prediction.planned:
        terms |= plan_losses(prediction.plan, prediction.choice, batch)
    if prediction.heat is not None:
        terms["heat"] = heat_loss(prediction.heat, batch)
    if prediction.map is not None:
        terms["map"] = map_loss(prediction.map, batch)
    if prediction.lines is not None:
        terms |= line_losses(prediction.lines, batch)
    if prediction.agents is not None:
        cost = agent_cost(prediction.agents.logit, prediction.agents.box[..., :2], batch["box"][..., :2])
        pairs = match(cost, batch["mask"])
        terms |= agent_losses(prediction.agents, pairs, batch)
        if prediction.futures is not None:
            terms |= motion_losses(prediction.futures, pairs, batch)
        if prediction.occupancy is not None:
            terms |= occupancy_losses(prediction.occupancy, pairs, batch)
    return terms


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values where the mask holds; zero, with gradients of zero, where it never does."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


# --- Agents ---


def heat_loss(heat: Tensor, batch: Batch) -> Tensor:
    """CenterNet's focal loss (https://arxiv.org/abs/1904.07850, eq. 1) of logits (b, g, g)."""
    peak = heat_target(batch, heat.shape[-1])
    there = peak == 1
    hit = heat.sigmoid()
    loss = torch.where(there, (1 - hit) ** 2 * F.softplus(-heat), (1 - peak) ** 4 * hit**2 * F.softplus(heat))
    return loss.sum() / batch["mask"].sum().clamp(min=1)


def heat_target(batch: Batch, cells: int) -> Tensor:
    """A bump (b, g, g) over each agent's middle, 1 in the cell that holds it."""
    size = SIDE / cells
    corner = batch["box"].new_tensor([GRID.back, -SIDE / 2])
    cell = ((batch["box"][..., :2] - corner) / size).floor()
    order = torch.arange(cells, device=cell.device)
    bump = torch.exp(-((order - cell[..., None]) ** 2) / (2 * BLUR**2)) * batch["mask"][..., None, None]
    return (bump[:, :, 0, :, None] * bump[:, :, 1, None, :]).amax(dim=1)


def agent_losses(agents: Agents, pairs: Matching, batch: Batch) -> dict[str, Tensor]:
    """Whether agents are found, and what is predicted of those that are."""
    there = torch.zeros_like(agents.logit)
    there[pairs.example, pairs.query] = 1
    count = batch["mask"].sum().clamp(min=1)
    box, wanted = pairs.of_queries(agents.box), pairs.of_targets(batch["box"])
    terms = {"found": focal(agents.logit, there).sum() / count}
    off = (box - wanted[:, :6]).abs()
    for name, part in (("place", off[:, :2]), ("yaw", off[:, 2:4]), ("size", off[:, 4:])):
        terms[name] = part.sum() / count
    velocity = pairs.of_queries(agents.velocity) - pairs.of_targets(batch["velocity"])
    terms["velocity"] = velocity.abs().sum() / count
    if agents.offset is not None:
        offset = pairs.of_queries(agents.offset) - pairs.of_targets(batch["offset"])
        terms["offset"] = mean(offset.abs().sum(dim=-1), pairs.of_targets(batch["offset_mask"]))
    return terms


def motion_losses(futures: Futures, pairs: Matching, batch: Batch) -> dict[str, Tensor]:
    """How far the nearest of the modes is from what came, on average over the times, and which it is."""
    wanted, mask = pairs.of_targets(batch["future"]), pairs.of_targets(batch["future_mask"])
    off = (pairs.of_queries(futures.offsets) - wanted[:, None]).norm(dim=-1)  # (n, m, t)
    off = torch.where(mask[:, None], off, 0).sum(dim=-1) / mask.sum(dim=-1, keepdim=True).clamp(min=1)
    nearest = off.detach().argmin(dim=1)
    known = mask.any(dim=-1)
    likely = F.cross_entropy(pairs.of_queries(futures.logits), nearest, reduction="none")
    return {"motion": mean(off.gather(1, nearest[:, None])[:, 0], known), "mode": mean(likely, known)}


def occupancy_losses(occupancy: Tensor, pairs: Matching, batch: Batch) -> dict[str, Tensor]:
    """Dice, and the cross entropy of the hardest quarter of the cells, of logits (b, 5, q, g, g), at the
    times that were recorded.
    """
    logit = rearrange(occupancy.transpose(1, 2)[pairs.example, pairs.query], "n t x y -> n t (x y)")
    covered = occupancy_target(batch["occupancy"], pairs, occupancy.shape[-1])
    known = recorded_times(batch, occupancy)[pairs.example]  # (n, t)
    discount = DISCOUNT ** torch.arange(logit.shape[1], device=logit.device) * known
    weight = discount / discount.sum(dim=1, keepdim=True) / max(len(logit), 1)
    hit = logit.sigmoid()
    dice = 1 - (2 * (hit * covered).sum(dim=-1) + 1) / (hit.sum(dim=-1) + covered.sum(dim=-1) + 1)
    wrong = F.binary_cross_entropy_with_logits(logit, covered, reduction="none")
    hardest = wrong.topk(wrong.shape[-1] // HARDEST, dim=-1, sorted=False).values.mean(dim=-1)
    return {"occupancy_dice": (weight * dice).sum(), "occupancy": (weight * hardest).sum()}


def recorded_times(batch: Batch, occupancy: Tensor) -> Tensor:
    """Whether (b, 5) it was recorded who covers what in 0, 1, ... 4 s: now, and then where the plan was."""
    now = torch.ones_like(occupancy[:, :1, 0, 0, 0], dtype=torch.bool)
    return torch.cat([now, batch["plan_mask"][:, 1::2]], dim=1)


def occupancy_target(occupancy: Tensor, pairs: Matching, cells: int) -> Tensor:
    """Whether (n, 5, g * g) each pair's target covers any of what lies in a cell, of (b, 5, 64, 64)."""
    fold = occupancy.shape[-1] // cells
    parts = rearrange(occupancy, "b t (x i) (y j) -> b t (i j) (x y)", i=fold, j=fold)
    slot = (pairs.target + 1).to(occupancy.dtype)
    covered = parts[pairs.example] == slot[:, None, None, None]
    return covered.to(torch.uint8).amax(dim=2).to(torch.float32)  # four times as fast as `any`


# --- The map ---


def map_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross entropy and dice of logits (b, 3, g, g)."""
    fold = batch["map"].shape[-1] // logits.shape[-1]
    wanted = reduce(batch["map"], "b k (x i) (y j) -> b k x y", "max", i=fold, j=fold).to(logits.dtype)
    hit = logits.sigmoid()
    both, either = (hit * wanted).sum(dim=(2, 3)), (hit + wanted).sum(dim=(2, 3))
    dice = 1 - (2 * both + 1) / (either + 1)
    return F.binary_cross_entropy_with_logits(logits, wanted) + dice.mean()


def line_losses(lines: Lines, batch: Batch) -> dict[str, Tensor]:
    """What kind lines are, and where, after a matching of their own; a line may run either way."""
    kind, mask = batch["line_kind"].long(), batch["line_kind"] >= 0
    predicted, wanted = (rearrange(x, "b l p two -> b l (p two)") for x in (lines.points, batch["lines"]))
    back = rearrange(batch["lines"].flip(2), "b l p two -> b l (p two)")
    apart = torch.minimum(torch.cdist(predicted, wanted, p=1), torch.cdist(predicted, back, p=1))
    apart = apart / predicted.shape[-1]
    likely = torch.take_along_dim(lines.logits.softmax(dim=-1), kind.clamp(min=0)[:, None], dim=2)
    pairs = match(2 * -likely + 0.5 * apart, mask)
    target = torch.full(predicted.shape[:2], KINDS, device=predicted.device)
    target[pairs.example, pairs.query] = pairs.of_targets(kind)
    off = apart[pairs.example, pairs.query, pairs.target].sum() / mask.sum().clamp(min=1)
    rarely = lines.logits.new_tensor([1.0] * KINDS + [0.2])
    kinds = F.cross_entropy(lines.logits.transpose(1, 2), target, weight=rarely)
    return {"line_kind": kinds, "line_points": off}


# --- The plan ---


def plan_losses(plan: Tensor, choice: Choice | None, batch: Batch) -> dict[str, Tensor]:
    """How far the plan is from the expert's, how it turns against it, what it hits, and where it leaves the
    road; all over the key frames at which the expert was recorded (`plan_mask`).
    """
    wanted, known, terms = batch["plan"], batch["plan_mask"], {}
    driven = plan
    if choice is not None:
        off = (choice.anchors - wanted[:, None])[..., :2].norm(dim=-1)  # (b, v, t)
        nearest = torch.where(known[:, None], off, 0).sum(dim=-1).argmin(dim=1)
        likely = F.cross_entropy(choice.logits, nearest, reduction="none")
        terms["choice"] = mean(likely, known.any(dim=1))
        driven = choice.plans[torch.arange(len(nearest), device=nearest.device), nearest]
    terms["plan"] = mean((driven - wanted)[..., :2].norm(dim=-1), known)
    terms["plan_yaw"] = mean(1 - (driven[..., 2] - wanted[..., 2]).cos(), known)
    terms["collision"] = collision_loss(plan, batch)
    terms["boundary"] = boundary_loss(plan, batch)
    return terms


def collision_loss(plan: Tensor, batch: Batch) -> Tensor:
    """How deep plans (b, t, 3), the ego facing as the plan says, go into where others will be, for three
    sizes of the ego; the mean over plans and times that were recorded.
    """
    deep = torch.stack(
        [
            weight * penetration(plan, batch["size"], batch["future_boxes"], inflation=inflation)
            for inflation, weight in INFLATIONS
        ]
    ).sum(dim=0)
    return mean(torch.where(batch["future_boxes_mask"], deep, 0).sum(dim=-1), batch["plan_mask"])


def penetration(
    plan: Float[Tensor, "b t 3"],
    size: Float[Tensor, "b 2"],
    others: Float[Tensor, "b t n 5"],
    *,
    inflation: float = 0.0,
) -> Float[Tensor, "b t n"]:
    """How deep an ego that is `inflation` metres longer and wider would be in boxes on its way."""
    grown = (size + inflation)[:, None].expand(-1, plan.shape[1], -1)
    ego = torch.cat([plan, grown], dim=-1)
    apart: Tensor = separation(ego[:, :, None], others, xp=torch)
    return -apart.clamp(max=0)


def boundary_loss(plan: Tensor, batch: Batch) -> Tensor:
    """How far the ego's side would stick out of the drivable area; the mean over plans (b, t, 3) and times
    that were recorded.

    Points off the grid count as on its border.
    """
    depth = batch["depth"].float()[:, None]
    low, high = GRID.corner + GRID.size / 2, GRID.corner + SIDE - GRID.size / 2
    at = plan[..., :2].maximum(plan.new_tensor(low)).minimum(plan.new_tensor(high))
    inside = read(depth, at)[..., 0]
    return mean((batch["size"][:, 1:] / 2 - inside).clamp(min=0), batch["plan_mask"])
