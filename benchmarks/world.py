"""Is the driving world fast enough to be rolled out inside a trial?

A trial of the planning stack ends with 50 or more episodes in closed loop, so the world must cost seconds
where a simulator of the usual kind costs minutes. Four figures, all on one thread unless said:

    agent-steps    vehicles moved by one step, per second: our world by number of scenes side by side, and
                   highway-env's own environments (road.act() and road.step(), no rendering, no observation),
                   in turns. Our step decides, steers and moves at 10 Hz on maps with priorities, theirs
                   at 15 Hz.
    the kernel     the largest operation of our step, the search for the nearest point of every path to every
                   agent, by numpy and by torch on the same arrays: why the world is numpy
    recording      scenes of `driving:small` and `driving:full` recorded per second, samples included, by one
                   process that is warm
    closed loop    episodes of 15 s with the sensor at 2 Hz, per second, by number of scenes side by side; the
                   planner is left out

Targets, by the agent-steps per second of highway-env's fastest environment, which senses nothing: at least 10
times as many at 32 scenes, 3 times as many in closed loop, and as many while `driving:small` is recorded.
Takes about 2 min on one core; `benchmarks/planning.py --part world` runs it.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from attnsweep.tasks.driving.records import presets
from attnsweep.tasks.driving.records.observer import observer_of
from attnsweep.tasks.driving.world.cast import Crowd, draw_cast
from attnsweep.tasks.driving.world.kinematics import DT
from attnsweep.tasks.driving.world.maps import draw_map
from attnsweep.tasks.driving.world.roads import RoadMap
from attnsweep.tasks.driving.world.traffic import World

SIDE_BY_SIDE = (1, 8, 32, 100)
THEIRS = ("intersection-v2", "roundabout-v1", "merge-v1", "highway-v0")
SECONDS = 10.0  # simulated, in one turn
LEAST_SPEEDUP, LEAST_IN_CLOSED_LOOP, LEAST_RECORDING = 10.0, 3.0, 1.0  # times highway-env
EPISODE_S = 15.0
LINE = "  {:<34}{:>12}{:>12}{:>12}"


def our_maps(count: int) -> list[RoadMap]:
    """The first test maps of the small preset, with all that is computed once per map."""
    preset = presets.PRESETS["driving:small"]
    maps = [draw_map(seed, kinds=preset.kinds) for seed in preset.seeds("test")[:count]]
    maps += [draw_map(seed, kinds=preset.kinds) for seed in range(60_000, 60_000 + count - len(maps))]
    for road_map in maps:
        assert road_map.paint.size and road_map.zones is not None
    return maps


def new_world(maps: list[RoadMap]) -> World:
    return World(maps, [draw_cast(road_map, Crowd(drivers=12), dt=DT) for road_map in maps])


def our_rate(maps: list[RoadMap]) -> float:
    """Agent-steps per second; only agents that are there count."""
    world, moved = new_world(maps), 0
    began = time.perf_counter()
    for _ in range(round(SECONDS / DT)):
        moved += int(world.active.sum())
        world.step()
    return moved / (time.perf_counter() - began)


def their_rate(name: str) -> float:
    """Agent-steps per second of one of highway-env's environments."""
    import gymnasium
    import highway_env

    gymnasium.register_envs(highway_env)
    env: Any = gymnasium.make(name).unwrapped
    env.reset(seed=0)
    moved, began = 0, time.perf_counter()
    for _ in range(round(SECONDS * 15)):
        moved += len(env.road.vehicles)
        env.road.act()
        env.road.step(1 / 15)
    return moved / (time.perf_counter() - began)


