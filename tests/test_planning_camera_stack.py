"""The stack by cameras: where it looks, that examples do not mix, and a trial from start to end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnsweep.core.errors import UserError
from attnsweep.core.trial import Trial
from attnsweep.nn.attention import attention_maps
from attnsweep.space.trials import arch_id_of, identity_of, make_trial
from attnsweep.tasks.driving import training as driving
from attnsweep.tasks.driving.judging import closed_loop
from attnsweep.tasks.driving.records import presets, scenes
from attnsweep.tasks.driving.records.batches import SHAPES, tensors
from attnsweep.tasks.driving.stack.camera_encoder import HEIGHTS, STRIDE, CameraEncoder, places_above
from attnsweep.tasks.driving.stack.design import complete
from attnsweep.tasks.driving.stack.encoder import FINE
from attnsweep.tasks.driving.stack.places import SIDE, centres
from attnsweep.tasks.driving.world.cameras import Rig, pixels_of
from attnsweep.tasks.driving.world.sensor import Grid
from attnsweep.tasks.registry import build, resolve
from attnsweep.training.trial import Options, run

pytestmark = pytest.mark.slow

RIG = Rig()
CELLS = centres(FINE).numpy().astype(float)
SMALL: dict[str, Any] = dict(
    model="planning", sensor="cameras", dim=16, mlp_dim=16, heads=2, epochs=2, batch_size=32, warmup_steps=2
)
TINY = "driving:tiny+cameras"


def encoder(rig: Rig | None = None) -> CameraEncoder:
    torch.manual_seed(0)
    return CameraEncoder(complete({"dim": 16, "heads": 2, "mlp_dim": 16, "sensor": "cameras"}), rig)


def views(batch: int, rig: Rig = RIG) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, rig.count, 3, rig.height, rig.width), generator=generator).byte()


def cell_of(x: float, y: float) -> int:
    index, inside = Grid(FINE, SIDE / FINE).index(np.array([[x, y]]))
    assert inside[0]
    return int(index[0])


# --- Where it looks ---


def test_a_point_is_looked_up_at_the_pixel_that_the_pinhole_formula_gives() -> None:
    at, seen = places_above(CELLS, RIG)
    assert seen.any(axis=1).all() and at.shape == (FINE**2, len(HEIGHTS), 2)
    for x, y in ((21.0, 3.0), (-9.0, 1.0), (7.0, 13.0), (1.0, -25.0)):
        cell = cell_of(x, y)
        np.testing.assert_allclose(CELLS[cell], [x, y])
        for z, height in enumerate(HEIGHTS):
            column, row = (at[cell, z] + 1) / 2 * [RIG.count * RIG.width, RIG.height]
            view = int(column // RIG.width)
            toward = (np.degrees(np.arctan2(y, x)) + 30) % 360 // 60  # 60 degrees to each, from -30 on
            assert view == toward
            pixels, depth = pixels_of(np.array([[x, y, height]]), RIG)
            np.testing.assert_allclose([column - view * RIG.width, row], pixels[view, 0])
            assert depth[view, 0] > 0


def test_a_cell_reads_the_features_of_its_own_pixels() -> None:
    one, at = encoder(), places_above(CELLS, RIG)[0]
    rows, columns = RIG.height // STRIDE[0], RIG.width // STRIDE[1]
    middle = torch.stack(
        torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    ) * torch.tensor(STRIDE).reshape(2, 1, 1)  # of each feature, in pixels down and across
    features = torch.stack([torch.cat([middle, torch.full((1, rows, columns), v)]) for v in range(6)])
    pixel = (at + 1) / 2 * [RIG.count * RIG.width, RIG.height]
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 0.5)):  # as near as the features are
        shown = one.shown(features.to(dtype), 6)[0].numpy()  # (3, n, z)
        np.testing.assert_allclose(shown[2], pixel[..., 0] // RIG.width, atol=1e-3)
        np.testing.assert_allclose(shown[1], pixel[..., 0] % RIG.width, atol=tolerance)
        np.testing.assert_allclose(shown[0], pixel[..., 1], atol=tolerance)


def test_what_changes_in_a_view_changes_the_cells_there_and_no_others() -> None:
    one = encoder().double().eval()
    near: list[Tensor] = []
    one.around.register_forward_hook(lambda module, args, output: near.append(output))
    shown = views(1)
    changed = shown.clone()
    changed[0, 3] = 255 - changed[0, 3]  # the view behind
    one(shown), one(changed)
    moved = ((near[0] - near[1]).abs() > 1e-9).any(dim=2)[:, 0]
    angle = np.abs(np.degrees(np.arctan2(CELLS[:, 1], CELLS[:, 0])))
    assert moved[angle > 150].all() and not moved[angle < 150].any()


def test_cells_that_no_camera_sees_read_nothing_and_give_no_nan() -> None:
    ahead = Rig(count=1)
    _, seen = places_above(CELLS, ahead)
    angle = np.abs(np.degrees(np.arctan2(CELLS[:, 1], CELLS[:, 0])))
    assert seen[angle < 30].any(axis=1).all() and not seen[angle > 36].any()
    assert not seen[cell_of(1.0, 1.0)].any() and not seen[cell_of(3.0, 1.0), 0]  # the road below the bonnet
    one = encoder(ahead)
    with attention_maps(one) as maps:
        features = one(views(2, ahead))
    weights = maps["attention"].reshape(2, FINE**2, 2, len(HEIGHTS))
    assert not weights[:, ~seen.any(axis=1)].any()
    torch.testing.assert_close(
        weights[:, seen.any(axis=1)].sum(dim=3), torch.ones(2, seen.any(axis=1).sum(), 2)
    )
    assert features.tokens.isfinite().all() and features.fine.isfinite().all()
    (features.tokens.square().sum() + features.fine.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in one.parameters())


# --- What the stack makes of it ---


def test_features_have_the_shapes_of_the_scanner_s_and_train_all_that_is_there() -> None:
    one = encoder()
    features = one(views(2))
    assert features.tokens.shape == (2, 256, 16) and features.fine.shape == (2, 8, FINE, FINE)
    weight = torch.randn(features.tokens.shape, generator=torch.Generator().manual_seed(1))
    ((features.tokens * weight).sum() + features.fine.square().sum()).backward()
    assert not [name for name, p in one.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert {"trunk", "deeper"} < {name.partition(".")[0] for name, _ in one.named_parameters()}


def test_a_batch_of_eight_is_eight_batches_of_one() -> None:
    config = resolve({**SMALL, "stages": "id12"})
    torch.manual_seed(0)
    stack = build(config).eval().double()
    inputs = [x.double() if x.is_floating_point() else x for x in driving.example(config, 8)]
    with torch.no_grad():
        whole = stack(*inputs)
        parts = [stack(*(x[i : i + 1] for x in inputs)) for i in range(8)]
    assert whole.plan.std(dim=0).amax() > 1e-6  # the eight are not the same
    for name in ("plan", "heat", "map", "occupancy"):
        together = getattr(whole, name)
        torch.testing.assert_close(together, torch.cat([getattr(one, name) for one in parts]))


def test_parameters_and_macs_are_counted_without_running_it() -> None:
    planned = trial(stages="id10")
    model = build(planned.config)
    assert planned.params == sum(p.numel() for p in model.parameters())
    pixels = RIG.count * RIG.height * RIG.width // (STRIDE[0] * STRIDE[1])
    assert planned.macs > pixels * 9 * (3 * 8 + 8 * 8)  # the first two convolutions alone


# --- As an axis ---


def trial(**point: Any) -> Trial:
    return make_trial(resolve({**SMALL, "dataset": TINY, **point}), Path("nowhere"))


def test_the_sensor_is_an_axis_that_changes_no_id_of_those_who_scan() -> None:
    named, plain = (resolve({"model": "planning", **more}) for more in ({"sensor": "lidar"}, {}))
    assert named == plain and plain["sensor"] == "lidar" and resolve({"model": "stop"})["sensor"] is None
    by_cameras = resolve({"model": "planning", "sensor": "cameras"})
    assert by_cameras["dataset"] == "driving:small+cameras"
    assert arch_id_of(plain) != arch_id_of(by_cameras)
    others = [resolve({"model": model}) for model in ("ego_mlp", "transformer", "vit")]
    assert not any(identity_of(config).get("sensor") for config in (plain, *others))


def test_cameras_need_scenes_that_were_recorded_with_them() -> None:
    with pytest.raises(UserError, match=r"no cameras' views.* use dataset='driving:tiny\+cameras'"):
        resolve({**SMALL, "dataset": "driving:tiny"})
    with pytest.raises(UserError, match="did you mean 'cameras'"):
        resolve({**SMALL, "sensor": "camera"})
    assert resolve({**SMALL, "sensor": "lidar", "dataset": TINY})["dataset"] == TINY  # both were recorded


def test_a_trial_by_cameras_ends_with_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = presets.find(TINY)
    scenes.ensure(preset, tmp_path, processes=1)
    rigs: list[Rig | None] = []
    observer_of = closed_loop.observer_of

    def observed(maps: Any, world: Any, rig: Rig | None) -> Any:
        rigs.append(rig)
        return observer_of(maps, world, rig)

    monkeypatch.setattr(closed_loop, "observer_of", observed)
    *_, event = run(trial(stages="id10"), Options(data_dir=str(tmp_path)))
    row = event["row"]
    assert event["status"] == "done", row.get("error")
    assert 0 <= row["test_score"] <= 1 and 0 <= row["test_score_blank"] <= 1 and row["test_l2_3s"] > 0
    assert rigs == [RIG, RIG, RIG, None]  # two epochs and the test; nothing is rendered for who is blind


def test_the_plan_is_made_of_the_views_alone(tmp_path: Path) -> None:
    recorded = next(one.samples for one in presets.record(presets.find(TINY), [1000]) if not one.dropped)
    batch = tensors(recorded, driving.inputs_of({"sensor": "cameras"}))
    assert batch["cams"].shape[1:] == SHAPES["cams"] and "bev" not in batch
    torch.manual_seed(0)
    stack = build(resolve({**SMALL, "stages": "id10"})).eval()
    plan = driving.policy(stack, {"model": "planning", "sensor": "cameras"})(recorded)
    blank = driving.nothing("cams", len(plan))
    other = driving.policy(stack, {"model": "planning", "sensor": "cameras"})(recorded | blank)
    assert plan.shape == (len(recorded["plan"]), 8, 3) and not np.allclose(plan, other)
