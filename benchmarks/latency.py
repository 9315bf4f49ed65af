"""Does a latency repeat, is it true, and how long does it take?

Five architectures of images (MNIST sizes, batch 1, one thread), in one run:

1. Repeats. Each is measured again and again, first with the machine as it is, then beside two processes that
   keep both cores busy: as a sweep does it, by its ratio to the reference in passes that take turns with the
   other architectures (`attnsweep.engine.meters`); by one such pass (`attnsweep.measuring.pairs`); and in the
   usual way, the median of 200 calls and half a second at least after as long a warm-up. Printed is the
   highest over the lowest of the repeats, their coefficient of variation, and the median beside the burners
   over that before; then how often two architectures that differ by 5 % or more came out in another order.
2. Truth. `torch.utils.benchmark` and ours in turns: the median of ours over theirs, as raw milliseconds and
   as ratio times the reference's own time, which is measured in the same turn.
3. Seconds per architecture and runtime, all included, and where they go: until the runtime has the model,
   and the timing, as in a sweep.
4. Nodes (with --nodes). A thousand architectures, each a nap of a second in place of a measurement, on 10 and
   50 nodes of a Ray cluster that is simulated here: a raylet, an object store and a worker each, a quarter of
   a GB, which all start on this machine's cores. So their start, the first architecture, which all of them
   measure, and the others are timed apart; of the last the speed-up over one node is printed.

Targets: 1. within 3 %, idle and busy, and no order flips; 2. within 5 % on an idle machine; 3. at most 1 s in
eager, measuring; 4. at least half of what as many nodes could give.

    python benchmarks/latency.py [--repeats 10] [--runtimes eager,onnxruntime,openvino] [--nodes [10,50]]
    python benchmarks/latency.py --repeats 0 --runtimes '' --nodes      # only the nodes
"""

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.benchmark import Timer

from attnsweep.core.axes import Config
from attnsweep.core.deployment import DISPATCH, Ask, Deployment, Subject
from attnsweep.core.text import words
from attnsweep.engine.engine import Bench, MachineInfo, Measured
from attnsweep.engine.meters import Meter
from attnsweep.measuring import measure
from attnsweep.measuring.device import cpu_threads
from attnsweep.measuring.pairs import quantile
from attnsweep.results import provenance
from attnsweep.results.store import Row
from attnsweep.space.trials import arch_id_of, cost_of
from attnsweep.tasks.registry import build, procedure, resolve

MODELS: tuple[tuple[str, dict[str, int]], ...] = (
    ("cnn", {}),
    ("vit", {"depth": 2}),
    ("vit", {"depth": 6}),
    ("hybrid", {"depth": 2}),
    ("cct", {"depth": 4}),
)
APART = 0.05  # relative: two architectures that differ by more are not to change places
WAYS = ("in turns", "one pass", "usual ms")
ARCHITECTURES, NAP_S, NODES = 1_000, 1.0, "10,50"


@dataclass(frozen=True)
class Case:
    """An architecture, and what calls it."""

    name: str
    config: Config
    call: Callable[[], object]


def cases() -> list[Case]:
    """The architectures."""
    found = []
    for model, sizes in MODELS:
        config = resolve({"model": model, "dataset": "mnist", **sizes})
        task = procedure(config["task"])
        ready = build(config).eval().to(memory_format=torch.channels_last)
        call = task.answer(ready, task.example(config, 1), config)
        found.append(Case(" ".join([model, *(f"{k}={v}" for k, v in sizes.items())]), config, call))
    return found


# --- Repeats ---


def usual_ms(call: Callable[[], object]) -> float:
    """The median of 200 calls and half a second at least, after a warm-up of half a second."""
    with torch.inference_mode():
        spent, times = 0, list[int]()
        while spent < 1_000_000_000 or len(times) < 200:
            began = time.perf_counter_ns()
            call()
            took = time.perf_counter_ns() - began
            spent += took
            if spent > 500_000_000:
                times.append(took)
    return statistics.median(times) / 1e6


def ratio(call: Callable[[], object]) -> float:
    """The ratio to the reference."""
    return measure.time_model(call, DISPATCH, device="cpu").ratio


