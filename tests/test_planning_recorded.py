"""Recorded traffic: CommonRoad files and nuScenes tables, read again after they were written here."""

import dataclasses
import json
import math
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely

from attnsweep.core.errors import UserError
from attnsweep.tasks.driving.records import (
    commonroad,
    lanelets,
    nuscenes,
    nuscenes_map,
    nuscenes_tables,
    recorded,
    routes,
    scenes,
    tracks,
)
from attnsweep.tasks.driving.records.samples import LEFT, SAMPLE, SceneLog
from attnsweep.tasks.driving.records.sampling import samples_of
from attnsweep.tasks.driving.world.cast import CAR, CYCLIST, PARKED, PEDESTRIAN
from attnsweep.tasks.driving.world.geometry import corners, project
from attnsweep.tasks.driving.world.roads import drivable_area

pytestmark = pytest.mark.slow

# --- A CommonRoad file ---


def bound(tag: str, points: np.ndarray, marking: str = "") -> str:
    inside = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x, y in points)
    return f"<{tag}>{inside}{f'<lineMarking>{marking}</lineMarking>' if marking else ''}</{tag}>"


def lanelet(name: int, middle: np.ndarray, *, more: str = "", marking: str = "", width: float = 3.5) -> str:
    way = np.gradient(middle, axis=0)
    left = np.stack([-way[:, 1], way[:, 0]], axis=1) / np.hypot(*way.T)[:, None] * width / 2
    sides = bound("leftBound", middle + left, marking) + bound("rightBound", middle - left, marking)
    return f'<lanelet id="{name}">{sides}{more}</lanelet>'


def state(tag: str, step: int, x: float, y: float, yaw: float, speed: float | None) -> str:
    velocity = "" if speed is None else f"<velocity><exact>{speed}</exact></velocity>"
    return (
        f"<{tag}><position><point><x>{x}</x><y>{y}</y></point></position>"
        f"<orientation><exact>{yaw}</exact></orientation><time><exact>{step}</exact></time>{velocity}</{tag}>"
    )


def obstacle(
    name: int, poses: np.ndarray, *, first: int = 0, speed: float | None = 10.0, old: bool = False
) -> str:
    rows = [
        state("state" if i else "initialState", first + i, *(float(v) for v in pose), speed)
        for i, pose in enumerate(poses)
    ]
    tag, role = ("obstacle", "<role>dynamic</role>") if old else ("dynamicObstacle", "")
    shape = "<shape><rectangle><length>4.5</length><width>1.8</width></rectangle></shape>"
    return (
        f'<{tag} id="{name}">{role}<type>car</type>{shape}{rows[0]}'
        f"<trajectory>{''.join(rows[1:])}</trajectory></{tag}>"
    )


def scenario(*parts: str, version: str = "2020a", step: float = 0.1) -> str:
    return f'<commonRoad commonRoadVersion="{version}" timeStepSize="{step}">{"".join(parts)}</commonRoad>'


def straight(y: float, start: float = -50, end: float = 150) -> np.ndarray:
    x = np.arange(start, end + 1, 10.0)
    return np.stack([x, np.full(len(x), y)], axis=1)


def along_x(
    steps: int, *, x: float = 0.0, y: float = 0.0, speed: float = 10.0, step: float = 0.1
) -> np.ndarray:
    x = x + speed * step * np.arange(steps)
    return np.stack([x, np.full(steps, y), np.zeros(steps)], axis=1)


ROAD = lanelet(1, straight(0.0), more='<adjacentLeft ref="2" drivingDir="same"/>') + lanelet(2, straight(3.5))


