"""The sensor against closed forms, samples against the log that they come from, and recorded sets on disk."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records import presets, scenes
from attnsweep.tasks.driving.records.observer import observer_of
from attnsweep.tasks.driving.records.samples import BOUNDARY, LEFT, SAMPLE, SWEEPS, SceneLog
from attnsweep.tasks.driving.records.sampling import samples_of
from attnsweep.tasks.driving.world.cast import Crowd, draw_cast
from attnsweep.tasks.driving.world.geometry import corners, from_frame, overlap
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import draw_map
from attnsweep.tasks.driving.world.roads import DrivableArea
from attnsweep.tasks.driving.world.sensor import Grid, Scanner, cast_rays, ray_angles, scan
from attnsweep.tasks.driving.world.traffic import World

pytestmark = pytest.mark.slow

NOWHERE = np.zeros((0, 2))
PERFECT = Scanner(noise=0.0, lost=0.0, ghosts=0.0, paint_lost=0.0)
TINY = presets.Preset("driving:tiny", 3, 1, 2, 8.0, Crowd(12, 3, 4), full=True)


@pytest.fixture(scope="module")
def recorded() -> list[scenes.Recording]:
    return presets.record(presets.PRESETS["driving:full"], [1000, 1002, 1004, 1006])


# --- The sensor ---


def brute_force_range(pose: np.ndarray, angle: float, box: np.ndarray) -> float:
    """Where a ray first crosses one of a box's sides, by solving for each side."""
    way = np.array([math.cos(pose[2] + angle), math.sin(pose[2] + angle)])
    nearest = math.inf
    edges = corners(box)
    for a, b in zip(edges, np.roll(edges, -1, axis=0), strict=True):
        matrix = np.stack([way, a - b], axis=1)
        if abs(np.linalg.det(matrix)) > 1e-12:
            r, share = np.linalg.solve(matrix, a - pose[:2])
            nearest = min(nearest, r) if r > 0 and 0 <= share <= 1 else nearest
    return nearest


def test_rays_end_where_they_first_cross_a_side() -> None:
    rng = np.random.default_rng(0)
    scanner = Scanner(rays=90, reach=40.0)
    pose = np.array([[1.0, -2.0, 0.7]])
    boxes = rng.uniform([6, 6, -3, 3, 1], [20, 20, 3, 6, 3], (1, 8, 5))
    boxes[..., :2] *= rng.choice([-1, 1], (1, 8, 2))
    sweep = cast_rays(pose, boxes, np.ones((1, 8), bool), scanner)
    for r, angle in enumerate(ray_angles(scanner)):
        ranges = [brute_force_range(pose[0], angle, box) for box in boxes[0]]
        assert sweep.ranges[0, r] == pytest.approx(min(ranges), abs=1e-9)
        assert sweep.agent[0, r] == (np.argmin(ranges) if np.isfinite(min(ranges)) else -1)


def test_what_stands_behind_another_is_hidden_and_so_is_its_paint() -> None:
    wall, car = [10.0, 0, 0, 1, 20], [20.0, 0, 0, 4, 2]
    paint = np.array([[8.0, 0], [15, 0], [0, 8.0]])
    boxes = np.array([[wall, car]])
    seen = scan(
        np.zeros((1, 3)), boxes, np.ones((1, 2), bool), paint=[paint], seeds=[(0, 0)], scanner=PERFECT
    )[0]
    assert seen.hits[0] > 100 and seen.hits[1] == 0
    np.testing.assert_array_equal(seen.paint, paint[[0, 2]])
    np.testing.assert_allclose(seen.points[:, 0], 9.5)
    alone = scan(
        np.zeros((1, 3)), boxes[:, 1:], np.ones((1, 1), bool), paint=[paint], seeds=[(0, 0)], scanner=PERFECT
    )[0]
    assert alone.hits[0] > 10 and len(alone.paint) == 3


def test_noise_and_losses_are_as_large_as_stated() -> None:
    scanner = Scanner(noise=0.2, lost=0.3, ghosts=0.0)
    ring = np.array([[[30.0, 0, 0, 1, 200]]])
    scans = [
        scan(np.zeros((1, 3)), ring, np.ones((1, 1), bool), paint=[NOWHERE], seeds=[(0, k)], scanner=scanner)
        for k in range(40)
    ]
    kept = sum(len(one[0].points) for one in scans) / sum(one[0].hits[0] for one in scans)
    assert kept == pytest.approx(0.7, abs=0.02)
    points = np.concatenate([one[0].points for one in scans])
    error = (points[:, 0] - 29.5) * np.hypot(*points.T) / points[:, 0]  # along the ray
    assert error.std() == pytest.approx(0.2, rel=0.05)