def in_turns(measures: dict[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """What each measures in each turn."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(turns):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def kernel_ms(maps: list[RoadMap], calls: int = 30) -> tuple[float, float]:
    """Milliseconds of the nearest-point search by numpy and by torch, medians, called in turns."""
    world = new_world(maps)
    cx, cy, square = world.tables.coarse
    x = (-2 * world.state[..., 0]).astype(np.float32)[:, None, :, None]
    y = (-2 * world.state[..., 1]).astype(np.float32)[:, None, :, None]
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in (cx, cy, square, x, y)]

    def by_numpy() -> np.ndarray:
        score = cx * x
        score += cy * y
        score += square
        return score.argmin(axis=-1)

    def by_torch() -> torch.Tensor:
        tx, ty, ts, px, py = tensors
        return torch.argmin((tx * px).addcmul_(ty, py).add_(ts), dim=-1)

    assert (by_numpy() == np.asarray(by_torch())).mean() > 0.99  # ties are rounded differently
    times: tuple[list[float], list[float]] = [], []
    for _ in range(calls):
        for call, found in zip((by_numpy, by_torch), times, strict=True):
            began = time.perf_counter()
            call()
            found.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[0]), statistics.median(times[1])


def recording_rate(name: str, count: int = 16) -> float:
    """Scenes recorded per second, after one batch to warm up."""
    preset = presets.find(name)
    presets.record(preset, preset.seeds("val")[: presets.BATCH])
    seeds = preset.seeds("train")[:count]
    began = time.perf_counter()
    for first in range(0, count, presets.BATCH):
        presets.record(preset, seeds[first : first + presets.BATCH])
    return count / (time.perf_counter() - began)


def episodes_s(maps: list[RoadMap]) -> float:
    """Seconds that closed-loop episodes of 15 s on these maps take together, senses included."""
    world = new_world(maps)
    observer = observer_of(maps, world)
    began = time.perf_counter()
    for step in range(round(EPISODE_S / DT)):
        if step % 5 == 0:
            observer.observe()
        world.step()
    return time.perf_counter() - began


def verdict(name: str, reached: float, target: float, *, at_least: bool) -> str:
    met = reached >= target if at_least else reached <= target
    sign = ">=" if at_least else "<="
    return f"  {name}: {reached:.3g}, target {sign} {target:g}: {'met' if met else 'MISSED'}"


def report(turns: int) -> None:
    """Measures and prints everything."""
    maps = our_maps(max(SIDE_BY_SIDE))
    measures: dict[str, Callable[[], float]] = {
        f"our world, {n} scenes": lambda n=n: our_rate(maps[:n])  # type: ignore[misc]
        for n in SIDE_BY_SIDE
    }
    measures |= {f"highway-env {name}": lambda name=name: their_rate(name) for name in THEIRS}  # type: ignore[misc]
    found = in_turns(measures, turns)
    print("agent-steps per second")
    print(LINE.format("", "median", "lowest", "highest"))
    for name, measured in found.items():
        values = statistics.median(measured), min(measured), max(measured)
        print(LINE.format(name, *(f"{value:,.0f}" for value in values)))

    print("the nearest-point search, ms by numpy and by torch")
    for n in SIDE_BY_SIDE:
        print(LINE.format(f"{n} scenes", *(f"{ms:.3f}" for ms in kernel_ms(maps[:n])), ""))

    rates = {name: recording_rate(name) for name in ("driving:small", "driving:full")}
    print("scenes recorded per second and process")
    for name, rate in rates.items():
        print(LINE.format(name, f"{rate:.2f}", "", ""))

    episodes = episodes_s(maps[:50])
    print(f"closed loop without planner: 50 episodes of {EPISODE_S:.0f} s in {episodes:.1f} s")

    fastest = [max(found[f"highway-env {name}"][turn] for name in THEIRS) for turn in range(turns)]
    theirs, agents = statistics.median(fastest), new_world(maps[:50]).active.sum() / 50
    ratios = [ours / best for ours, best in zip(found["our world, 32 scenes"], fastest, strict=True)]
    driven = 50 * agents * EPISODE_S / DT / episodes / theirs
    recorded = rates["driving:small"] * agents * presets.find("driving:small").seconds / DT / theirs
    print("targets, times highway-env's fastest")
    print(verdict("32 scenes side by side", statistics.median(ratios), LEAST_SPEEDUP, at_least=True))
    print(verdict("in closed loop", driven, LEAST_IN_CLOSED_LOOP, at_least=True))
    print(verdict("while driving:small is recorded", recorded, LEAST_RECORDING, at_least=True))