def write(folder: Path, text: str, name: str = "one.xml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def only_log(path: Path) -> SceneLog:
    kept = [log for _, log in commonroad.logs_of(path, number=7) if isinstance(log, SceneLog)]
    assert len(kept) == 1
    return kept[0]


@pytest.mark.parametrize(("version", "old"), [("2020a", False), ("2018b", True)])
def test_a_commonroad_file_is_read_as_it_was_written(tmp_path: Path, version: str, old: bool) -> None:
    text = scenario(ROAD, obstacle(5, along_x(81), old=old), version=version)
    log = only_log(write(tmp_path, text))
    assert log.number == 7 and log.state.shape == (81, 1, 5) and log.valid.all()
    np.testing.assert_allclose(log.state[:, 0, 0], np.arange(81.0))
    np.testing.assert_allclose(log.state[:, 0, 1:], np.tile([0.0, 0, 10, 0], (81, 1)))
    np.testing.assert_allclose(log.size, [[4.5, 1.8]])
    np.testing.assert_allclose(log.route[:, 1], 0, atol=1e-9)
    assert log.route[-1, 0] >= 80 + routes.REACH - 1  # on beyond the last pose
    np.testing.assert_allclose(log.dividers[0][:, 1], 1.75)
    assert log.drivable.at(np.array([[20.0, 0.0]]))[0] == pytest.approx(1.75 + 0.8, abs=0.4)
    assert log.drivable.at(np.array([[20.0, -3.0]]))[0] < 0
    made = samples_of(log)
    assert set(made) == set(SAMPLE) and len(made["bev"]) == 17 - 3 - 8
    np.testing.assert_allclose(made["plan"][:, :, 0], np.tile(5.0 * np.arange(1, 9), (6, 1)), atol=1e-4)
    assert made["bev"][:, 4].any(axis=(1, 2)).all()  # without markings borders and dividers are painted


def test_twenty_five_hertz_become_ten_and_speeds_come_from_positions(tmp_path: Path) -> None:
    text = scenario(ROAD, obstacle(5, along_x(151, step=0.04), speed=None), step=0.04)
    log = only_log(write(tmp_path, text))
    assert len(log.state) == 61
    np.testing.assert_allclose(log.state[:, 0, 0], np.arange(61.0), atol=1e-9)
    np.testing.assert_allclose(log.state[:, 0, 3], 10, atol=1e-9)


def test_every_vehicle_is_an_ego_in_turn_and_sees_the_others(tmp_path: Path) -> None:
    text = scenario(ROAD, obstacle(5, along_x(81)), obstacle(6, along_x(81, x=12, y=3.5)))
    logs = [log for _, log in commonroad.logs_of(write(tmp_path, text), number=0)]
    assert all(isinstance(log, SceneLog) for log in logs)
    one, other = (samples_of(log) for log in logs if isinstance(log, SceneLog))
    np.testing.assert_allclose(one["box"][0, 0, :2], [12, 3.5], atol=1e-5)
    np.testing.assert_allclose(other["box"][0, 0, :2], [-12, -3.5], atol=1e-5)


def test_who_appears_for_one_frame_is_there_for_one_frame(tmp_path: Path) -> None:
    once = obstacle(9, along_x(1, x=30, y=3.5), first=20)
    log = only_log(write(tmp_path, scenario(ROAD, obstacle(5, along_x(81)), once)))
    assert np.flatnonzero(log.valid[:, 1]).tolist() == [20]
    made = samples_of(log)
    assert made["mask"].sum() == 1 and made["future_mask"].sum() == 0
    assert all(np.isfinite(array.astype(float)).all() for array in made.values())


def test_what_stands_comes_from_static_obstacles(tmp_path: Path) -> None:
    shape = "<shape><circle><radius>0.5</radius><center><x>1</x><y>0</y></center></circle></shape>"
    at = state("initialState", 0, 30.0, 3.5, math.pi / 2, None)
    static = f'<staticObstacle id="3"><type>unknown</type>{shape}{at}</staticObstacle>'
    log = only_log(write(tmp_path, scenario(ROAD, static, obstacle(5, along_x(81)))))
    assert log.kind.tolist() == [CAR, PARKED] and log.valid.all()
    np.testing.assert_allclose(log.state[:, 1, :2], np.tile([30.0, 4.5], (81, 1)))  # 1 m ahead, turned left
    np.testing.assert_allclose(log.size[1], [1, 1])


def test_the_route_is_the_lanes_that_were_followed(tmp_path: Path) -> None:
    """A fork: straight on, or to the left, where the ego goes."""
    turn = np.linspace(0, np.pi / 2, 16)
    arc = 40 + 20 * np.sin(turn), 20 * (1 - np.cos(turn))
    bend = np.stack(arc, axis=1)
    onward = np.stack([np.full(8, 60.0), np.linspace(20, 120, 8)], axis=1)
    text = scenario(
        lanelet(1, straight(0.0, -50, 40), more='<successor ref="2"/><successor ref="3"/>'),
        lanelet(2, straight(0.0, 40, 140)),
        lanelet(3, bend, more='<successor ref="4"/><successor ref="77"/>'),
        lanelet(4, onward),
        obstacle(5, driven_along(np.concatenate([straight(0.0, 0, 40), bend[1:], onward[1:]]), 8.0, 101)),
    )
    log = only_log(write(tmp_path, text))
    _, aside = project(log.state[:, 0, :2], log.route)
    assert np.abs(aside).max() < 0.5  # rounding the corner of the polyline
    assert log.route[-1, 1] > 50 and log.route[:, 0].max() < 61
    commands = samples_of(log)["command"]
    assert (commands == LEFT).all()


def driven_along(line: np.ndarray, speed: float, steps: int) -> np.ndarray:
    """Poses along a polyline at constant speed."""
    s = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = speed * 0.1 * np.arange(steps)
    xy = np.stack([np.interp(at, s, line[:, k]) for k in range(2)], axis=1)
    yaw = np.arctan2(*np.gradient(xy, axis=0).T[::-1])
    return np.concatenate([xy, yaw[:, None]], axis=1)


def test_a_change_of_lane_is_part_of_the_route_but_where_in_a_lane_one_drove_is_not(tmp_path: Path) -> None:
    t = np.arange(101)
    x, y = 1.0 * t, 3.5 / (1 + np.exp(-(t - 50) / 4.0)) + 0.6 * np.sin(t / 5)  # weaves, and changes at 50 m
    poses = np.stack([x, y, np.arctan2(np.gradient(y), 1.0)], axis=1)
    log = only_log(write(tmp_path, scenario(ROAD, obstacle(5, poses))))
    before, after = log.route[log.route[:, 0] < 30], log.route[log.route[:, 0] > 70]
    np.testing.assert_allclose(before[:, 1], 0, atol=0.05)
    np.testing.assert_allclose(after[:, 1], 3.5, atol=0.05)


def test_stop_lines_show_red_as_the_cycle_says(tmp_path: Path) -> None:
    phases = "".join(
        f"<cycleElement><duration>{n}</duration><color>{color}</color></cycleElement>"
        for n, color in ((30, "green"), (10, "yellow"), (40, "red"))
    )
    light = f'<trafficLight id="8"><cycle>{phases}<timeOffset>5</timeOffset></cycle></trafficLight>'
    stop = '<stopLine><lineMarking>solid</lineMarking></stopLine><trafficLightRef ref="8"/>'
    text = scenario(lanelet(1, straight(0.0, -50, 60), more=stop), light, obstacle(5, along_x(81, speed=5)))
    log = only_log(write(tmp_path, text))
    np.testing.assert_allclose(log.stop_lines[0], [[60, 1.75], [60, -1.75]])
    assert log.red[:, 0].tolist() == [(step - 5) % 80 >= 30 for step in range(81)]
    assert samples_of(log)["bev"][:, 5].any()
    for word in ("0", "false"):
        text = text.replace("</cycle>", f"</cycle><active>{word}</active>")
        assert not only_log(write(tmp_path, text)).red.any()


def test_only_marked_bounds_are_painted_where_some_are_marked(tmp_path: Path) -> None:
    text = scenario(
        lanelet(1, straight(0.0), marking="solid"), lanelet(2, straight(3.5)), obstacle(5, along_x(81))
    )
    log = only_log(write(tmp_path, text))
    assert set(np.unique(log.paint[:, 1]).tolist()) == {-1.75, 1.75}


def without_state(text: str, step: int) -> str:
    return re.sub(rf"<state>(?:(?!</state>).)*<time><exact>{step}</exact>.*?</state>", "", text)


CAR_5 = obstacle(5, along_x(81))
REVERSED = f"{bound('rightBound', straight(-1.75)[::-1])}</lanelet>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<commonRoad", r"one\.xml is not well-formed XML"),
        ("", r"one\.xml is not well-formed XML"),
        (scenario(ROAD, version="2017a"), "version 2017a; use CommonRoad of 2018b or 2020a"),
        ("<OpenDRIVE/>", "is a <OpenDRIVE>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + scenario(ROAD, CAR_5), "declares entities"),
        (scenario(ROAD, CAR_5.replace("<x>3.0</x>", "<x>NaN</x>")), "5, state 3, position, x is 'NaN'"),
        (scenario(ROAD, CAR_5.replace(">10.0<", ">1e999<", 1)), "state 0, velocity is '1e999'"),
        (scenario(ROAD, re.sub("<position>.*?</position>", "", CAR_5)), "state 0 has no position"),
        (scenario(ROAD, CAR_5.replace("<length>4.5</length>", "")), "obstacle 5, length is None"),
        (scenario(ROAD, CAR_5.replace("<exact>4</exact>", "<exact>2</exact>")), "state 4 is not later than"),
        (scenario(ROAD.replace("<x>150.0</x>", "<x>?</x>"), CAR_5), "lanelet 1, left bound, x is '\\?'"),
        (scenario(lanelet(1, straight(0, 0, 10)).replace(">10.0<", ">0.0<"), CAR_5), "has no lanelet"),
        (scenario(re.sub("<point>.*?</point>", "", ROAD), CAR_5), "left bound has 0 points"),
        (scenario(CAR_5), "has no lanelet"),
        (scenario(ROAD[: ROAD.index("<rightBound>")] + REVERSED, CAR_5), "lanelet that leads anywhere"),
        ('<?xml version="1.0" encoding="GB2312"?>' + scenario(ROAD, CAR_5), "multi-byte encodings"),
        (scenario(ROAD, CAR_5, step="nan"), "timeStepSize is 'nan'"),
        (scenario(ROAD, CAR_5, step=-1), "timeStepSize=-1 is not above 0"),
        (scenario(ROAD, CAR_5, step=100), "timeStepSize=100 is longer than the 4 s of a plan"),  # ms
        (scenario(ROAD, lanelet(2, straight(7.0)), CAR_5), "has two lanelets with the id 2"),
        (scenario(ROAD, "<obstacle id='4'><initialState/></obstacle>"), "obstacle 4 has no role"),
    ],
)  # fmt: skip
def test_a_malformed_commonroad_file_is_named_with_its_record(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        commonroad.logs_of(write(tmp_path, text), number=0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (scenario(ROAD), "nobody drives"),
        (scenario(ROAD, CAR_5.replace(">car<", ">train<")), "nobody drives"),
        (scenario(ROAD, CAR_5.replace(">car<", ">pedestrian<")), "nobody drives"),
        (scenario(ROAD.replace(">150.0<", ">99999.0<"), CAR_5), "the map measures 100 km; 20 km are"),
        (scenario(ROAD, obstacle(5, along_x(81, y=40.0))), "more than 5 m from every lane"),
        (scenario(ROAD, obstacle(5, along_x(81, speed=0.4))), "ego stands"),
        (scenario(ROAD, obstacle(5, along_x(31, speed=0.4))), "ego stands"),
    ],
)  # fmt: skip
def test_a_scene_that_teaches_nothing_is_left_out_with_its_reason(
    tmp_path: Path, text: str, reason: str
) -> None:
    [(name, log)] = commonroad.logs_of(write(tmp_path, text), number=0)
    assert isinstance(log, str) and reason in log and name.startswith("one.xml")


@pytest.mark.parametrize(
    ("car", "reason"),
    [
        (obstacle(9, along_x(1)), "there for 0.0 s, less than from key frame to key frame"),
        (obstacle(9, along_x(4)), "there for 0.3 s"),
        (obstacle(9, along_x(81, speed=1.0)), "ego stands"),
        (without_state(obstacle(9, along_x(8)), 4), "seen on a lane for 0.3 s on end"),
    ],
)
def test_who_is_there_for_a_moment_or_creeps_is_an_ego_where_there_is_no_other(
    tmp_path: Path, car: str, reason: str
) -> None:
    assert len(samples_of(only_log(write(tmp_path, scenario(ROAD, car))))["bev"]) >= 1
    [(_, whole), (_, why)] = commonroad.logs_of(write(tmp_path, scenario(ROAD, CAR_5, car)), number=0)
    assert isinstance(whole, SceneLog) and reason in str(why)
    off_lane = problem("", y=90.0)  # a problem that makes no scene changes nothing
    assert only_log(write(tmp_path, scenario(ROAD, car, off_lane))).number == 7


ASIDE = np.stack([np.full(30, 80.0), -np.arange(30.0), np.full(30, -1.5)], axis=1)


