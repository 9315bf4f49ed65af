"""Matching and losses of the planning stack against brute force, closed forms and what must not change."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from attnsweep.tasks.driving.records.batches import offsets, rows, tensors
from attnsweep.tasks.driving.records.presets import Preset, record
from attnsweep.tasks.driving.records.samples import Samples
from attnsweep.tasks.driving.records.scenes import joined
from attnsweep.tasks.driving.stack.losses import (
    WEIGHTS,
    boundary_loss,
    collision_loss,
    heat_target,
    losses,
    occupancy_target,
    penetration,
    total,
)
from attnsweep.tasks.driving.stack.matching import Matching, agent_cost, focal, match
from attnsweep.tasks.driving.stack.places import GRID, centres, read
from attnsweep.tasks.driving.stack.prediction import Agents, Choice, Futures, Lines, Prediction
from attnsweep.tasks.driving.world import geometry
from attnsweep.tasks.driving.world.cast import Crowd

QUERIES = 20


@pytest.fixture(scope="module")
def samples() -> Samples:
    """Two recorded scenes."""
    preset = Preset("tests", 2, 0, 0, 14.0, Crowd(drivers=10), full=False)
    return joined([one.samples for one in record(preset, [1000, 1001, 1002]) if not one.dropped])


@pytest.fixture(scope="module")
def batch(samples: Samples) -> dict[str, Tensor]:
    part = tensors(samples)
    return rows(part, torch.arange(0, len(part["bev"]), 5)[:8])


def perfect(batch: dict[str, Tensor]) -> Prediction:
    """What a stack that knows the labels would say: each agent by the query of its place, the rest denied."""
    sure, b = 40.0, len(batch["plan"])
    mask, box = batch["mask"][:, :QUERIES], batch["box"][:, :QUERIES]
    logit = torch.where(mask, sure, -sure)
    agents = Agents(logit, box[..., :6], batch["velocity"][:, :QUERIES], batch["offset"][:, :QUERIES])
    ways = batch["future"][:, :QUERIES, None] + 50.0 * torch.arange(6)[:, None, None]
    futures = Futures(sure * torch.eye(6)[0].expand(b, QUERIES, 6), ways)
    kind = torch.where(batch["line_kind"] >= 0, batch["line_kind"].long(), 3)
    lines = Lines(sure * torch.nn.functional.one_hot(kind, 4).float(), batch["lines"])
    every = Matching(torch.arange(b).repeat_interleave(QUERIES), *[torch.arange(QUERIES).repeat(b)] * 2)
    covered = occupancy_target(batch["occupancy"], every, 64).view(b, QUERIES, 5, 64, 64).transpose(1, 2)
    return Prediction(
        plan=batch["plan"],
        agents=agents,
        lines=lines,
        futures=futures,
        heat=torch.where(heat_target(batch, 32) == 1, sure, -sure),
        map=torch.where(batch["map"] > 0, sure, -sure),
        occupancy=torch.where(covered > 0, sure, -sure),
    )


# --- Matching ---


def test_the_matching_costs_no_more_than_any_other():
    generator = torch.Generator().manual_seed(0)
    cost = torch.randn(6, 5, 5, generator=generator)
    mask = torch.arange(5) < torch.arange(6)[:, None]
    pairs = match(cost, mask)
    for b, n in enumerate(range(6)):
        mine = pairs.example == b
        least = min(
            sum(float(cost[b, q, t]) for t, q in enumerate(queries))
            for queries in itertools.permutations(range(5), n)
        )
        assert pairs.target[mine].sort().values.tolist() == list(range(n))
        assert len(set(pairs.query[mine].tolist())) == n
        assert float(cost[b, pairs.query[mine], pairs.target[mine]].sum()) == pytest.approx(least, abs=1e-5)


def test_of_more_targets_than_queries_as_many_are_matched_as_there_are_queries():
    pairs = match(torch.rand(1, 2, 4), torch.ones(1, 4, dtype=torch.bool))
    assert sorted(pairs.query.tolist()) == [0, 1] and len(set(pairs.target.tolist())) == 2


def test_the_cost_weighs_confidence_against_metres():
    logit = torch.tensor([[2.0, -2.0]])
    xy = torch.tensor([[[0.0, 0.0], [1.0, 2.0]]])
    cost = agent_cost(logit, xy, torch.zeros(1, 1, 2))
    p = torch.sigmoid(logit)
    found = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
    torch.testing.assert_close(cost[0, :, 0], 2 * found[0] + 0.25 * torch.tensor([0.0, 3.0]))


def test_focal_loss_is_as_it_is_written():
    p = torch.tensor([0.1, 0.7, 0.95])
    logit = p.logit()
    torch.testing.assert_close(focal(logit, torch.ones(3)), -0.25 * (1 - p) ** 2 * p.log())
    torch.testing.assert_close(focal(logit, torch.zeros(3)), -0.75 * p**2 * (1 - p).log())


# --- Boxes ---


def test_separation_is_that_of_the_world():
    rng = np.random.default_rng(1)
    one, other = (rng.uniform([-6, -6, -7, 0.5, 0.3], [6, 6, 7, 8, 3], (500, 5)) for _ in range(2))
    both = geometry.separation(torch.from_numpy(one), torch.from_numpy(other), xp=torch)
    np.testing.assert_allclose(both.numpy(), geometry.separation(one, other), atol=1e-12)


def test_inflation_grows_length_and_width():
    ego, box = torch.zeros(1, 1, 3), torch.tensor([[[[5.0, 0.0, 0.0, 4.0, 2.0]]]])
    deep = [float(penetration(ego, torch.tensor([[4.5, 2.0]]), box, inflation=grown)) for grown in (0, 2.0)]
    assert deep == pytest.approx([0.0, 0.25])


def crossing(dx: float, dy: float, yaw: float) -> tuple[Tensor, dict[str, Tensor]]:
    """A plan of one pose at the origin, and another's box."""
    plan = torch.zeros(1, 8, 3, requires_grad=True)
    boxes = torch.tensor([dx, dy, yaw, 4.5, 2.0]).expand(1, 8, 1, 5)
    mask = torch.ones(1, 8, 1, dtype=torch.bool)
    size, known = torch.tensor([[4.5, 2.0]]), mask[..., 0]
    return plan, {"size": size, "future_boxes": boxes, "future_boxes_mask": mask, "plan_mask": known}


