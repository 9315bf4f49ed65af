"""The planning stack: what its stages are, what goes where, and that examples do not mix."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records.batches import tensors
from attnsweep.tasks.driving.records.presets import Preset, record
from attnsweep.tasks.driving.records.scenes import joined
from attnsweep.tasks.driving.stack.design import ALL, CHOICES, DEFAULTS, STAGES, complete
from attnsweep.tasks.driving.stack.losses import losses, penetration, total
from attnsweep.tasks.driving.stack.prediction import Prediction
from attnsweep.tasks.driving.stack.refine import descended
from attnsweep.tasks.driving.stack.route import at, curve, project
from attnsweep.tasks.driving.stack.stack import Stack
from attnsweep.tasks.driving.world.cast import Crowd

pytestmark = pytest.mark.slow

SMALL = {"dim": 16, "heads": 2, "mlp_dim": 16, "depth": 1}
INPUTS = ("bev", "route", "command", "ego_state")


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    """Eight examples out of two recorded scenes."""
    preset = Preset("tests", 2, 0, 0, 14.0, Crowd(drivers=10), full=False)
    recorded = [one.samples for one in record(preset, [1000, 1001, 1002]) if not one.dropped]
    part = tensors(joined(recorded))
    return {name: array[:: len(part["bev"]) // 8][:8] for name, array in part.items()}


def built(seed: int = 0, **config: object) -> Stack:
    torch.manual_seed(seed)
    return Stack(SMALL | config)


def said(stack: Stack, batch: dict[str, Tensor]) -> Prediction:
    return stack(*(batch[name] for name in INPUTS))


def in_float64(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of a stack in float64, in which rounding decides between no two boxes, plans or cells."""
    return {k: batch[k].double() if batch[k].is_floating_point() else batch[k] for k in INPUTS}


def flat(part: object) -> list[Tensor]:
    """All tensors of a prediction or of a part of one."""
    if isinstance(part, Tensor):
        return [part]
    if dataclasses.is_dataclass(part):
        return [x for field in dataclasses.fields(part) for x in flat(getattr(part, field.name))]
    return []