@pytest.mark.parametrize(
    ("car", "seconds", "start"),
    [
        (without_state(CAR_5, 33), 4.6, 3.4),  # of two stretches the longer
        (obstacle(5, along_x(240)), 15.5, 0.0),  # the map ends at 150 m
        (obstacle(5, along_x(140, x=-80)), 11.4, 2.5),  # and begins at -50 m
        (obstacle(5, np.concatenate([along_x(81), ASIDE])), 8.6, 0.0),  # turns off the road
    ],
)
def test_a_scene_lasts_as_long_as_its_ego_is_seen_on_the_map(
    tmp_path: Path, car: str, seconds: float, start: float
) -> None:
    log = only_log(write(tmp_path, scenario(ROAD, car)))
    assert len(log.state) == pytest.approx(10 * seconds + 1)
    assert log.state[0, 0, 0] == pytest.approx(10 * start - 80 * ("-80.0" in car))
    assert log.valid[:, 0].all()


def test_who_keeps_within_a_wide_lane_is_on_it(tmp_path: Path) -> None:
    road = lanelet(1, straight(0.0), width=16)
    text = scenario(road, obstacle(5, along_x(81, y=6.5)), problem(circle(60, 6.5), y=-6.5))
    assert all(isinstance(log, SceneLog) for _, log in commonroad.logs_of(write(tmp_path, text), number=0))
    [(_, why)] = commonroad.logs_of(write(tmp_path, scenario(road, problem("", y=8.5))), number=0)
    assert why == tracks.NO_LANE


def test_agents_that_are_far_apart_have_surroundings_of_their_own(tmp_path: Path) -> None:
    there = lanelet(3, straight(3000.0, 2900, 3100))
    text = scenario(ROAD, there, CAR_5, obstacle(6, along_x(81, x=2950, y=3000)))
    one, other = (log for _, log in commonroad.logs_of(write(tmp_path, text), number=0))
    alone = only_log(write(tmp_path, scenario(ROAD, CAR_5)))
    assert isinstance(one, SceneLog) and isinstance(other, SceneLog)
    points = np.random.default_rng(0).uniform([-40, -3], [140, 8], (200, 2))
    np.testing.assert_array_equal(one.drivable.at(points), alone.drivable.at(points))
    assert other.drivable.at(np.array([[3000.0, 3000]]))[0] > 1 and other.drivable.depth.size < 1e6


@pytest.mark.parametrize("word", ["motorcycle", "bicycle"])
def test_who_rides_is_an_ego_where_nobody_drives(tmp_path: Path, word: str) -> None:
    rider = obstacle(6, along_x(81, x=20, y=3.5)).replace("<type>car", f"<type>{word}")
    assert only_log(write(tmp_path, scenario(ROAD, rider))).state[0, 0, 0] == 20
    assert only_log(write(tmp_path, scenario(ROAD, rider, CAR_5))).state[0, 0, 0] == 0


def test_areas_that_are_occupied_in_turn_are_a_trajectory_of_their_middles(tmp_path: Path) -> None:
    def area(step: int) -> str:
        middle = f"<center><x>{20 + step}</x><y>3.5</y></center>"
        shape = f"<shape>{rectangle(6 + step, 3, middle)}</shape>"
        return f"<occupancy>{shape}<time><exact>{step}</exact></time></occupancy>"

    start = state("initialState", 0, 20.0, 3.5, 0.0, 10.0)
    areas = f"<occupancySet>{''.join(area(step) for step in range(1, 81))}</occupancySet>"
    text = f'<dynamicObstacle id="6"><type>car</type><shape>{rectangle(4.5, 1.8)}</shape>{start}{areas}'
    other = f"{text}</dynamicObstacle>"
    log = only_log(write(tmp_path, scenario(ROAD, CAR_5, other)))
    np.testing.assert_allclose(log.state[:, 1, 0], np.arange(20.0, 101), atol=1e-9)
    np.testing.assert_allclose(log.state[:, 1, 3], 10, atol=1e-9)
    np.testing.assert_allclose(log.size[1], [4.5, 1.8])
    assert only_log(write(tmp_path, scenario(ROAD, other))).state[0, 0, 0] == 20  # nobody else drives


def test_what_is_legal_and_odd_changes_nothing(tmp_path: Path) -> None:
    """Elements of the format that say nothing of who drives where, and roads that cover nothing."""
    plain = only_log(write(tmp_path, scenario(ROAD, CAR_5)))
    point = bound("leftBound", np.full((2, 2), 9.0)) + bound("rightBound", np.full((2, 2), 9.0))
    against = bound("leftBound", straight(9.0)) + bound("rightBound", straight(7.0)[::-1])
    corner = bound("leftBound", np.full((2, 2), 9.0)) + bound("rightBound", np.array([[5, 9], [15, 9.0]]))
    lights = "<trafficLight id='8'><position/></trafficLight>"
    signals = "<signalSeries><signalState><time><exact>1</exact></time></signalState></signalSeries>"
    area = f"<occupancy><shape>{rectangle(4, 2)}</shape><time><exact>1</exact></time></occupancy>"
    phantom = f"<phantomObstacle id='7'><occupancySet>{area}</occupancySet></phantomObstacle>"
    building = f"<environmentObstacle id='9'><shape>{rectangle(9, 9)}</shape></environmentObstacle>"
    for head, text in (
        ("", scenario(ROAD, f'<lanelet id="9">{point}</lanelet>', CAR_5)),
        ("", scenario(ROAD, f'<lanelet id="9">{corner}</lanelet>', CAR_5)),
        ("", scenario(ROAD, f'<lanelet id="9">{against}</lanelet>', CAR_5)),
        ("", scenario(ROAD, lights, phantom, building, CAR_5.replace("</dyn", f"{signals}</dyn"))),
        ("", scenario(ROAD, CAR_5).replace("</y>", "</y><z>3</z>")),
        ("", scenario(ROAD, CAR_5).replace("><", ">\r\n <").replace("<x>", "<x> ")),
        ("<!DOCTYPE commonRoad>", scenario(ROAD, CAR_5)),
        ("", scenario(ROAD.replace("</lanelet>", "<userOneWay>bicycle</userOneWay></lanelet>"), CAR_5)),
    ):
        log = only_log(write(tmp_path, head + text))
        np.testing.assert_allclose(log.state, plain.state, err_msg=text)
        np.testing.assert_allclose(log.route, plain.route, err_msg=text)


# --- Roads ---


def read_lanelet(left: object, right: object) -> lanelets.Lanelet:
    text = f"<l>{bound('leftBound', np.array(left))}{bound('rightBound', np.array(right))}</l>"
    return lanelets.lanelet_of(ElementTree.fromstring(text), Path("one.xml"))


def farthest(points: np.ndarray, line: np.ndarray) -> float:
    """How far any of the points is from a line."""
    return float(np.abs(project(points, line)[1]).max())


def test_a_repeated_point_moves_no_bound() -> None:
    left = [(0, 4), (0, 4), (40, 4), (46, 7), (46, 40)]
    right = [(0, 0), (20, 0), (44, 0), (50, 6), (50, 40)]
    one = read_lanelet(left, right)
    for mine, theirs in ((one.left, left[1:]), (one.right, right)):
        assert farthest(mine, np.array(theirs, float)) < 1e-9
        assert farthest(np.array(theirs, float), mine) < 1e-9
    assert len(one.left) == len(one.right)
    plain = read_lanelet(left[1:], right)
    np.testing.assert_array_equal(one.left, plain.left)
    np.testing.assert_array_equal(one.right, plain.right)


def test_bounds_of_unequally_many_points_stay_where_they_are() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        left, right = (np.cumsum(rng.uniform(-1, 3, (rng.integers(2, 12), 2)), axis=0) for _ in range(2))
        one = read_lanelet(left.repeat(rng.integers(1, 3, len(left)), axis=0), right)
        for mine, theirs in ((one.left, left), (one.right, right)):
            assert farthest(mine, theirs) < 1e-6 and farthest(theirs, mine) < 1e-6


@pytest.mark.parametrize("turns", [0.9, 1.3])
def test_a_road_that_comes_round_over_itself_is_a_road_there_too(tmp_path: Path, turns: float) -> None:
    angle = np.linspace(0, 2 * np.pi * turns, 120)
    loop = 30 * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1)
    text = scenario(lanelet(1, loop), obstacle(5, driven_along(loop, 8.0, 101)))
    log = only_log(write(tmp_path, text))
    np.testing.assert_allclose(log.drivable.at(loop[4:-4]), 1.75 + 0.8, atol=0.4)
    assert log.drivable.at(np.array([[0.0, 30.0]]))[0] < -20  # nor is the middle one