@contextlib.contextmanager
def burners(count: int) -> Iterator[None]:
    """Processes that compute without end."""
    others = [multiprocessing.Process(target=burn, daemon=True) for _ in range(count)]
    for one in others:
        one.start()
    try:
        yield
    finally:
        for one in others:
            one.kill()


def burn() -> None:
    """Computes without end."""
    a = torch.randn(256, 256)
    torch.set_num_threads(1)
    while True:
        a = torch.tanh(a @ a)


def in_turns(shown: Sequence[Case], meter: Meter, runtime: str) -> list[Row]:
    """The row of each case, measured as a sweep does it, its times in units of the reference."""
    asks = [Ask(Deployment(runtime), subject_of(case.config)) for case in shown]
    rows = {one.ask.subject.arch_id: one.row for one in meter.measure(asks) if one.ask.subject and one.row}
    return [rows[ask.subject.arch_id] for ask in asks if ask.subject]


def repeats(shown: Sequence[Case], count: int) -> list[Mapping[str, list[float]]]:
    """For each of WAYS, by case, what so many repeats came to."""
    found: list[dict[str, list[float]]] = [{case.name: [] for case in shown} for _ in WAYS]
    with Meter() as meter:
        for _ in range(count):
            for case, row in zip(shown, in_turns(shown, meter, "eager"), strict=True):
                found[0][case.name].append(row["latency_rel"])
            for case in shown:
                found[1][case.name].append(ratio(case.call))
                found[2][case.name].append(usual_ms(case.call))
    return [*found]


def spread(values: Sequence[float]) -> str:
    """The highest over the lowest, and the coefficient of variation."""
    variation = statistics.stdev(values) / statistics.mean(values)
    return f"{max(values) / min(values):.3f} (cv {100 * variation:.1f} %)"


def flips(found: Sequence[Sequence[float]]) -> tuple[int, int]:
    """How often two rows of values that are apart changed places, of how many comparisons."""
    changed = compared = 0
    for one, other in itertools.combinations(found, 2):
        middle = statistics.median(one) < statistics.median(other)
        pair = sorted((statistics.median(one), statistics.median(other)))
        if pair[1] >= (1 + APART) * pair[0]:
            compared += len(one) * len(other)
            changed += sum((a < b) is not middle for a in one for b in other)
    return changed, compared


def print_repeats(shown: Sequence[Case], count: int) -> None:
    """See the first part of this file's docstring."""
    before = repeats(shown, count)
    with burners(2):
        busy = repeats(shown, count)
    print(f"\n{'1. repeats':<14}{'':<16}{'as it is':>20}{'busy':>20}{'busy/before':>13}")
    for way, idle, burdened in zip(WAYS, before, busy, strict=True):
        for case in shown:
            values = idle[case.name], burdened[case.name]
            moved = statistics.median(values[1]) / statistics.median(values[0])
            print(f"{way:<14}{case.name:<16}{''.join(f'{spread(one):>20}' for one in values)}{moved:>13.3f}")
    for way, idle, burdened in zip(WAYS, before, busy, strict=True):
        of_all = [[*idle[case.name], *burdened[case.name]] for case in shown]
        print("order by {}: {} of {:,} comparisons flipped".format(way, *flips(of_all)))


# --- Truth ---


def print_truth(shown: Sequence[Case], count: int) -> None:
    """See the second part."""
    print(f"\n{'2. truth':<16}{'raw ms / theirs':>18}{'ms / theirs':>18}")
    for case in shown:
        timer = Timer(
            "with torch.inference_mode(): call()", globals={"call": case.call}, timer=time.process_time
        )
        raw, scaled = [], []
        for _ in range(count):
            own_ms = measure.measure_reference(DISPATCH, device="cpu", threads=1)["ms"]
            timed = measure.time_model(case.call, DISPATCH, device="cpu")
            theirs = timer.blocked_autorange(min_run_time=0.5).median * 1e3
            raw.append(quantile(timed.ns, 0.5) / 1e6 / theirs)
            scaled.append(timed.ratio * own_ms / theirs)
        print(f"{case.name:<16}{statistics.median(raw):>18.3f}{statistics.median(scaled):>18.3f}")


# --- Seconds ---