def test_cells_of_the_grid_lie_where_their_middles_do() -> None:
    grid = Grid(cells=64, size=1.0, back=-16.0)
    index, inside = grid.index(grid.centres())
    assert inside.all()
    np.testing.assert_array_equal(index.ravel(), np.arange(64**2))
    assert not grid.index(np.array([[-16.1, 0], [48.1, 0], [0, 32.1], [0, -32.1]]))[1].any()


# --- Samples ---


def straight_scene(*, turn: float = 0.0, x: float = 0.0) -> SceneLog:
    """The ego drives 10 m/s behind another who does 12, on a straight road that lies `turn` to the x axis."""
    t = np.arange(0, 8 + 1e-9, 0.1)
    frame = np.array([x, 3.0, turn])
    state = np.zeros((len(t), 2, 5))
    for agent, (start, speed) in enumerate(((0.0, 10.0), (15.0, 12.0))):
        state[:, agent, :2] = from_frame(np.stack([start + speed * t, 0 * t], axis=1), frame)
        state[:, agent, 2] = turn
        state[:, agent, 3:] = speed * np.array([math.cos(turn), math.sin(turn)])
    route = from_frame(np.stack([np.arange(-20, 200.0), np.zeros(220)], axis=1), frame)
    return SceneLog(
        number=5, dt=0.1, kind=np.zeros(2, int), size=np.full((2, 2), [4.5, 1.8]), state=state,
        valid=np.ones((len(t), 2), bool),
        drivable=DrivableArea(np.zeros(2), np.full((4, 4), -3.0, np.float32)),
        centres=(route,), dividers=(), paint=NOWHERE, route=route, stop_lines=(),
        red=np.zeros((len(t), 0), bool), yields=np.zeros(len(t), bool),
    )  # fmt: skip


def test_a_sample_tells_what_was_driven() -> None:
    made = samples_of(straight_scene(turn=0.8), scanner=PERFECT)
    assert len(made["bev"]) == 17 - SWEEPS + 1 - 8  # key frames 3 to 8 of 17
    half_seconds = np.arange(1, 9) / 2
    for row in range(len(made["plan"])):
        t = made["time"][row]
        np.testing.assert_allclose(made["plan"][row, :, 0], 10 * half_seconds, atol=1e-4)
        np.testing.assert_allclose(made["plan"][row, :, 1:], 0, atol=1e-5)
        np.testing.assert_allclose(made["box"][row, 0], [15 + 2 * t, 0, 1, 0, 4.5, 1.8, 0], atol=1e-4)
        np.testing.assert_allclose(made["velocity"][row, 0], [12, 0], atol=1e-5)
        np.testing.assert_allclose(made["future"][row, 0, :, 0], 12 * half_seconds, atol=1e-4)
        np.testing.assert_allclose(made["motion"][row], [-5, 0, 0], atol=1e-5)
        np.testing.assert_allclose(made["route"][row, :, 0], 4 * np.arange(1, 13), atol=1e-4)
        np.testing.assert_allclose(made["ego_state"][row], [10, 0, 0, 0, 0], atol=1e-4)
        boxes = made["future_boxes"][row, :, 0]
        np.testing.assert_allclose(boxes[:, 0], 15 + 2 * t + 12 * half_seconds, atol=1e-4)
    assert made["mask"].sum(axis=1).tolist() == [1] * len(made["mask"])
    assert made["id"][:, 0].tolist() == [1] * len(made["id"])
    assert not made["is_hard"].any() and not made["is_turn"].any()


def test_returns_of_past_sweeps_are_aligned_by_the_egos_motion() -> None:
    made = samples_of(straight_scene(turn=-0.4), scanner=PERFECT)
    t, layers = made["time"][0], made["bev"][0]
    for age in range(SWEEPS):
        rows, columns = np.nonzero(layers[SWEEPS - 1 - age])
        rear = 15 + 2 * t - 12 * 0.5 * age - 4.5 / 2  # where the other's rear was then, in the frame of now
        assert rows.min() == math.floor(rear + 16)
        assert set(columns) <= {31, 32}