def test_lanes_that_name_one_another_from_one_side_only_are_joined(tmp_path: Path) -> None:
    first = lanelet(1, straight(0.0, -50, 20))
    second = lanelet(2, straight(0.0, 20, 150), more='<predecessor ref="1"/>')
    log = only_log(write(tmp_path, scenario(first, second, obstacle(5, along_x(81)))))
    np.testing.assert_allclose(log.route[:, 1], 0, atol=1e-9)
    assert log.route[-1, 0] > 130


@pytest.mark.parametrize(
    ("side", "y"), [("Left", 3.5), ("Right", -3.5)]
)  # driving on the right, and on the left
@pytest.mark.parametrize("both", [True, False])
def test_a_divider_of_opposite_lanes_is_there_once(tmp_path: Path, side: str, y: float, both: bool) -> None:
    there, back = (f'<adjacent{side} ref="{ref}" drivingDir="opposite"/>' for ref in (2, 1))
    road = lanelet(1, straight(0.0), more=there) + lanelet(2, straight(y)[::-1], more=back if both else "")
    log = only_log(write(tmp_path, scenario(road, obstacle(5, along_x(81)))))
    assert len(log.dividers) == 1
    np.testing.assert_allclose(log.dividers[0][:, 1], y / 2)


@pytest.mark.parametrize(
    "more",
    [
        "<laneletType>urban</laneletType><laneletType>sidewalk</laneletType>",
        "<userOneWay>pedestrian</userOneWay><userBidirectional>bicycle</userBidirectional>",
    ],
)
def test_lanes_for_others_than_motor_vehicles_are_not_drivable(tmp_path: Path, more: str) -> None:
    walk = lanelet(9, straight(8.0), more=more)
    log = only_log(write(tmp_path, scenario(ROAD, walk, obstacle(5, along_x(81)))))
    assert log.drivable.at(np.array([[20.0, 8.0]]))[0] < 0
    assert len(log.centres) == 2


# --- Obstacles ---


def standing(shape: str, *, x: float = 30.0, y: float = 0.0, yaw: float = 0.0) -> str:
    at = state("initialState", 0, x, y, yaw, None)
    return f'<staticObstacle id="3"><type>unknown</type><shape>{shape}</shape>{at}</staticObstacle>'


def polygon(points: np.ndarray) -> str:
    inside = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x, y in points)
    return f"<polygon>{inside}</polygon>"


def box_of_second(log: SceneLog) -> np.ndarray:
    return np.concatenate([log.state[0, 1, :3], log.size[1]])


@pytest.mark.parametrize("turn", [math.pi / 4, 1.0, -1.2, 0.0, math.pi / 2])
def test_a_polygon_is_the_least_rotated_rectangle_around_it(tmp_path: Path, turn: float) -> None:
    wall = corners(np.array([2.0, 1.0, turn, 25.0, 0.3]))
    text = scenario(ROAD, standing(polygon(wall), yaw=0.3), obstacle(5, along_x(81)))
    log = only_log(write(tmp_path, text))
    np.testing.assert_allclose(log.size[1], [25.0, 0.3], atol=1e-9)
    cos, sin = math.cos(0.3), math.sin(0.3)
    there = wall @ np.array([[cos, sin], [-sin, cos]]) + [30, 0]
    found = corners(box_of_second(log))
    assert max(np.hypot(*(there - one).T).min() for one in found) < 1e-6


def test_what_moves_faces_where_it_goes_whatever_its_shape(tmp_path: Path) -> None:
    hull = np.array([[0.7, 0.8], [0.6, 0.9], [-0.7, 0.9], [-0.7, -0.9], [0.7, -0.9]])
    text = obstacle(6, along_x(81, x=20, y=3.5)).replace(rectangle(4.5, 1.8), polygon(hull))
    log = only_log(write(tmp_path, scenario(ROAD, text, obstacle(5, along_x(81)))))
    np.testing.assert_allclose(log.size[1], [1.4, 1.8])  # wider than long
    np.testing.assert_allclose(log.state[:, 1, 2], 0)


def rectangle(length: float, width: float, more: str = "") -> str:
    return f"<rectangle><length>{length}</length><width>{width}</width>{more}</rectangle>"


TRUCK = (
    "<truckShape><truckDims><length>5.1</length><width>2.55</width><wheelbase>3.6</wheelbase>"
    "<distFromRearToRearAxle>0.5</distFromRearToRearAxle><cabinLength>2.5</cabinLength>"
    "<distFromRearAxleToHitch>0.45</distFromRearAxleToHitch></truckDims>"
    "<originXShift>-2.05</originXShift></truckShape>"
)
TRAILER = (
    "<trailerDims><length>13.6</length><width>2.55</width><wheelbase>7.8</wheelbase>"
    "<distFromFrontToHitch>0.9</distFromFrontToHitch></trailerDims>"
)


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ("<circle><radius>2</radius></circle>", [30, 0, 0, 4, 4]),
        (rectangle(4, 2, "<orientation>0.5</orientation>"), [30, 0, 0.5, 4, 2]),
        (rectangle(2, 4, "<center><x>1</x><y>2</y></center>"), [31, 2, 0, 2, 4]),
        (polygon(np.array([[0, 0], [3, 4], [6, 8]])), [33, 4, math.atan2(4, 3), 10.1, 0.1]),  # a line
        (rectangle(4, 2, "<originXShift>-1.5</originXShift>"), [31.5, 0, 0, 4, 2]),
        (rectangle(4, 2) + rectangle(2, 2, "<center><x>-3</x><y>0</y></center>"), [29, 0, 0, 6, 2]),
        (
            f"<shapeGroup><shape>{rectangle(4, 2)}</shape><shape>{rectangle(8, 1)}</shape></shapeGroup>",
            [30, 0, 0, 8, 2],
        ),
        (TRUCK, [32.05, 0, 0, 5.1, 2.55]),
        (
            f"<semiTrailerTruckShape>{TRUCK}{TRAILER}</semiTrailerTruckShape>",
            [(34.6 + 17.75) / 2, 0, 0, 16.85, 2.55],
        ),
    ],
)
def test_every_shape_of_the_format_becomes_a_box(tmp_path: Path, shape: str, box: list[float]) -> None:
    log = only_log(write(tmp_path, scenario(ROAD, standing(shape), obstacle(5, along_x(81)))))
    np.testing.assert_allclose(box_of_second(log), box, atol=1e-9)


def test_walls_at_a_corner_leave_the_corner_free(tmp_path: Path) -> None:
    walls = [(20.0, 0.4, 0.0, 10.0), (0.4, 20.0, 10.0, 0.0)]  # a square of 20 m around both would block all
    shape = "".join(rectangle(a, b, f"<center><x>{x}</x><y>{y}</y></center>") for a, b, x, y in walls)
    log = only_log(write(tmp_path, scenario(ROAD, standing(shape, yaw=0.2), obstacle(5, along_x(81)))))
    assert log.kind.tolist() == [CAR, PARKED, PARKED]
    np.testing.assert_allclose(log.size[1:], [[20, 0.4]] * 2)
    turn = np.array([[math.cos(0.2), -math.sin(0.2)], [math.sin(0.2), math.cos(0.2)]])
    np.testing.assert_allclose(log.state[0, 1:, :2], np.array([[0, 10], [10, 0]]) @ turn.T + [30, 0])


@pytest.mark.parametrize(("length", "count"), [(29.0, 1), (31.0, 2), (100.0, 4)])
def test_a_long_wall_is_boxes_end_to_end(tmp_path: Path, length: float, count: int) -> None:
    wall = corners(np.array([3.0, 20.0, 0.6, length, 0.3]))
    for shape in (polygon(wall), rectangle(0.3, length, "<center><x>3</x><y>20</y></center>")):
        log = only_log(write(tmp_path, scenario(ROAD, standing(shape), obstacle(5, along_x(81)))))
        np.testing.assert_allclose(np.sort(log.size[1:]), [[0.3, length / count]] * count)
        boxes = np.concatenate([log.state[0, 1:, :3], log.size[1:]], axis=1)
        covered = shapely.union_all([shapely.Polygon(one) for one in corners(boxes)])
        assert covered.area == pytest.approx(0.3 * length)  # without a gap or a second layer
        if shape == polygon(wall):
            assert covered.symmetric_difference(shapely.Polygon(wall + np.array([30.0, 0.0]))).area < 1e-6