def print_seconds(shown: Sequence[Case], runtimes: Sequence[str]) -> None:
    """See the third part."""
    print(
        f"\n{'3. seconds':<16}{'runtime':<14}{'prepare':>8}{'measure':>10}{'ms':>9}{'largest difference':>20}"
    )
    with Meter() as meter:
        (reference,) = meter.measure([Ask(Deployment())])
        own_ms = reference.row["ms"] if reference.row else 1.0
        for runtime in runtimes:
            in_turns(shown[:1], meter, runtime)  # imports
            began = time.perf_counter()
            rows = in_turns(shown, meter, runtime)
            took = (time.perf_counter() - began) / len(shown)
            for case, row in zip(shown, rows, strict=True):
                if row["error"]:
                    print(f"{case.name:<16}{runtime:<14}{row['error']}")
                    continue
                ms = own_ms * row["latency_rel"]
                numbers = f"{row['prepare_s']:>8.2f}{row['measure_s']:>10.2f}{ms:>9.3f}"
                print(f"{case.name:<16}{runtime:<14}{numbers}{row['max_abs_diff'] or 0.0:>20.1e}")
            print(f"{'all':<16}{runtime:<14}{took:.2f} s each, time between passes included")


def subject_of(config: Config) -> Subject:
    """What is measured."""
    return Subject(arch_id_of(config), config, None, cost_of(config))


# --- Nodes ---


def napping(asks: Sequence[Ask], gpus: float, cpus: int) -> Iterator[Measured | None]:
    """In place of measurements."""
    yield None
    for ask in asks:
        time.sleep(NAP_S)
        yield Measured(ask, {"latency_rel": 1.0, "host": ""})


@contextlib.contextmanager
def simulated(count: int) -> "Iterator[Bench]":
    """So many nodes of a kind, of a CPU each, whose measurements are naps."""
    import ray
    from ray.cluster_utils import Cluster

    from attnsweep.engine import on_ray

    on_ray.begin_and_measure = napping
    small: dict[str, Any] = {"object_store_memory": 80_000_000, "include_dashboard": False}
    local = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for _ in range(count):
            local.add_node(num_cpus=1, **small)
        ray.init(address=local.address, log_to_driver=False)
        nodes = [on_ray.Node(one["NodeID"], 1.0, 0.0) for one in ray.nodes() if one["Resources"].get("CPU")]
        yield on_ray.Kind(MachineInfo({1: ""}, {}, {}, cores=1), tuple(nodes), lambda reason: None)
    finally:
        ray.shutdown()
        local.shutdown()


def print_nodes(counts: Sequence[int]) -> None:
    """See the fourth part."""
    asks = [Ask(Deployment(), Subject(f"{i:012x}", {})) for i in range(ARCHITECTURES)]
    print(f"\n{'4. nodes':<16}{'start':>8}{'the first':>12}{'others, s':>12}{'speed-up':>12}")
    for count in counts:
        began = time.perf_counter()
        with simulated(count) as bench:
            print(f"{count:<16}{time.perf_counter() - began:>8.1f}", end="", flush=True)
            began, answers = time.perf_counter(), bench.measure(asks)
            next(answers)
            print(f"{time.perf_counter() - began:>12.1f}", end="", flush=True)
            began = time.perf_counter()
            assert sum(1 for _ in answers) == ARCHITECTURES - 1
            others_s = time.perf_counter() - began
        print(f"{others_s:>12.1f}{(ARCHITECTURES - 1) * NAP_S / others_s:>12.1f}", flush=True)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10, help="0 leaves out parts 1 and 2")
    parser.add_argument("--runtimes", type=words, default="eager,onnxruntime,openvino", help="of part 3")
    parser.add_argument("--nodes", type=words, nargs="?", default="", const=NODES, help="of part 4")
    options = parser.parse_args()
    print(f"{provenance.device_name('cpu', 1)}, torch {torch.__version__}", flush=True)
    with cpu_threads(1):
        shown = cases()
        if options.repeats:
            print_repeats(shown, options.repeats)
            print_truth(shown, max(3, options.repeats // 2))
    if options.runtimes:
        print_seconds(shown, options.runtimes)
    if options.nodes:
        print_nodes([int(word) for word in options.nodes])


if __name__ == "__main__":
    main()