@pytest.mark.parametrize(
    ("dx", "dy", "yaw"), [(4.0, 0.3, 0.0), (2.5, 1.0, 0.8), (-3.0, -1.2, 2.0), (0.4, 1.6, 0.1)]
)
def test_a_collision_pushes_the_plan_away(dx, dy, yaw):
    plan, scene = crossing(dx, dy, yaw)
    loss = collision_loss(plan, scene)
    loss.backward()
    assert loss > 0
    push = torch.nn.functional.normalize(-plan.grad[0, 0, :2], dim=0)
    assert push @ torch.tensor([dx, dy]) < 0
    assert collision_loss(plan + torch.nn.functional.pad(0.2 * push, (0, 1)), scene) < loss


def test_a_plan_that_keeps_clear_or_meets_nobody_costs_nothing():
    plan, scene = crossing(9.0, 0.0, 0.0)
    loss = collision_loss(plan, scene)
    loss.backward()
    assert loss == 0 and not plan.grad.any()
    plan, scene = crossing(0.0, 0.0, 0.0)
    assert collision_loss(plan, scene | {"future_boxes_mask": torch.zeros(1, 8, 1, dtype=torch.bool)}) == 0


def test_the_plans_own_yaw_counts():
    plan, scene = crossing(0.0, 2.4, 0.0)
    straight = collision_loss(plan, scene)
    across = collision_loss(plan + torch.tensor([0.0, 0.0, 1.57]), scene)
    assert across > straight + 1


# --- The border ---


def test_the_border_costs_what_the_side_sticks_out_and_pushes_back():
    y = torch.arange(64) + 0.5 - 32
    depth = (4.0 - y.abs()).expand(1, 64, 64).half()  # a road along x, 8 m wide
    known = torch.ones(1, 8, dtype=torch.bool)
    scene = {"depth": depth, "size": torch.tensor([[4.5, 2.0]]), "plan_mask": known}
    for aside, expected in ((0.0, 0.0), (2.9, 0.0), (3.5, 0.5), (6.0, 3.0)):
        plan = torch.tensor([10.0, aside, 0.0]).expand(1, 8, 3).clone().requires_grad_()
        loss = boundary_loss(plan, scene)
        assert loss.item() == pytest.approx(expected, abs=0.01)
    loss.backward()
    assert (plan.grad[..., 1] > 0).all() and not plan.grad[..., 0].any()