@pytest.mark.parametrize("shape", ["<circle><radius>20</radius></circle>", rectangle(60, 40)])
def test_what_is_longer_than_a_lorry_and_no_wall_is_left_out(tmp_path: Path, shape: str) -> None:
    hall = polygon(np.array([[0, 9], [60, 9], [60, 50], [59, 50], [59, 10], [0, 10]]))
    edge = "".join(rectangle(1, 0.2, f"<center><x>{x}</x><y>{x}</y></center>") for x in range(9))
    moving = obstacle(6, along_x(81, x=20, y=3.5)).replace(rectangle(4.5, 1.8), rectangle(60, 2))
    for one in (standing(shape), standing(hall), standing(edge), moving):
        assert only_log(write(tmp_path, scenario(ROAD, one, obstacle(5, along_x(81))))).kind.tolist() == [CAR]


@pytest.mark.parametrize(
    ("word", "kind", "egos"),
    [
        ("bicycle", CYCLIST, 1),
        ("pedestrian", PEDESTRIAN, 1),
        ("train", CAR, 1),
        ("motorcycle", CAR, 1),
        *((word, CAR, 2) for word in ("bus", "truck", "taxi", "unknown")),
    ],
)
def test_obstacles_are_what_their_type_says(tmp_path: Path, word: str, kind: int, egos: int) -> None:
    other = obstacle(6, along_x(81, x=20, y=3.5)).replace("<type>car", f"<type>{word}")
    found = commonroad.logs_of(write(tmp_path, scenario(ROAD, obstacle(5, along_x(81)), other)), number=0)
    assert len(found) == egos
    log = found[0][1]
    assert isinstance(log, SceneLog) and log.kind.tolist() == [CAR, kind]
    assert samples_of(log)["box"][0, 0, 6] == kind


def test_a_trajectory_may_repeat_its_initial_time(tmp_path: Path) -> None:
    text = CAR_5.replace("<trajectory>", f"<trajectory>{state('state', 0, 0.0, 0.0, 0.0, 10.0)}")
    once, twice = (only_log(write(tmp_path, scenario(ROAD, one))) for one in (CAR_5, text))
    np.testing.assert_array_equal(once.state, twice.state)


def test_a_point_mass_faces_where_its_velocity_points(tmp_path: Path) -> None:
    text = re.sub("<orientation>.*?</orientation>", "", CAR_5)
    both = re.sub(
        "<velocity><exact>10.0", "<velocityY><exact>1.5</exact></velocityY><velocity><exact>10.0", text
    )
    log = only_log(write(tmp_path, scenario(ROAD, both)))
    np.testing.assert_allclose(log.state[:, 0, 2], math.atan2(1.5, 10))
    np.testing.assert_allclose(log.state[:, 0, 3:], np.tile([10, 1.5], (81, 1)))


def test_without_orientation_and_lateral_velocity_one_faces_along_the_way(tmp_path: Path) -> None:
    t = np.linspace(0, 2.4, 81)
    poses = np.stack([10 * t, 0.5 * t**2, np.full(81, 9.0)], axis=1)
    text = re.sub("<orientation>.*?</orientation>", "", obstacle(5, poses))
    log = only_log(write(tmp_path, scenario(ROAD, text)))
    np.testing.assert_allclose(log.state[:, 0, 2], np.arctan2(t, 10), atol=0.003)


def test_uncertain_quantities_count_as_their_centres(tmp_path: Path) -> None:
    def area(found: re.Match[str]) -> str:
        middle = f"<center><x>{found[1]}</x><y>{found[2]}</y></center>"
        return f"<position>{rectangle(3, 1, f'<orientation>0.4</orientation>{middle}')}</position>"

    text = re.sub("<position><point><x>(.*?)</x><y>(.*?)</y></point></position>", area, CAR_5)
    text = text.replace(
        "<velocity><exact>10.0</exact>",
        "<velocity><intervalStart>8</intervalStart><intervalEnd>12</intervalEnd>",
    )
    text = text.replace(
        "<orientation><exact>0.0</exact>",
        "<orientation><intervalStart>-0.1</intervalStart><intervalEnd>0.1</intervalEnd>",
    )
    exact, log = (only_log(write(tmp_path, scenario(ROAD, one))) for one in (CAR_5, text))
    np.testing.assert_allclose(log.state, exact.state, atol=1e-9)


def test_states_without_a_position_are_left_out(tmp_path: Path) -> None:
    lateral = "<state><distance><exact>1</exact></distance><time><exact>81</exact></time></state>"
    text = CAR_5.replace("</trajectory>", f"{lateral}{lateral}</trajectory>")
    assert len(only_log(write(tmp_path, scenario(ROAD, text))).state) == 81


def test_a_step_of_a_fifth_of_a_second_is_read(tmp_path: Path) -> None:
    log = only_log(write(tmp_path, scenario(ROAD, obstacle(5, along_x(41, step=0.2)), step=0.2)))
    np.testing.assert_allclose(log.state[:, 0, 0], np.arange(81.0), atol=1e-9)
    assert log.valid.all()


def test_prefixes_comments_and_byte_order_marks_are_no_obstacle(tmp_path: Path) -> None:
    text = scenario(ROAD, CAR_5)
    plain = only_log(write(tmp_path, text))
    text = re.sub(r"<(/?)([a-zA-Z])", r"<\1cr:\2", text).replace("timeStep", 'xmlns:cr="u" timeStep')
    text = "\ufeff" + text.replace("<cr:x>3.0", "<cr:x><!-- a -->3.<!-- b -->0")
    np.testing.assert_array_equal(only_log(write(tmp_path, text)).state, plain.state)


def test_far_off_coordinates_change_no_sample(tmp_path: Path) -> None:
    def moved(found: re.Match[str]) -> str:
        return f"<x>{float(found[1]) + 691_000}</x><y>{float(found[2]) + 5_335_000}</y>"

    text = scenario(ROAD, CAR_5, obstacle(6, along_x(60, x=15, y=3.5)))
    away = re.sub("<x>([^<]*)</x><y>([^<]*)</y>", moved, text)
    here, there = (
        [samples_of(log) for _, log in commonroad.logs_of(write(tmp_path, one), number=0) if log != ""]
        for one in (text, away)
    )
    for one, other in zip(here, there, strict=True):
        for name in set(SAMPLE) - {"pose", "bev", "depth", "map"}:  # grids: cells on an edge
            np.testing.assert_allclose(one[name], other[name], atol=1e-4, err_msg=name)
        assert (one["bev"] != other["bev"]).mean() < 1e-3


# --- Short scenarios ---


@pytest.mark.parametrize("states", [2, 3, 6, 11, 31, 41, 51, 55])
def test_a_short_scenario_makes_samples_whose_unknown_steps_are_masked(tmp_path: Path, states: int) -> None:
    log = only_log(write(tmp_path, scenario(ROAD, obstacle(5, along_x(states)))))
    made = samples_of(log)
    assert set(made) == set(SAMPLE)
    keys = (states - 1) // 5  # after the first
    known = [[k + step <= keys for step in range(1, 9)] for k in range(max(keys, 1))]
    assert made["plan_mask"].tolist() == known
    wanted = np.where(known, 5.0 * np.arange(1, 9), 0)
    np.testing.assert_allclose(made["plan"][..., 0], wanted, atol=1e-4)
    np.testing.assert_allclose(made["time"], 0.5 * np.arange(len(made["time"])), atol=1e-6)
    np.testing.assert_allclose(made["ego_state"][:, 0], 10, atol=1e-6)
    np.testing.assert_allclose(made["ego_state"][:, 1:], 0, atol=1e-6)
    assert made["previous"].tolist() == list(range(-1, len(known) - 1))
    swept = made["bev"][:, :4].any(axis=(2, 3))
    for k in range(min(len(known), 3)):  # sweeps that were not taken are empty; those taken see ghosts
        assert not swept[k, : 3 - k].any()
    assert all(np.isfinite(array.astype(float)).all() for array in made.values())


# --- Planning problems ---


def problem(goal: str, *, x: float = 0.0, y: float = 0.0, speed: float = 8.0, name: int = 100) -> str:
    where = f"<position>{goal}</position>" if goal else ""
    times = "<time><intervalStart>20</intervalStart><intervalEnd>30</intervalEnd></time>"
    start = state("initialState", 0, x, y, 0.0, speed)
    return f'<planningProblem id="{name}">{start}<goalState>{where}{times}</goalState></planningProblem>'


def circle(x: float, y: float) -> str:
    return f"<circle><radius>2</radius><center><x>{x}</x><y>{y}</y></center></circle>"