def trained(stack: Stack, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of the total loss in every parameter."""
    stack.zero_grad()
    total(losses(said(stack, batch), batch)).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in stack.named_parameters()
    }


def modules(stack: Stack) -> set[str]:
    return {name.partition(".")[0] for name, _ in stack.named_parameters()}


# --- Shapes ---


def test_the_whole_stack_answers_in_the_shapes_of_the_contract(batch):
    prediction = said(built(), batch)
    assert prediction.plan.shape == (8, 8, 3)
    assert prediction.agents.box.shape == (8, 20, 6)
    assert prediction.agents.offset.shape == prediction.agents.velocity.shape == (8, 20, 2)
    assert prediction.lines.logits.shape == (8, 32, 4) and prediction.lines.points.shape == (8, 32, 10, 2)
    assert prediction.futures.logits.shape == (8, 20, 6)
    assert prediction.futures.offsets.shape == (8, 20, 6, 8, 2)
    assert prediction.heat.shape == (8, 32, 32) and prediction.map.shape == (8, 3, 32, 32)
    assert prediction.occupancy.shape == (8, 5, 20, 32, 32)


@pytest.mark.parametrize("stages", STAGES)
def test_every_stage_set_runs_and_trains_all_that_it_has(stages, batch):
    stack = built(stages=stages)
    prediction = said(stack, batch)
    assert prediction.planned == (STAGES[stages]["plan"] == "on")
    assert all(x.isfinite().all() for x in flat(prediction)) == prediction.planned
    idle = [name for name, gradient in trained(stack, batch).items() if not gradient.abs().sum() > 0]
    assert not idle


@pytest.mark.parametrize(
    "config",
    [
        {"query_init": "learned"},
        {"plan_head": "xy"},
        {"plan_head": "xy", "nav": "target"},
        {"plan_head": "xy", "nav": "command"},
        {"plan_head": "anchors"},
        {"ego_state": "dropout"},
        {"depth": 2},
        {"bev_attention": "global", "depth": 2},
        {"grad_stop": "bev"},
        {"attention": "explicit"},
        {"depth": 3, "dropout": 0.1},
        {"track": "det", "lines": "vector", "motion": "none", "occ": "head"},
        {"lines": "dense"},
        {"stages": "id10", "plan_bev": "off"},
        {"stages": "id10", "plan_head": "xy", "nav": "command"},
        {"stages": "id2", "lines": "vector"},
    ],
    ids=lambda config: "-".join(map(str, config.values())),
)
def test_every_axis_trains_all_that_it_has(config, batch):
    stack = built(**config)
    idle = [name for name, gradient in trained(stack, batch).items() if not gradient.abs().sum() > 0]
    assert not idle


# --- Which parts there are ---


def test_a_stage_set_has_the_modules_that_it_names():
    every = {"encoder", "track", "dense_map", "lines", "motion", "occupancy", "planner"}
    assert modules(built(stages="id12")) == modules(built(stages="id0")) == every
    assert modules(built(stages="id9")) == every - {"planner"}
    assert modules(built(stages="id11")) == every - {"occupancy"}
    assert modules(built(stages="id10")) == {"encoder", "planner"}
    assert modules(built(stages="id4")) == {"encoder", "track", "motion"}
    assert modules(built(stages="id2")) == {"encoder", "dense_map", "lines"}


@pytest.mark.parametrize(
    "toggle", ["agent_agent", "agent_map", "agent_goal", "plan_agents", "plan_map", "plan_motion", "plan_bev"]
)
def test_a_link_that_is_off_takes_its_parameters_along_and_no_others(toggle):
    there, gone = (
        {name: p.shape for name, p in built(**{toggle: value}).named_parameters()} for value in ("on", "off")
    )
    marks = ("goal", "fuse") if toggle == "agent_goal" else (toggle, "fuse", "to_near")
    changed = {name for name in there if there[name] != gone.get(name)}
    assert set(gone) < set(there)
    assert all(any(mark in name for mark in marks) for name in changed)


def test_without_tracking_there_is_no_offset_and_ego_state_adds_its_layers_alone():
    batch_free = {name for name, _ in built(ego_state="full").named_parameters()}
    plain = {name for name, _ in built().named_parameters()}
    assert {name.split(".")[1] for name in batch_free - plain} == {"to_state"}
    assert built(track="det").track.to_agent.out_features == built().track.to_agent.out_features - 2


# --- What makes sense ---


def test_every_stage_set_is_complete_and_stays_as_it_is():
    for stages, toggles in STAGES.items():
        config = complete({"stages": stages})
        assert {key: config[key] for key in ALL} == toggles, stages
        assert set(config) == set(CHOICES) | set(DEFAULTS)
        assert complete(config) == config


def test_a_named_toggle_overrides_the_set_and_takes_what_hangs_on_it_along():
    config = complete({"stages": "id12", "lines": "none", "post": None})
    assert config["lines"] == "none" and config["agent_map"] == config["plan_map"] == "off"
    assert config["agent_agent"] == "on" and config["post"] == "none"
    parallel = complete({"stages": "id12", "topology": "parallel"})
    assert {key: parallel[key] for key in ALL} == STAGES["id13"]


def test_the_axes_are_known_without_torch():
    code = "import sys, attnsweep.tasks.driving.stack.design; print({'torch', 'ray'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"track": "none", "motion": "former"}, ("motion='former'", "track='none'", "track='offset'")),
        ({"lines": "dense", "agent_map": "on"}, ("agent_map='on'", "lines='dense'", "lines='both'")),
        ({"motion": "none", "plan_motion": "on"}, ("plan_motion='on'", "motion='none'")),
        ({"stages": "id10", "occ": "former"}, ("occ='former'", "track='none'")),
        ({"stages": "id9", "post": "gradient"}, ("post='gradient'", "plan='off'")),
        ({"stages": "id9", "plan_bev": "on"}, ("plan_bev='on'", "plan='off'")),
        ({"topology": "parallel", "plan_map": "on"}, ("topology='parallel'", "plan_map='off'")),
        ({"topology": "parallel", "occ": "former"}, ("topology='parallel'", "occ='head'")),
        ({"nav": "command"}, ("plan_head='frenet'", "nav='command'", "plan_head='xy'")),
        ({"stages": "id10", "grad_stop": "bev"}, ("grad_stop='bev'", "track='offset'")),
        ({"track": "none", "lines": "none", "plan": "off"}, ("nothing to learn", "plan='on'")),
        ({"stages": "id21"}, ("stages='id21'", "did you mean")),
        ({"occ": "formr"}, ("occ='formr'", "did you mean 'former'")),
        ({"dim": 1}, ("dim=1 is too small", "use 2 or more")),
    ],
)
def test_toggles_that_make_no_sense_are_refused_with_a_way_out(config, words):
    with pytest.raises(UserError) as error:
        complete(config)
    assert all(word in str(error.value) for word in words), error.value


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(UserError, match="heads=3 does not divide dim=16"):
        built(heads=3)


# --- Who sees what ---


@pytest.mark.parametrize("config", [{}, {"post": "gradient"}, {"plan_head": "anchors"}])
def test_a_batch_of_eight_is_eight_batches_of_one(config, batch):
    stack, seen = built(**config).eval().double(), in_float64(batch)
    with torch.no_grad():
        together = flat(said(stack, seen))
        apart = [flat(said(stack, {k: v[i : i + 1] for k, v in seen.items()})) for i in range(8)]
    for whole, parts in zip(together, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), atol=1e-9, rtol=1e-9)


def test_the_labels_are_not_among_what_is_read(batch):
    stack = built(ego_state="full").eval()
    scrambled = {k: v if k in INPUTS else torch.zeros_like(v) for k, v in batch.items()}
    assert all(
        torch.equal(a, b) for a, b in zip(flat(said(stack, batch)), flat(said(stack, scrambled)), strict=True)
    )


@pytest.mark.parametrize(
    ("config", "reads"),
    [
        ({}, {"bev", "route"}),
        ({"ego_state": "full"}, {"bev", "route", "ego_state"}),
        ({"plan_head": "xy", "nav": "command"}, {"bev", "command"}),
        ({"plan_head": "xy", "nav": "target"}, {"bev", "route"}),
    ],
)
def test_the_plan_depends_on_what_it_is_configured_to_know_and_on_nothing_else(config, reads, batch):
    stack = built(**config).eval()
    plan = said(stack, batch).plan
    for name in INPUTS:
        other = batch | {name: batch[name].flip(0) if name != "command" else (batch[name] + 1) % 3}
        assert torch.equal(said(stack, other).plan, plan) == (name not in reads), name


def test_a_target_is_one_point_of_the_route(batch):
    stack = built(plan_head="xy", nav="target").eval()
    route = batch["route"] + torch.arange(12)[:, None].ne(7)
    assert torch.equal(said(stack, batch | {"route": route}).plan, said(stack, batch).plan)


def test_explicit_and_fused_attention_agree(batch):
    fused, explicit = (built(attention=kernel).eval().double() for kernel in ("fused", "explicit"))
    seen = in_float64(batch)
    for one, other in zip(flat(said(fused, seen)), flat(said(explicit, seen)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_windows_keep_apart_what_is_far_apart(batch):
    encoder = built(bev_attention="window").encoder
    (block,) = encoder.double().above.blocks
    tokens = torch.randn(1, 256, 16, dtype=torch.float64)
    other = tokens.clone()
    other[0, 0, 0] += 1
    moved = ((block(tokens) - block(other)).abs() > 1e-9).any(dim=-1)[0].view(16, 16)
    assert moved[:8, :8].all() and not moved[8:].any() and not moved[:, 8:].any()


def test_a_cell_attends_to_the_agents_that_seem_to_cover_it_or_to_all():
    stack = built()
    cells = torch.full((1, 64, 16, 8), -1.0)  # 16 parts of 8 channels
    cells[0, 3, 5] = 9.0
    agents = torch.zeros(1, 20, 8)
    agents[0, 7] = 1.0
    mask = stack.occupancy.covered(cells.flatten(2), agents)
    assert mask[0, 3].nonzero().flatten().tolist() == [7]
    assert mask[0, :3].all() and mask[0, 4:].all()


# --- Where gradients go ---


def plan_gradients(stack: Stack, batch: dict[str, Tensor]) -> set[str]:
    """The modules that the plan's loss alone trains."""
    stack.zero_grad()
    said(stack, batch).plan.sum().backward()
    return {
        name.partition(".")[0]
        for name, p in stack.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }


def test_a_gradient_stop_keeps_the_plan_from_what_is_perceived(batch):
    assert plan_gradients(built(), batch) == {"encoder", "track", "lines", "motion", "planner"}
    assert plan_gradients(built(grad_stop="bev"), batch) == {"planner"}


# --- The route ---


def circle(radius: float = 20.0) -> Tensor:
    angle = 4.0 / radius * torch.arange(1, 13)
    return radius * torch.stack([angle.sin(), 1 - angle.cos()], dim=-1)[None]


def test_the_curve_runs_along_the_circle_that_its_knots_lie_on():
    s = torch.linspace(0.1, 43.0, 200)[None]
    point, tangent = at(curve(circle()), s)
    centre = torch.tensor([0.0, 20.0])
    torch.testing.assert_close((point - centre).norm(dim=-1), torch.full((1, 200), 20.0), atol=0.01, rtol=0)
    across = ((point - centre) / 20 * tangent).sum(dim=-1)
    assert across.abs().max() < 0.02


def test_past_a_route_that_ends_the_curve_goes_straight_on():
    route = torch.stack([4.0 * torch.arange(1, 13), torch.zeros(12)], dim=-1)[None]
    ended = torch.minimum(route, torch.tensor(18.0))
    point, tangent = at(curve(ended), torch.tensor([[10.0, 18.0, 30.0]]))
    torch.testing.assert_close(point, torch.tensor([[[10.0, 0], [18.0, 0], [30.0, 0]]]))
    torch.testing.assert_close(tangent, torch.tensor([[[1.0, 0]] * 3]))


def test_projection_finds_arc_length_and_side():
    route = torch.stack([4.0 * torch.arange(1, 13), torch.zeros(12)], dim=-1)[None]
    points = torch.tensor([[[6.0, 1.5], [30.5, -2.0], [-5.0, 3.0]]])
    torch.testing.assert_close(project(curve(route), points), points)


def test_a_frenet_plan_never_goes_back_and_faces_along_the_route(batch):
    for seed in range(4):
        stack = built(seed=seed).eval()
        plan = said(stack, batch | {"route": circle().expand(8, -1, -1)}).plan
        angle = torch.atan2(plan[..., 0], 20 - plan[..., 1])
        assert (angle.diff(dim=1, prepend=torch.zeros(8, 1)) > -1e-3).all()
        on_circle = plan[..., :2].norm(dim=-1) < 40
        assert ((plan[..., 2] - angle)[on_circle & (angle < 2.2)].abs() < 0.05).all()


# --- Mending ---


def test_mending_stops_a_plan_short_of_a_box_in_its_way_and_leaves_a_free_one_alone():
    plan = torch.stack([torch.stack([4.0 * torch.arange(1, 9), torch.zeros(8), torch.zeros(8)], dim=-1)] * 2)
    box = torch.tensor([34.0, 0.3, 0.0, 4.5, 2.0]).expand(2, 8, 1, 5).clone()
    box[1, ..., 1] = 30.0
    weight = torch.ones(2, 1, 1)
    with torch.inference_mode():
        mended = descended(plan, box, weight)
    size = torch.tensor([[4.5, 2.0]])
    before, after = (penetration(one[:1], size, box[:1]).sum() for one in (plan, mended))
    assert after < 0.2 * before
    torch.testing.assert_close(mended[1], plan[1])


def test_a_plan_is_mended_when_judged_and_not_in_training(batch):
    plain, mending = built(), built(post="gradient")
    assert torch.equal(said(plain, batch).plan, said(mending, batch).plan)
    crowded = {k: v.clone() for k, v in mending.state_dict().items()}
    crowded["track.to_agent.bias"][0] = 9.0  # an agent at every query
    mending.load_state_dict(crowded)
    raw = said(mending, batch).plan
    assert not torch.equal(said(mending.eval(), batch).plan, raw)


def test_where_nothing_plans_the_plan_is_not_a_number(batch):
    prediction = said(built(stages="id9"), batch)
    assert not prediction.planned and prediction.plan.shape == (8, 8, 3) and prediction.plan.isnan().all()