def test_reading_a_map_at_the_middles_of_its_cells_gives_its_cells():
    features = torch.randn(2, 3, 64, 64)
    found = read(features, torch.from_numpy(GRID.centres()).float().flatten(0, 1).expand(2, -1, -1))
    torch.testing.assert_close(found, features.flatten(2).mT, atol=1e-4, rtol=0)
    torch.testing.assert_close(centres(64), torch.from_numpy(GRID.centres()).float().flatten(0, 1))


# --- Perfect predictions, and worse ones ---


@pytest.mark.slow
def test_a_perfect_prediction_costs_next_to_nothing(batch):
    terms = losses(perfect(batch), batch)
    assert set(terms) == set(WEIGHTS) - {"choice"}
    slack = {"collision": 0.2, "boundary": 0.05, "map": 0.05, "occupancy_dice": 0.02}
    for name, term in terms.items():
        assert term < slack.get(name, 1e-4), name


@pytest.mark.parametrize(
    ("change", "terms"),
    [
        (lambda p: {"plan": p.plan + torch.tensor([0.0, 0.5, 0.0])}, {"plan"}),
        (lambda p: {"plan": p.plan + torch.tensor([0.0, 0.0, 0.3])}, {"plan_yaw"}),
        (lambda p: {"heat": -p.heat}, {"heat"}),
        (lambda p: {"map": -p.map}, {"map"}),
        (lambda p: {"occupancy": -p.occupancy}, {"occupancy", "occupancy_dice"}),
        (lambda p: {"futures": Futures(p.futures.logits, p.futures.offsets + 1.0)}, {"motion"}),
        (lambda p: {"futures": Futures(-p.futures.logits, p.futures.offsets)}, {"mode"}),
        (lambda p: {"lines": Lines(-p.lines.logits, p.lines.points + 1.0)}, {"line_kind", "line_points"}),
    ],
)
def test_what_is_wrong_costs_in_its_own_terms(change, terms, batch):
    right = perfect(batch)
    best, worse = (losses(p, batch) for p in (right, Prediction(**(vars(right) | change(right)))))
    for name in terms:
        assert worse[name] > best[name] + 0.01, name
    untouched = set(best) - terms - {"collision", "boundary"}
    assert all(worse[name] == pytest.approx(float(best[name]), abs=1e-5) for name in untouched)


def test_a_plan_that_is_off_by_a_metre_costs_a_metre(batch):
    off = Prediction(plan=batch["plan"] + torch.tensor([0.6, -0.8, 0.0]))
    assert float(losses(off, batch)["plan"]) == pytest.approx(1.0, abs=1e-5)


def test_a_line_may_run_either_way(batch):
    right = perfect(batch)
    back = Lines(right.lines.logits, right.lines.points.flip(2))
    assert losses(Prediction(plan=batch["plan"], lines=back), batch)["line_points"] < 1e-5


