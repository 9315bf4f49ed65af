"""The cameras against the pinhole formula, and against what stands before what."""

import dataclasses
import math

import numpy as np
import pytest

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records import presets, scenes
from attnsweep.tasks.driving.records.observer import observer_of
from attnsweep.tasks.driving.records.presets import PRESETS, scene_log
from attnsweep.tasks.driving.records.samples import SAMPLE
from attnsweep.tasks.driving.records.sampling import samples_of
from attnsweep.tasks.driving.world import cameras
from attnsweep.tasks.driving.world.cameras import CAMERAS, Rig, pixels_of, render
from attnsweep.tasks.driving.world.cast import CAR, PEDESTRIAN, draw_cast
from attnsweep.tasks.driving.world.geometry import corners, from_frame
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import draw_map
from attnsweep.tasks.driving.world.roads import DrivableArea
from attnsweep.tasks.driving.world.traffic import World, roll_out

RIG = Rig()
NOTHING = np.zeros((0, 2))
ROAD = DrivableArea(np.array([-500.0, -500.0]), np.full((2000, 2000), 5.0, np.float32))
FOCAL = 56 / math.tan(math.radians(35))


def view(
    boxes: list[list[float]], kind: list[int], *, paint: np.ndarray = NOTHING, turn: float = 0.0
) -> np.ndarray:
    pose = np.array([3.0, -2.0, turn])
    world = np.array(boxes, float).reshape(-1, 5)
    world[:, :2], world[:, 2] = from_frame(world[:, :2], pose), world[:, 2] + turn
    return render(
        pose, world, np.array(kind, int), area=ROAD, paint=from_frame(paint, pose), red=NOTHING, rig=RIG
    )


def coloured(image: np.ndarray, kind: int) -> np.ndarray:
    """The pixels (h, w) of an image (3, h, w) that show an agent of that kind, in any shade."""
    shades = [(np.array(cameras.COLOUR[kind]) * shade).astype(np.uint8) for shade in cameras.SHADE]
    return np.any([(image == one[:, None, None]).all(axis=0) for one in shades], axis=0)


def test_a_point_lies_where_the_pinhole_formula_says() -> None:
    points = np.array([[10.0, 2.0, 0.5], [5.0, 0.0, 1.6], [-8.0, 1.0, 0.0]])
    pixels, depth = pixels_of(points, RIG)
    np.testing.assert_allclose(depth[0], [10, 5, -8])
    np.testing.assert_allclose(pixels[0, 0], [56 - FOCAL * 2 / 10, 32 + FOCAL * 1.1 / 10])
    np.testing.assert_allclose(pixels[0, 1], [56, 32])
    np.testing.assert_allclose(pixels[3, 2], [56 + FOCAL * 1 / 8, 32 + FOCAL * 1.6 / 8])  # the view behind
    np.testing.assert_allclose(depth[3, 2], 8)
    local = np.array([5.0 * math.cos(math.pi / 3), 5.0 * math.sin(math.pi / 3), 1.6])  # ahead left
    np.testing.assert_allclose(pixels_of(local[None], RIG)[0][1, 0], [56, 32], atol=1e-9)


@pytest.mark.parametrize("turn", [0.0, 2.5])
def test_a_box_covers_the_pixels_between_its_corners(turn: float) -> None:
    box = [12.0, 1.5, 0.3, 4.5, 1.8]
    shown = coloured(view([box], [CAR], turn=turn)[0], CAR)
    flat = corners(np.array(box))
    solid = np.concatenate([np.pad(flat, ((0, 0), (0, 1)), constant_values=z) for z in (0.0, 1.5)])
    pixels, _ = pixels_of(solid, RIG)
    rows, columns = np.nonzero(shown)
    assert columns.min() == pytest.approx(pixels[0, :, 0].min(), abs=1) and rows.min() == pytest.approx(
        pixels[0, :, 1].min(), abs=1
    )
    assert columns.max() + 1 == pytest.approx(pixels[0, :, 0].max(), abs=1)
    assert rows.max() + 1 == pytest.approx(pixels[0, :, 1].max(), abs=1)


def test_a_box_hides_what_is_behind_it_and_what_is_tall_looks_over_it() -> None:
    car, person = [8.0, 0.0, 0.0, 4.5, 1.8], [11.0, 0.0, 0.0, 0.6, 0.6]
    assert coloured(view([person], [PEDESTRIAN])[0], PEDESTRIAN).sum() > 10
    both = view([person, car], [PEDESTRIAN, CAR])[0]
    assert (both == view([car, person], [CAR, PEDESTRIAN])[0]).all()  # in whatever order
    rows = np.nonzero(coloured(both, PEDESTRIAN))[0]
    assert rows.size and rows.max() < np.nonzero(coloured(both, CAR))[0].min()  # the head, above the roof
    truck = [8.0, 0.0, 0.0, 8.0, 2.5]
    assert not coloured(view([person, truck], [PEDESTRIAN, CAR])[0], PEDESTRIAN).any()


def test_paint_and_the_edge_of_the_road_lie_where_they_project() -> None:
    line = np.stack([np.arange(4, 30, 0.1), np.full(260, 2.0)], axis=1)
    image = view([], [], paint=line)[0]
    white = (image == np.array(cameras.PAINT)[:, None, None]).all(axis=0)
    for x in (6.0, 9.0, 14.0):
        (u, v), _ = (part[0, 0] for part in pixels_of(np.array([[x, 2.0, 0.0]]), RIG))
        assert white[int(v) - 1 : int(v) + 2, int(u) - 1 : int(u) + 2].any()
    horizon = RIG.height // 2
    sky = (image == np.array(cameras.SKY)[:, None, None]).all(axis=0)
    assert sky[:horizon].all() and not sky[horizon:].any()


@pytest.mark.slow
def test_samples_and_a_running_world_show_the_same_views() -> None:
    preset = PRESETS["driving:full"]
    maps = [draw_map(seed, full=True) for seed in (1002, 1000)]
    casts = [draw_cast(one, preset.crowd, dt=DT) for one in maps]
    log = roll_out(World(maps, casts), 70)
    world = World(maps, casts)
    observer = observer_of(maps, world, RIG)
    seen = {}
    for _ in range(4):
        seen = observer.observe()
        for _ in range(5):
            world.step()
    for b in range(2):
        made = samples_of(scene_log(maps[b], casts[b], log, b), rig=RIG)
        assert set(made) == set(SAMPLE) | set(CAMERAS)
        for name, text in CAMERAS.items():
            shape, dtype = text.partition(":")[0].rsplit(" ", 1)
            assert made[name].dtype == dtype and str(made[name].shape[1:]) == shape, name
            np.testing.assert_array_equal(made[name][0], seen[name][b])
        assert len(np.unique(made["cams"])) > 10


@pytest.mark.slow
def test_a_data_set_has_cameras_when_its_name_says_so() -> None:
    plain, more = presets.find("driving:small"), presets.find("driving:small+cameras")
    assert scenes.identity(plain) != scenes.identity(more) and more.label == "small+cameras"
    tiny = dataclasses.replace(more, seconds=6.0)
    shown = [one for one in presets.record(tiny, [1000, 1002]) if not one.dropped]
    assert shown and all(set(one.samples) == set(SAMPLE) | set(CAMERAS) for one in shown)
    with pytest.raises(UserError, match=r"or one with \+cameras behind"):
        presets.find("driving:small+camera")