@pytest.mark.parametrize("turn", [0.5, 2.0, -3.0])
def test_samples_do_not_change_when_the_world_is_turned(turn: float) -> None:
    one, other = (samples_of(straight_scene(turn=a, x=x), scanner=PERFECT) for a, x in ((0, 0), (turn, 70)))
    for name in ("plan", "box", "velocity", "future", "motion", "route", "future_boxes"):
        np.testing.assert_allclose(one[name], other[name], atol=1e-4, err_msg=name)


def test_samples_are_as_documented(recorded: list[scenes.Recording]) -> None:
    for recording in recorded:
        assert not recording.dropped
        assert set(recording.samples) == set(SAMPLE)
        for name, array in recording.samples.items():
            shape, _, dtype = SAMPLE[name].partition(":")[0].rpartition(" ")
            expected = tuple(int(n) for n in shape.strip("() ").split(",") if n.strip())
            assert array.dtype == dtype and array.shape[1:] == expected, name
            assert np.isfinite(array.astype(float)).all(), name


def test_the_expert_collides_with_nothing_and_stays_on_the_road(recorded: list[scenes.Recording]) -> None:
    for recording in recorded:
        made = recording.samples
        size = np.broadcast_to(made["size"][:, None], (*made["plan"].shape[:2], 2))
        ego = np.concatenate([made["plan"], size], axis=-1).astype(float)
        hit = overlap(ego[:, :, None], made["future_boxes"].astype(float)) & made["future_boxes_mask"]
        assert not hit.any()
        x, y = np.floor(made["plan"][..., :2] - Grid().corner).astype(int).transpose(2, 0, 1)
        inside = (x < 64) & (y >= 0) & (y < 64)
        rows = np.broadcast_to(np.arange(len(x))[:, None], x.shape)
        assert (made["depth"][rows[inside], x[inside], y[inside]] > 0.5).all()


def test_hidden_agents_are_not_asked_for(recorded: list[scenes.Recording]) -> None:
    shown = sum(int(one.samples["mask"].sum()) for one in recorded)
    there = 0
    for one in recorded:
        now = one.samples["future_boxes"][:, 0]  # half a second on: near enough to count
        inside = Grid().index(now[..., :2].astype(float))[1] & one.samples["future_boxes_mask"][:, 0]
        there += int(inside.sum())
    assert 0.5 < shown / there < 0.99
    for one in recorded:
        assert (one.samples["id"][one.samples["mask"]] > 0).all()
        assert (one.samples["box"][~one.samples["mask"]] == 0).all()


def test_occupancy_covers_each_agents_box(recorded: list[scenes.Recording]) -> None:
    made = recorded[0].samples
    centres = Grid().centres()
    for row in range(0, len(made["box"]), 7):
        box = made["box"][row].astype(float)
        for place in np.flatnonzero(made["mask"][row]):
            x, y, cos, sin, length, width, _ = box[place]
            along = (centres[..., 0] - x) * cos + (centres[..., 1] - y) * sin
            across = (centres[..., 1] - y) * cos - (centres[..., 0] - x) * sin
            expected = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)
            np.testing.assert_array_equal(made["occupancy"][row, 0] == place + 1, expected)


def test_border_lines_lie_on_the_border(recorded: list[scenes.Recording]) -> None:
    made = recorded[1].samples
    lines = made["lines"][made["line_kind"] == BOUNDARY].astype(float)
    rows = np.nonzero(made["line_kind"] == BOUNDARY)[0]
    cell = np.clip(np.floor(lines - Grid().corner).astype(int), 0, 63)
    depth = made["depth"][rows[:, None], cell[..., 0], cell[..., 1]]
    assert len(lines) > 10
    assert np.abs(depth).mean() < 0.5  # m; a cell's middle is up to 0.7 m off


def test_the_command_comes_from_the_route() -> None:
    bent = straight_scene()
    angle = np.linspace(0, 2.5, 90)
    arc = 30 * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1) + [40, 3]
    way = np.concatenate([[[-20, 3.0]], arc])  # turns left after 40 m
    left = samples_of(dataclasses.replace(bent, route=way), scanner=PERFECT)
    assert (left["command"] == LEFT).all()
    assert (left["plan"] == samples_of(bent, scanner=PERFECT)["plan"]).all()  # though it drives straight on