FORK = "".join(
    (
        lanelet(1, straight(0.0, -50, 40), more='<successor ref="2"/><successor ref="3"/>'),
        lanelet(2, straight(0.0, 40, 140)),
        lanelet(3, np.stack([np.linspace(40, 80, 9), np.linspace(0, 30, 9)], axis=1)),
    )
)
NEIGHBOURS = "".join(
    (
        lanelet(1, straight(0.0), more='<adjacentLeft ref="2" drivingDir="same"/>'),
        lanelet(2, straight(3.5), more='<adjacentRight ref="1" drivingDir="same"/>'),
    )
)


@pytest.mark.parametrize(
    ("road", "goal", "end"),
    [
        (ROAD, circle(60, 0.4), (60, 0)),
        (ROAD, rectangle(8, 3, "<center><x>45</x><y>-0.5</y></center>"), (45, 0)),
        (ROAD, polygon(np.array([[50, -1], [54, -1], [54, 1], [50, 1]])), (52, 0)),
        (ROAD, polygon(np.array([[40, 0], [60, 0], [60, 4], [58, 4], [58, 1], [40, 1]])), (1354 / 26, 0)),
        (FORK, '<lanelet ref="3"/>', (60, 15)),
        (FORK, '<lanelet ref="2"/>', (90, 0)),
        (FORK, circle(80, 30), (80, 30)),
        (NEIGHBOURS, circle(90, 3.5), (90, 3.5)),
        (NEIGHBOURS, '<lanelet ref="1"/>', (50, 0)),
    ],
)
def test_a_goal_region_is_the_end_of_the_route(
    tmp_path: Path, road: str, goal: str, end: tuple[float, float]
) -> None:
    log = only_log(write(tmp_path, scenario(road, problem(goal))))
    np.testing.assert_allclose(log.route[[0, -1]], [(0, 0), end], atol=1e-6)
    assert np.hypot(*np.diff(log.route, axis=0).T).max() < 0.8
    made = samples_of(log)
    assert not made["plan_mask"].any() and made["ego_state"][0, 0] == 8
    np.testing.assert_allclose(made["size"], [commonroad.EGO_SIZE])


def test_of_several_goals_the_nearest_that_can_be_reached_counts(tmp_path: Path) -> None:
    text = problem(circle(120, 0)).replace("</planningProblem>", "") + "".join(
        f"<goalState><position>{circle(x, 0)}</position></goalState>" for x in (70, -30)
    )
    log = only_log(write(tmp_path, scenario(ROAD, f"{text}</planningProblem>")))
    np.testing.assert_allclose(log.route[-1], [70, 0], atol=1e-6)  # -30 lies behind


@pytest.mark.parametrize("goal", ["", circle(-40, 0), '<lanelet ref="77"/>'])
def test_a_goal_that_is_nowhere_ahead_leaves_the_route_open(tmp_path: Path, goal: str) -> None:
    log = only_log(write(tmp_path, scenario(lanelet(1, straight(0.0, -50, 30)), problem(goal))))
    np.testing.assert_allclose(log.route[-1], [60, 0], atol=0.6)


def test_each_planning_problem_is_a_scene_among_the_recorded_traffic(tmp_path: Path) -> None:
    problems = (
        problem(circle(60, 0)),
        problem(circle(60, 3.5), y=3.5, name=101),
        problem("", y=90.0, name=102),
    )
    text = scenario(ROAD, obstacle(5, along_x(81, x=20)), standing(rectangle(4, 2), y=3.5), *problems)
    found = dict(commonroad.logs_of(write(tmp_path, text), number=0))
    assert list(found) == [
        f"one.xml, {name}"
        for name in ("obstacle 5", "planning problem 100", "planning problem 101", "planning problem 102")
    ]
    assert found["one.xml, planning problem 102"] == tracks.NO_LANE
    log = found["one.xml, planning problem 100"]
    assert isinstance(log, SceneLog) and log.number == 1
    made = samples_of(log)
    np.testing.assert_allclose(sorted(made["box"][0, :2, 0]), [20, 30], atol=1e-5)
    np.testing.assert_allclose(made["future_boxes"][0, :, 0, 0].max(), 60, atol=1e-4)
    assert made["future_boxes_mask"][0, :, :2].all()


# --- nuScenes ---

HEAD = 0.4  # rad, along which the ego drives in the tables below


def annotated(*, frames: int = 20, scenes_count: int = 3) -> dict[str, list[dict[str, Any]]]:
    """Drives of 8 m/s in a straight line, with a car 15 m ahead of the rear axle that drives 10 m/s, a
    pedestrian who appears once, and a cone.
    """
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in nuscenes_tables.TABLES}
    made["category"] = [
        {"token": f"c{i}", "name": name}
        for i, name in enumerate(("movable_object.trafficcone", "human.pedestrian.adult", "vehicle.car"))
    ]
    for k in range(scenes_count):
        made["log"].append({"token": f"log{k}", "location": "here"})
        made["scene"].append({"token": f"s{k}", "name": f"scene-{k:04}", "log_token": f"log{k}"})
        for i, category in enumerate(("c2", "c1", "c0")):
            made["instance"].append({"token": f"i{k}-{i}", "category_token": category})
        for frame in range(frames):
            t, token = 0.5 * frame, f"f{k}-{frame}"
            stamp = round(1e6 * (1000 * k + t))
            made["sample"].append({"token": token, "timestamp": stamp, "scene_token": f"s{k}"})
            for sweep in range(5):  # of the lidar, up to the key frame
                late = t - 0.1 * sweep
                name = f"e{k}-{frame}-{sweep}"
                made["ego_pose"].append({"token": name, **placed(8 * late, 0, HEAD)})
                data = {"sample_token": token, "ego_pose_token": name}
                made["sample_data"].append({"token": name, **data, "timestamp": stamp - 100_000 * sweep})
            boxes = [(0, 15 + 10 * t, 0, [1.9, 4.6, 1.6]), (2, 60, -3, [0.4, 0.5, 1.0])]
            boxes += [(1, 40, 4, [0.6, 0.7, 1.8])] if frame == 8 else []
            for i, x, y, size in boxes:
                row = {"token": f"a{k}-{frame}-{i}", "sample_token": token, "instance_token": f"i{k}-{i}"}
                made["sample_annotation"].append({**row, "size": size, **placed(x, y, HEAD)})
    return made


def placed(x: float, y: float, yaw: float) -> dict[str, list[float]]:
    """A pose that lies at (x, y) in a frame turned by HEAD about (100, 50)."""
    cos, sin = math.cos(HEAD), math.sin(HEAD)
    at = [100 + cos * x - sin * y, 50 + sin * x + cos * y, 0.0]
    return {"translation": at, "rotation": [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]}


def street_map() -> dict[str, Any]:
    """A straight road of two lanes one way with an island, a painted divider and a crosswalk."""
    made: dict[str, Any] = {name: [] for name in (*nuscenes_map.SHAPES, *nuscenes_map.LAYERS)}

    def nodes(*points: tuple[float, float]) -> list[str]:
        tokens = []
        for x, y in points:
            at = placed(x, y, 0)["translation"]
            made["node"].append({"token": f"n{len(made['node'])}", "x": at[0], "y": at[1]})
            tokens.append(made["node"][-1]["token"])
        return tokens

    def polygon(*points: tuple[float, float]) -> str:
        made["polygon"].append(
            {"token": f"p{len(made['polygon'])}", "exterior_node_tokens": nodes(*points), "holes": []}
        )
        return str(made["polygon"][-1]["token"])

    road = polygon((-60, -12), (200, -12), (200, 5), (-60, 5))
    made["polygon"][0]["holes"] = [{"node_tokens": nodes((20, -10), (40, -10), (40, -6), (20, -6))}]
    made["drivable_area"] = [{"token": "d", "polygon_tokens": [road]}]
    made["ped_crossing"] = [{"token": "x", "polygon_token": polygon((48, -2), (51, -2), (51, 5), (48, 5))}]
    line = nodes(*((float(x), 1.75) for x in range(-60, 201, 20)))
    made["line"] = [{"token": "l", "node_tokens": line}]
    segments = [{"node_token": one, "segment_type": "DOUBLE_DASHED_WHITE"} for one in line]
    made["lane_divider"] = [{"token": "v", "line_token": "l", "lane_divider_segments": segments}]
    pose = [*placed(-60, 0, 0)["translation"][:2], HEAD]
    made["arcline_path_3"] = {
        "lane": [{"start_pose": pose, "shape": "LSR", "radius": 900.0, "segment_length": [0, 260, 0]}]
    }
    return made


