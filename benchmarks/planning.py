"""What the planning stack costs: to train, to answer, to be judged by driving; and the world it drives in.

    python benchmarks/planning.py [--part world|stack] [--turns 5]

`world` is described in world.py. `stack`, all on one thread, at the default sizes, for the planner alone
(id10), by the scanner and by cameras, and for all stages (id12):

    training       samples per second, median over steps of 32 samples
    Python         the share of a step that matching and the gathering of samples take
    answer         median latency at batch 1, by the protocol of `attnsweep.measuring.measure`
    driving        seconds for 50 maps x 15 s in closed loop, against the seconds of one training epoch of
                   `driving:small` at that speed

Targets: the share of matching and gathering under 15 %; 50 maps driven in less than one epoch. About 3 min.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import world

from attnsweep.core.axes import Config
from attnsweep.core.deployment import Deployment, Subject
from attnsweep.measuring import measure
from attnsweep.results import provenance
from attnsweep.tasks.driving.judging.baselines import policy_of
from attnsweep.tasks.driving.judging.course import course, judge
from attnsweep.tasks.driving.records import presets, scenes
from attnsweep.tasks.driving.records.batches import inputs_of, rig_of, rows, tensors
from attnsweep.tasks.driving.stack import losses
from attnsweep.tasks.registry import build, resolve

PLANNERS = {
    "id10": {"stages": "id10"},
    "id12": {"stages": "id12"},
    "id10, cameras": {"stages": "id10", "sensor": "cameras"},
}
BATCH, MAPS = 32, 50
SAMPLES = 6_400  # about, in the training part of driving:small
MOST_SHARE = 0.15


class Clock:
    """Seconds spent in the calls that it is put around."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


@contextmanager
def matching_timed(clock: Clock) -> Iterator[None]:
    """The losses' matching counts on the clock."""
    original = losses.match
    losses.match = clock.around(original)
    try:
        yield
    finally:
        losses.match = original


def training(config: Config, data: dict[str, torch.Tensor], steps: int) -> tuple[float, float]:
    """Seconds of a training step, the median, and the share of matching and gathering."""
    torch.manual_seed(0)
    model, inputs = build(config).train(), inputs_of(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    clock, times = Clock(), []
    gather = clock.around(rows)
    with matching_timed(clock):
        for step in range(steps + 2):
            began = time.perf_counter()
            batch = gather(data, torch.randint(len(data["plan"]), (BATCH,)))
            optimizer.zero_grad(set_to_none=True)
            losses.total(losses.losses(model(*(batch[name] for name in inputs)), batch)).backward()
            optimizer.step()
            times.append(time.perf_counter() - began)
            if step == 1:  # the first two warm up
                times, clock.seconds = [], 0.0
    return statistics.median(times), clock.seconds / sum(times)


def answer_ms(config: Config) -> float:
    """Median latency of one answer."""
    row = measure.measure_architecture(Subject("", config), Deployment(), device="cpu")
    return float(row["latency_ms_p50"])


def driving_s(config: Config) -> float:
    """Seconds that an untrained stack takes to drive and be scored, the expert's drive left out."""
    model, run = build(config).eval(), course("driving:small", "test", MAPS)
    for one in run.maps:
        _ = one.paint  # drawn once for all drives
    began = time.perf_counter()
    with torch.inference_mode():
        judge(run, policy_of(model, inputs_of(config)), rig_of(config))
    return time.perf_counter() - began


def report(turns: int) -> None:
    """Measures and prints what the stack costs."""
    preset = presets.find("driving:tiny+cameras")
    line = "  {:<15}{:>14}{:>12}{:>14}{:>14}{:>14}"
    print(line.format("", "samples/s", "Python", "answer (ms)", "50 maps (s)", "epoch (s)"))
    with tempfile.TemporaryDirectory() as folder:
        scenes.ensure(preset, Path(folder), processes=1)
        recorded = scenes.load(preset, Path(folder), "train")
        for name, point in PLANNERS.items():
            config = resolve({"model": "planning", **point})
            step_s, share = training(config, tensors(recorded, inputs_of(config)), steps=10 * turns)
            drive_s, epoch_s = driving_s(config), SAMPLES / BATCH * step_s
            cells = (f"{BATCH / step_s:.0f}", f"{100 * share:.1f} %", f"{answer_ms(config):.2f}")
            print(line.format(name, *cells, f"{drive_s:.1f}", f"{epoch_s:.0f}"))
            print(world.verdict("share of matching and gathering", share, MOST_SHARE, at_least=False))
            print(world.verdict("50 maps, in epochs", drive_s / epoch_s, 1.0, at_least=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=("world", "stack"), help="one part only")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    where = provenance.device_name("cpu", 1)
    print(f"{where}, {platform.python_version()}, numpy {np.__version__}, torch {torch.__version__}")
    for name, part in (("stack", report), ("world", world.report)):
        if options.part in (None, name):
            part(options.turns)


if __name__ == "__main__":
    main()