def test_a_running_world_is_sensed_as_it_is_recorded(recorded: list[scenes.Recording]) -> None:
    preset = presets.PRESETS["driving:full"]
    seeds = [1004, 1000]
    maps = [draw_map(seed, full=True) for seed in seeds]
    world = World(maps, [draw_cast(one, preset.crowd, dt=DT) for one in maps])
    observer = observer_of(maps, world)
    by_seed = {one.seed: one.samples for one in recorded}
    for key in range(8):
        seen = observer.observe()
        for name, array in seen.items():
            for b, seed in enumerate(seeds):
                np.testing.assert_array_equal(array[b], by_seed[seed][name][key - SWEEPS + 1])
        for _ in range(5):
            world.step()


# --- Recorded sets ---


def bytes_of(recording: scenes.Recording) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in recording.samples.items()}


def test_a_scene_is_the_same_in_any_batch_and_order() -> None:
    together = {one.seed: bytes_of(one) for one in presets.record(TINY, [1002, 1000, 1001])}
    for seed in (1000, 1001, 1002):
        assert bytes_of(presets.record(TINY, [seed])[0]) == together[seed]


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    told: list[tuple[int, int]] = []
    scenes.ensure(TINY, data_dir, processes=1, on_scene=lambda done, total: told.append((done, total)))
    assert told == [(k, 6) for k in range(1, 7)]
    return data_dir


def test_two_processes_record_the_bytes_that_one_does(on_disk: Path, tmp_path: Path) -> None:
    other = scenes.ensure(TINY, tmp_path, processes=2)
    manifests = [(folder / "manifest.json").read_text() for folder in (scenes.folder(TINY, on_disk), other)]
    assert manifests[0] == manifests[1]
    here = presets.record(TINY, [1000])[0].samples
    part = scenes.load(TINY, tmp_path, "train")
    for name, array in here.items():
        assert part[name][: len(array)].tobytes() == array.tobytes()
    assert [path.name for path in (tmp_path / "driving").iterdir()] == [other.name]


def test_parts_share_no_map_and_previous_points_to_the_same_scene(on_disk: Path) -> None:
    parts = {part: scenes.load(TINY, on_disk, part) for part in ("train", "val", "test")}
    numbers = [set(part["scene"].tolist()) for part in parts.values()]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) > 3
    train = parts["train"]
    linked = np.flatnonzero(train["previous"] >= 0)
    before = train["previous"][linked]
    np.testing.assert_array_equal(train["scene"][linked], train["scene"][before])
    np.testing.assert_allclose(train["time"][linked] - train["time"][before], 0.5, atol=1e-5)
    moved = from_frame(train["motion"][linked, :2].astype(float), train["pose"][linked])
    np.testing.assert_allclose(moved, train["pose"][before, :2], atol=1e-3)


def test_a_recorded_set_is_not_recorded_again(on_disk: Path) -> None:
    def refuse(done: int, total: int) -> None:
        raise AssertionError("recorded again")

    assert scenes.ensure(TINY, on_disk, on_scene=refuse) == scenes.folder(TINY, on_disk)


def test_a_damaged_file_is_named(on_disk: Path, tmp_path: Path) -> None:
    shutil.copytree(on_disk, tmp_path / "copy")
    file = scenes.folder(TINY, tmp_path / "copy") / "train-plan.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"train-plan\.npy is not what was recorded"):
        scenes.load(TINY, tmp_path / "copy", "train")
    file.unlink()
    with pytest.raises(UserError, match=r"train-plan\.npy is not what was recorded"):
        scenes.load(TINY, tmp_path / "copy", "train")


def test_the_identity_follows_what_is_drawn_and_names_are_checked() -> None:
    assert scenes.identity(TINY) != scenes.identity(dataclasses.replace(TINY, seconds=9.0))
    assert presets.find("driving:small").name == "driving:small"
    with pytest.raises(UserError, match="did you mean 'driving:small'"):
        presets.find("driving:smal")
    with pytest.raises(UserError, match="has not been recorded"):
        scenes.load(presets.find("driving:full"), Path("/nonexistent"), "train")


def test_dropped_scenes_are_counted_with_their_reason(on_disk: Path) -> None:
    manifest = json.loads((scenes.folder(TINY, on_disk) / "manifest.json").read_text())
    kept = sum(count["scenes"] for count in manifest["counts"].values())
    assert kept + len(manifest["dropped"]) == 6


def test_the_planning_world_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, attnsweep.tasks.driving.records.presets, attnsweep.tasks.driving.records.samples;"
        "print({'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