def masked(batch: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    """The batch as if of each plan no more than so many steps had been recorded."""
    known = (torch.arange(8) < steps).expand(len(batch["plan"]), -1)
    rest = {"plan": torch.where(known[..., None], batch["plan"], 1e3), "plan_mask": known}
    times = torch.cat([torch.ones(len(known), 1, dtype=torch.bool), known[:, 1::2]], dim=1)
    return batch | rest | {"occupancy": torch.where(times[..., None, None], batch["occupancy"], 1)}


@pytest.mark.parametrize("steps", [0, 3, 8])
def test_what_was_not_recorded_neither_costs_nor_teaches(batch, steps):
    part = masked(batch, steps)
    said = perfect(batch)
    terms = losses(said, part)
    assert float(terms["plan"]) == float(terms["plan_yaw"]) == 0
    assert float(terms["occupancy_dice"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["occupancy"]) == pytest.approx(0, abs=1e-6)
    plan = (batch["plan"] + 1.0).requires_grad_()
    anchors = torch.stack(
        [batch["plan"] + 9.0, torch.where(part["plan_mask"][..., None], batch["plan"], 7e3)], 1
    )
    choice = Choice(torch.zeros(len(plan), 2), torch.stack([plan, plan], 1), anchors)
    found = losses(Prediction(plan=plan, choice=choice), part)
    assert float(found["plan"].detach()) == pytest.approx(2**0.5 if steps else 0)
    assert float(found["choice"].detach()) == pytest.approx(float(np.log(2)) if steps else 0)
    total(found).backward()
    assert not plan.grad[~part["plan_mask"]].any()
    assert plan.grad[part["plan_mask"]].any() == bool(steps)


def test_the_plan_of_the_nearest_anchor_is_the_one_that_learns(batch):
    anchors = batch["plan"][:, None] + torch.tensor([[3.0], [1.0], [5.0]])[..., None]
    plans = anchors[:, [2, 1, 0]].requires_grad_()
    logits = torch.zeros(len(plans), 3, requires_grad=True)
    terms = losses(Prediction(plan=plans[:, 0], choice=Choice(logits, plans, anchors)), batch)
    (terms["plan"] + terms["choice"]).backward()
    assert terms["plan"].item() == pytest.approx(2**0.5, abs=1e-5)
    assert plans.grad[:, 1].any() and not plans.grad[:, [0, 2]].any()
    assert (logits.grad[:, 1] < 0).all() and (logits.grad[:, [0, 2]] > 0).all()


def test_the_order_of_queries_and_of_places_does_not_matter(batch):
    right = perfect(batch)
    order = torch.randperm(QUERIES, generator=torch.Generator().manual_seed(0))
    agents = Agents(
        *(x[:, order] + 0.3 for x in (right.agents.logit, right.agents.box, right.agents.velocity)),
        right.agents.offset[:, order] + 0.3,
    )
    plain = Agents(*(getattr(right.agents, k) + 0.3 for k in ("logit", "box", "velocity", "offset")))
    one, other = (losses(Prediction(plan=batch["plan"], agents=a), batch) for a in (agents, plain))
    for name, term in one.items():
        torch.testing.assert_close(term, other[name])


def test_a_batch_without_agents_or_lines_has_losses_and_gradients(batch):
    empty = {k: torch.zeros_like(v) for k, v in batch.items()} | {
        "line_kind": torch.full_like(batch["line_kind"], -1),
        "size": batch["size"],
    }
    right = perfect(batch)
    logit = right.agents.logit.clone().requires_grad_()
    agents = Agents(logit, right.agents.box, right.agents.velocity, right.agents.offset)
    loss = total(losses(Prediction(**(vars(right) | {"agents": agents})), empty))
    loss.backward()
    assert loss.isfinite() and logit.grad.isfinite().all() and logit.grad.any()


def test_a_cell_of_a_coarser_grid_is_covered_where_any_of_its_parts_is(batch):
    pairs = match(torch.zeros(8, QUERIES, 24), batch["mask"])
    fine, coarse = (occupancy_target(batch["occupancy"], pairs, cells) for cells in (64, 32))
    k = int(fine.sum(dim=(1, 2)).argmax())
    b, target = pairs.example[k], pairs.target[k]
    mine = (batch["occupancy"][b] == target + 1).float()
    torch.testing.assert_close(fine[k].view(5, 64, 64), mine)
    torch.testing.assert_close(coarse[k].view(5, 32, 32), torch.nn.functional.max_pool2d(mine, 2))


# --- Batches ---


def test_offsets_lead_back_to_where_agents_were(samples):
    found = offsets(samples)
    checked = 0
    for row in range(len(samples["bev"])):
        before = samples["previous"][row]
        for slot in np.flatnonzero(samples["mask"][row]):
            was = np.flatnonzero(samples["id"][before] == samples["id"][row, slot])
            known = before >= 0 and len(was) == 1
            assert found["offset_mask"][row, slot] == known
            if not known:
                assert not found["offset"][row, slot].any()
                continue
            world = geometry.from_frame(
                samples["box"][before, was, :2].astype(float), samples["pose"][before]
            )
            here = geometry.to_frame(world, samples["pose"][row])
            offset = here[0] - samples["box"][row, slot, :2]
            np.testing.assert_allclose(found["offset"][row, slot], offset, atol=1e-3)
            checked += 1
    assert checked > 50
