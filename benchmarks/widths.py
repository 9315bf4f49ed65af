"""The width at which each attention mechanism costs the same here: a latency, or a number of parameters.

    python benchmarks/widths.py --latency-ms 2          # at batch 1, on one CPU thread, or on the GPU
    python benchmarks/widths.py --params 420000

Prints the table WIDTHS of `sweeps/attention_zoo.py` and `sweeps/attention_zoo_latency.py`: paste it there to
ask their question of your hardware. A mechanism that cannot come within `--within` of the target is left out,
and named. All else is as in those sweeps: depth 4, 4 heads of 16, mlp_dim twice the width, MNIST.

Latency is measured as `python -m attnsweep measure` does, but in one process; some 10 min on an idle core.
"""

import argparse
import contextlib
import functools
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator

from attnsweep.core.axes import Config
from attnsweep.core.deployment import DISPATCH, Deployment, Subject
from attnsweep.core.errors import UserError
from attnsweep.measuring import measure
from attnsweep.measuring.device import pick_device
from attnsweep.results import provenance
from attnsweep.space.trials import cost_of
from attnsweep.tasks.images import space as images
from attnsweep.tasks.registry import resolve

SHARED = dict(dataset="mnist", depth=4, heads=4, dim_head=16)
WIDTHS = range(4, 385)
NEAR_ENOUGH = 0.02
Cost = Callable[[Config], float]


def latency_ms(config: Config) -> float:
    """The median time of a forward pass at batch 1."""
    subject, device = Subject("", config, cost=cost_of(config)), pick_device(gpu=1)
    row = measure.measure_architecture(subject, Deployment(), device=device, reference_ms=own_ms(device))
    return float(row["latency_ms_p50"])


@functools.cache
def own_ms(device: str) -> float:
    """What the reference takes on the device."""
    return float(measure.measure_reference(DISPATCH, device=device, threads=1)["ms"])


def parameters(config: Config) -> float:
    """The trainable parameters."""
    return cost_of(config).params


def configurations(model: str) -> Iterator[Config]:
    """The mechanism at every width that it can be built at, the narrowest first."""
    for dim in WIDTHS:
        with contextlib.suppress(UserError):
            yield resolve({**SHARED, "model": model, "dim": dim, "mlp_dim": 2 * dim})


def nearest(model: str, target: float, of: Cost) -> tuple[int, float]:
    """The width whose cost is nearest to the target, or near enough, and that cost.

    Wider is not cheaper, so it bisects, at geometric means: costs grow with the width or its square.
    """
    known = list(configurations(model))
    low, high = 0, len(known) - 1
    costs = {at: of(known[at]) for at in (low, high)}
    while high - low > 1 and costs[low] < target < costs[high]:
        width = math.sqrt(known[low]["dim"] * known[high]["dim"])
        middle = min(range(low + 1, high), key=lambda at: abs(known[at]["dim"] - width))
        costs[middle] = of(known[middle])
        low, high = (middle, high) if costs[middle] < target else (low, middle)
        if abs(costs[middle] / target - 1) < NEAR_ENOUGH:
            break
    best = min(costs, key=lambda at: abs(costs[at] - target))
    return known[best]["dim"], costs[best]


def table(target: float, of: Cost, *, within: float) -> tuple[dict[int, list[str]], dict[str, float]]:
    """Width to the mechanisms that cost the target at it; and those that never do, with their nearest."""
    fitting: dict[int, list[str]] = defaultdict(list)
    others: dict[str, float] = {}
    for model in (name for name, takes in images.MODELS.items() if "dim" in takes):
        dim, found = nearest(model, target, of)
        print(f"{model}: {found:.4g} at dim {dim}", file=sys.stderr)
        if abs(found / target - 1) <= within:
            fitting[dim].append(model)
        else:
            others[model] = found
    return fitting, others


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--latency-ms", type=float, help="median time of a forward pass at batch 1")
    target.add_argument("--params", type=float, help="trainable parameters")
    parser.add_argument("--within", type=float, default=0.1, help="relative distance; default 0.1")
    options = parser.parse_args()
    wanted, of = (options.params, parameters) if options.params else (options.latency_ms, latency_ms)
    fitting, others = table(wanted, of, within=options.within)
    print(f"# {wanted:g} {'parameters' if options.params else 'ms'}, measured on "
          f"{provenance.device_name(pick_device(gpu=1), 1)}")  # fmt: skip
    print("WIDTHS = {")
    for dim in sorted(fitting, reverse=True):
        print(f'    {dim}: "{" ".join(fitting[dim])}",')
    print("}")
    if others:
        print("# out of reach: " + ", ".join(f"{model} ({found:.4g})" for model, found in others.items()))


if __name__ == "__main__":
    main()