def write_nuscenes(root: Path, tables: dict[str, Any], street: dict[str, Any] | None = None) -> Path:
    for folder in ("v1.0-mini", "maps/expansion"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, content in tables.items():
        (root / "v1.0-mini" / f"{name}.json").write_text(json.dumps(content))
    (root / "maps/expansion/here.json").write_text(json.dumps(street or street_map()))
    return root


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nuscenes(tmp_path_factory.mktemp("nuscenes"), annotated())


def test_nuscenes_tables_are_read_as_they_were_written(drives: Path) -> None:
    found = list(nuscenes.scenes_of(drives))
    assert [one.name for one in found] == ["scene-0000", "scene-0001", "scene-0002"]
    log = found[1].log
    assert isinstance(log, SceneLog) and log.number == 1
    assert log.state.shape == (96, 4, 5) and log.dt == 0.1  # 9.5 s
    assert log.kind.tolist() == [CAR, CAR, PARKED, PEDESTRIAN]
    np.testing.assert_allclose(log.size[1], [4.6, 1.9])
    cos, sin = math.cos(HEAD), math.sin(HEAD)
    velocity = log.state[:, :2, 3] * cos + log.state[:, :2, 4] * sin
    np.testing.assert_allclose(velocity, np.tile([8.0, 10.0], (96, 1)), atol=1e-6)
    np.testing.assert_allclose(log.state[:, 0, 2], HEAD)
    t = 0.1 * np.arange(96)
    ahead = (log.state[:, 1, :2] - log.state[:, 0, :2]) @ [cos, sin]
    np.testing.assert_allclose(ahead, 15 - nuscenes.CENTRE_AHEAD + 2 * t, atol=1e-6)
    assert np.flatnonzero(log.valid[:, 3]).tolist() == [40]  # the pedestrian, once, at 4 s
    assert log.valid[:, :3].all() and not log.red.size


def test_a_nuscenes_map_is_read_as_it_was_written(drives: Path) -> None:
    log = next(nuscenes.scenes_of(drives)).log
    assert isinstance(log, SceneLog)
    here = [placed(x, y, 0)["translation"][:2] for x, y in ((30, -8), (30, 0), (10, -8), (30, 9))]
    depth = log.drivable.at(np.array(here))
    np.testing.assert_allclose(
        depth, [-2, 5, 4, -4], atol=0.4
    )  # island, lane, beside the island, off the road
    made = samples_of(log)
    assert set(made) == set(SAMPLE) and len(made["bev"]) == 20 - 3 - 8
    np.testing.assert_allclose(made["plan"][:, :, 0], np.tile(4.0 * np.arange(1, 9), (9, 1)), atol=1e-4)
    np.testing.assert_allclose(made["route"][..., 1], 0, atol=1e-3)
    assert made["bev"][:, 4].any(axis=(1, 2)).all() and made["map"][:, 2].any()


def test_paths_of_lanes_end_where_arcs_do() -> None:
    arc = {"start_pose": [1.0, 2.0, 0.3], "shape": "LSR", "radius": 10.0, "segment_length": [5.0, 7.0, 8.0]}
    line = nuscenes_map.path_of([arc], "here")
    x, y, yaw = 1.0, 2.0, 0.3
    for bend, length in ((0.1, 5.0), (0.0, 7.0), (-0.1, 8.0)):  # by small steps
        for _ in range(4000):
            x, y = x + length / 4000 * math.cos(yaw), y + length / 4000 * math.sin(yaw)
            yaw += bend * length / 4000
    np.testing.assert_allclose(line[-1], [x, y], atol=5e-3)
    np.testing.assert_allclose(np.hypot(*np.diff(line, axis=0).T), 1.0, atol=1e-3)


def damaged(tmp_path: Path, table: str, row: int, **fields: object) -> Path:
    tables = annotated(frames=14, scenes_count=1)
    tables[table][row] = {
        key: value for key, value in (tables[table][row] | fields).items() if value is not None
    }
    return write_nuscenes(tmp_path, tables)


@pytest.mark.parametrize(
    ("table", "row", "fields", "message"),
    [
        ("ego_pose", 5, {"translation": [math.nan, 0, 0]}, r"ego_pose\.json: e0-1-0, translation is \[nan"),
        ("ego_pose", 5, {"rotation": [1, 0, 0]}, r"rotation is \[1, 0, 0\], not 4 finite numbers"),
        ("sample_annotation", 3, {"size": None}, r"sample_annotation\.json, record 3 has no size"),
        ("sample_annotation", 0, {"size": [0, 4, 1]}, "must be above 0"),
        ("sample_annotation", 3, {"translation": "far"}, "translation is 'far'"),
        ("sample_annotation", 3, {"instance_token": "who"}, "refers to instance 'who', which instance lacks"),
        ("instance", 0, {"category_token": "what"}, "refers to category 'what'"),
        ("scene", 0, {"log_token": "none"}, r"scene\.json: scene-0000 refers to log 'none'"),
        ("log", 0, {"location": "nowhere"}, r"nowhere\.json is missing; it belongs to"),
        ("log", 0, {"location": ["here"]}, r"log\.json, record 0: location is \['here'\], not a str"),
        ("log", 0, {"location": "../v1.0-mini/log"}, "log.json is missing"),
        ("ego_pose", 5, {"translation": [1e300, 0, 0]}, r"not 3 finite numbers"),
        ("sample", 2, {"timestamp": "noon"}, r"sample\.json: f0-2, timestamp is \['noon'\]"),
    ],
)  # fmt: skip
def test_a_damaged_nuscenes_record_is_named(
    tmp_path: Path, table: str, row: int, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        list(nuscenes.scenes_of(damaged(tmp_path, table, row, **fields)))


def test_missing_tables_torn_json_and_scenes_without_samples_are_told(tmp_path: Path) -> None:
    root = write_nuscenes(tmp_path, annotated(frames=14, scenes_count=1))
    tables = root / "v1.0-mini"
    text = (tables / "sample.json").read_text()
    (tables / "sample.json").write_text("[]")
    assert next(nuscenes.scenes_of(root)).log == "it has no sample"
    (tables / "sample.json").write_text(text[:-20])
    with pytest.raises(UserError, match=r"sample\.json is not JSON"):
        list(nuscenes.scenes_of(root))
    (tables / "sample.json").unlink()
    with pytest.raises(UserError, match=r"sample\.json cannot be read: No such file"):
        list(nuscenes.scenes_of(root))
    with pytest.raises(UserError, match=r"sample\.json is missing"):
        recorded.find(f"nuscenes:{root}")


@pytest.mark.parametrize(
    ("layer", "content", "message"),
    [
        ("line", [{"token": "l", "node_tokens": ["n0", "gone"]}], "refers to node 'gone'"),
        ("polygon", [], "drivable_area d refers to polygon 'p0'"),
        ("arcline_path_3", {"lane": [{"shape": "LSR"}]}, "arcline_path_3 lane has no start_pose"),
        ("drivable_area", None, "has no drivable_area"),
        ("lane_divider", [{"token": "v", "line_token": "l", "lane_divider_segments": 1}], "not a list"),
    ],
)
def test_a_damaged_map_is_named(tmp_path: Path, layer: str, content: object, message: str) -> None:
    street = {key: value for key, value in {**street_map(), layer: content}.items() if value is not None}
    root = write_nuscenes(tmp_path, annotated(frames=14, scenes_count=1), street)
    with pytest.raises(UserError, match=rf"here\.json.*{message}"):
        list(nuscenes.scenes_of(root))


def test_an_ego_off_the_map_makes_no_scene(tmp_path: Path) -> None:
    street = street_map()
    street["arcline_path_3"]["lane"][0]["start_pose"][1] += 50
    root = write_nuscenes(tmp_path, annotated(frames=14, scenes_count=1), street)
    assert next(nuscenes.scenes_of(root)).log == "more than 5 m from every lane"


def test_no_damage_to_a_file_ends_in_a_traceback(tmp_path: Path) -> None:
    """Random damage, a record or figure at a time: what is read is a scene, a reason, or a sentence."""
    rng = random.Random(0)
    values = [None, "x", -1, 1e300, math.nan, [], {}, [1], [1, 2, 3], True, 10**400]
    pieces = re.findall(r"<[^>]*>|[^<]+", scenario(ROAD, CAR_5))
    told = 0
    for _ in range(60):
        damaged, at = list(pieces), rng.randrange(len(pieces))
        damaged[at] = rng.choice(["", "nan", "-1", "1e300", "99999999"])
        file = write(tmp_path, "".join(damaged))
        told += raises_at_most_a_sentence(lambda file=file: only_log(file))
        tables, street = annotated(frames=13, scenes_count=1), street_map()
        content = rng.choice([tables, street])
        layer = content[rng.choice([name for name in content if name != "arcline_path_3"])]
        record = rng.randrange(len(layer)) if layer else 0
        if layer and rng.random() < 0.7:
            layer[record][rng.choice(list(layer[record]))] = rng.choice(values)
        elif layer:
            layer[record] = rng.choice(values)
        root = write_nuscenes(tmp_path, tables, street)
        told += raises_at_most_a_sentence(lambda root=root: list(nuscenes.scenes_of(root)))
    assert told > 30


def raises_at_most_a_sentence(read: Callable[[], object]) -> bool:
    """Whether reading raised a UserError; any other error but an assertion's passes through."""
    try:
        read()
    except AssertionError:
        return False
    except UserError as error:
        assert "\n" not in str(error)
        return True
    return False


def test_holes_are_cut_out_of_their_own_polygon_alone() -> None:
    square = np.array([[0, 0], [40, 0], [40, 40], [0, 40.0]])
    hole, patch = square / 2 + 10, square / 8 + 17.5
    area = drivable_area([square, patch], holes=[[hole], []])
    depth = area.at(np.array([[20.0, 20], [13, 20], [5, 20]]))
    np.testing.assert_allclose(depth, [2.5, -3, 5], atol=0.4)


# --- Data sets ---


def test_recorded_sets_are_kept_like_those_of_the_own_world(drives: Path, tmp_path: Path) -> None:
    source = recorded.find(f"nuscenes:{drives}")
    told: list[tuple[int, int]] = []
    scenes.ensure(source, tmp_path, processes=1, on_scene=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    parts = {part: scenes.load(source, tmp_path, part) for part in ("train", "val", "test")}
    assert [set(part["scene"].tolist()) for part in parts.values()] == [{0}, {1}, {2}]  # a drive each
    log = next(nuscenes.scenes_of(drives)).log
    assert isinstance(log, SceneLog)
    for name, array in samples_of(log).items():
        assert parts["train"][name].tobytes() == array.tobytes(), name


def test_files_of_commonroad_are_not_split_over_parts(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for k in range(3):
        cars = obstacle(5, along_x(70)), obstacle(6, along_x(70, x=12, y=3.5))
        write(folder, scenario(ROAD, *cars), f"{k}.xml")
    source = recorded.find(f"commonroad:{folder}")
    scenes.ensure(source, tmp_path, processes=1)
    parts = [set(scenes.load(source, tmp_path, part)["scene"].tolist()) for part in ("train", "val", "test")]
    assert parts == [{0, 1}, {1000, 1001}, {2000, 2001}]


def test_a_sets_identity_follows_its_bytes_and_not_its_place(drives: Path, tmp_path: Path) -> None:
    tables = annotated()
    twin = recorded.find(f"nuscenes:{write_nuscenes(tmp_path, tables)}")
    assert scenes.identity(twin) == scenes.identity(recorded.find(f"nuscenes:{drives}"))
    tables["log"][0]["location"] = "there"
    write_nuscenes(tmp_path, tables)
    assert scenes.identity(twin) != scenes.identity(recorded.find(f"nuscenes:{drives}"))


@pytest.mark.parametrize(
    "name",
    [
        "commonroad:",
        "commonroad:/nowhere",
        "nuscenes:/nowhere",
        "waymo:/tmp",
        None,
        "commonroad:a\0b",
        f"nuscenes:{'a' * 5000}",
    ],
)
def test_names_that_lead_nowhere_are_told(name: object) -> None:
    with pytest.raises(UserError, match=r"is unknown; use commonroad:PATH|is not a folder"):
        recorded.find(name)


def test_a_set_without_a_scene_for_a_part_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with pytest.raises(UserError, match=r"holds no \.xml file"):
        recorded.find(f"commonroad:{folder}")
    write(folder, scenario(ROAD, obstacle(5, along_x(70)), obstacle(6, along_x(20))))
    write(folder, "<commonRoad")
    write(folder, scenario(CAR_5), "two.xml")
    with pytest.raises(
        UserError, match=r"one\.xml is not well-formed XML.*two\.xml has no lanelet.*no scene"
    ):
        scenes.ensure(recorded.find(f"commonroad:{folder}"), tmp_path, processes=1)
    assert not list((tmp_path / "driving").iterdir())


def test_bad_files_are_skipped_all_at_once_each_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for k in range(3):
        write(folder, scenario(ROAD, obstacle(5, along_x(70))), f"good{k}.xml")
    write(folder, "<commonRoad", "broken.xml")
    write(folder, scenario(ROAD), "empty.xml")
    write(
        folder,
        scenario(ROAD, CAR_5)
        .replace("<rectangle>", "<shape>" * 5000 + "<rectangle>")
        .replace("</rectangle>", "</rectangle>" + "</shape>" * 5000),
        "deep.xml",
    )
    (folder / "gone.xml").symlink_to("/nowhere")
    os.mkfifo(folder / "pipe.xml")
    source = recorded.find(f"commonroad:{folder}")
    scenes.ensure(source, tmp_path, processes=1)
    skipped = scenes.skipped_of(source, tmp_path)
    assert skipped.startswith("5 of 8 skipped: ") and "\n" not in skipped
    assert "broken.xml is not well-formed XML" in skipped and "empty.xml: nobody drives" in skipped
    assert "deep.xml cannot be read: RecursionError" in skipped
    assert "gone.xml cannot be read" in skipped and "pipe.xml cannot be read" in skipped
    for part in ("train", "val", "test"):  # a file each, of those that are good
        assert len(set(scenes.load(source, tmp_path, part)["scene"].tolist())) == 1


def test_hidden_files_and_what_systems_leave_are_no_recordings(tmp_path: Path) -> None:
    names = ("._one.xml", ".ipynb_checkpoints/one-checkpoint.xml", "__MACOSX/one.xml", "folder.xml/one.txt")
    for name in (*names, "deep/one.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, scenario(ROAD, CAR_5), name)
    assert recorded.find(f"commonroad:{tmp_path}").files == [tmp_path / "deep/one.xml"]


def test_what_changes_while_it_is_read_is_not_kept(tmp_path: Path) -> None:
    file = write(tmp_path, scenario(ROAD, CAR_5))
    source = recorded.find(f"commonroad:{file}")
    with pytest.raises(UserError, match="changed while it was recorded"):
        scenes.ensure(
            source, tmp_path, processes=1, on_scene=lambda *_: file.write_text(file.read_text() + " ")
        )
    assert not list((tmp_path / "driving").iterdir())


def test_a_file_is_a_data_set_too_and_few_scenes_are_in_all_parts(tmp_path: Path) -> None:
    file = write(tmp_path, scenario(ROAD, obstacle(5, along_x(31))), "one.xml")
    source = recorded.find(f"commonroad:{file}")
    scenes.ensure(source, tmp_path, processes=1)
    assert scenes.skipped_of(source, tmp_path) == ""
    for part in ("train", "val", "test"):
        assert len(scenes.load(source, tmp_path, part)["plan"]) == 6
    with pytest.raises(UserError, match=r"is not a folder, nor an \.xml file"):
        recorded.find(f"commonroad:{write(tmp_path, '', 'one.txt')}")
    assert recorded.find(f"commonroad:{file.rename(tmp_path / 'ONE.XML')}").total == 1


@pytest.mark.data
def test_recorded_ngsim_traffic_makes_samples() -> None:
    folder = Path(os.environ.get("ATTNSWEEP_DATA", "/nowhere")) / "commonroad"
    if not folder.is_dir():
        pytest.skip("needs CommonRoad's NGSIM scenarios in $ATTNSWEEP_DATA/commonroad")
    whole = {}
    for path in sorted(folder.glob("*.xml")):
        logs = [log for _, log in commonroad.logs_of(path, number=0) if isinstance(log, SceneLog)]
        for log in logs:
            made = samples_of(dataclasses.replace(log))
            assert all(np.isfinite(array.astype(float)).all() for array in made.values())
            _, aside = project(log.state[:, 0, :2], log.route)
            size = np.tile(log.size[0], (len(log.state), 1))
            boxes = np.concatenate([log.state[:, 0, :3], size], axis=1)
            assert np.abs(aside).max() < 2.1 and (log.drivable.at(corners(boxes)) > 0).all()
            if len(log.state) > 55 and log.valid[:, 0].all():
                whole[path.name] = whole.get(path.name, 0) + len(made["bev"])
                assert made["plan_mask"].all()
    assert whole["USA_US101-4_1_T-1.xml"] == 54 and whole["USA_Peach-4_8_T-1.xml"] == 8
