"""What does it cost to hold all the weights of attention, as the equation has it, and from which length on?

One multi-head self-attention with its projections goes three ways, on the same tokens, with equal weights and
(this is asserted) equal results:

    explicit    attnsweep's, softmax of the product as it is written: holds weights for every pair of tokens
    fused       attnsweep's, by torch's scaled_dot_product_attention, which goes over the keys in blocks
    torch       torch.nn.MultiheadAttention with need_weights=False, for inference on its own fast path

Printed is a Markdown table with a line per pass (inference; training, which is forward and backward) and
length. Its columns:

    MMAC             millions of multiply-accumulates of the forward pass by tasks.cost, all examples
    weights, tokens  theory, in MB (1e6 bytes) of float32: the weights of all pairs once; queries, keys,
                     values, what is read and the output
    ms               median latency of a call; the three take turns, each first in every third, so that what
                     else the machine does falls on all of them
    / fused          how many times as long as fused, as the median over the turns
    peak MB          what one call adds to the memory of a process of its own, after a small call

Takes a few minutes on one core.
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnsweep.measuring.device import pick_device
from attnsweep.measuring.memory import PeakMemory
from attnsweep.nn.attention import MultiHeadAttention
from attnsweep.nn.cost import multi_head
from attnsweep.nn.kernels import causal_mask
from attnsweep.results import provenance

WAYS = ("explicit", "fused", "torch")
PASSES = ("inference", "training")
LEAST_TURNS, TURNS_S = 6, 3.0  # of all three ways together
HEAD = (
    "pass", "tokens", "MMAC", "weights MB", "tokens MB", *(f"{way} ms" for way in WAYS),
    "explicit / fused", "torch / fused", *(f"{way} peak MB" for way in WAYS),
)  # fmt: skip
Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """What the attention is of."""

    batch: int
    tokens: int
    dim: int
    heads: int
    causal: bool

    @property
    def weights_mb(self) -> float:
        return self.batch * self.heads * self.tokens**2 * 4 / 1e6

    @property
    def tokens_mb(self) -> float:
        return 5 * self.batch * self.tokens * self.dim * 4 / 1e6

    @property
    def mmac(self) -> float:
        n, dim_head = self.tokens, self.dim // self.heads
        return self.batch * (multi_head(self.dim, n, n, heads=self.heads, dim_head=dim_head).macs or 0) / 1e6


# --- The three ways ---


def layer(way: str, shape: Shape, device: str) -> Layer:
    """A self-attention (b, n, d) to (b, n, d), with the same weights whichever the way."""
    torch.manual_seed(0)
    attention = "fused" if way == "torch" else way
    ours = MultiHeadAttention(shape.dim, heads=shape.heads, attention=attention).to(device).eval()
    mask = causal_mask(shape.tokens, shape.tokens).to(device) if shape.causal else None
    if way != "torch":
        return lambda x: ours(x, mask=mask)
    theirs, closed = torchs(ours, shape).to(device).eval(), None if mask is None else ~mask
    return lambda x: theirs(x, x, x, attn_mask=closed, need_weights=False)[0]


def torchs(ours: MultiHeadAttention, shape: Shape) -> nn.MultiheadAttention:
    """Torch's layer with the weights of ours; the biases of both are zero."""
    theirs = nn.MultiheadAttention(shape.dim, shape.heads, batch_first=True)
    projections = [ours.to_queries.weight, ours.to_keys.weight, ours.to_values.weight]
    theirs.in_proj_weight.data.copy_(torch.cat(projections))
    theirs.out_proj.load_state_dict(ours.to_output.state_dict())
    return theirs


def tokens(shape: Shape, device: str) -> Tensor:
    """The same normal noise each time, (b, n, d)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape.batch, shape.tokens, shape.dim, generator=generator).to(device)


def call(way: str, what: str, shape: Shape, device: str) -> Callable[[], Tensor]:
    """One pass; returns the output."""
    attend, x = layer(way, shape, device), tokens(shape, device)
    if what == "inference":
        return torch.inference_mode()(lambda: attend(x))
    x.requires_grad_()

    def train() -> Tensor:
        output = attend(x)
        output.sum().backward()
        return output.detach()

    return train


# --- Measuring ---


def latencies_ms(what: str, shape: Shape, device: str) -> dict[str, list[float]]:
    """Of each way, the milliseconds of its call in each turn."""
    calls = {way: call(way, what, shape, device) for way in WAYS}
    synchronise = torch.get_device_module(device).synchronize
    expected = calls["explicit"]()
    for one in calls.values():  # this is their warm-up, too
        torch.testing.assert_close(one(), expected, rtol=1e-4, atol=1e-4)
        one()
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    began, turn = time.perf_counter(), 0
    while turn < LEAST_TURNS or time.perf_counter() - began < TURNS_S:
        first = turn % len(WAYS)
        for way in WAYS[first:] + WAYS[:first]:
            synchronise()
            start = time.perf_counter_ns()
            calls[way]()
            synchronise()
            found[way].append((time.perf_counter_ns() - start) / 1e6)
        turn += 1
    return found


def added_mb(way: str, what: str, shape: Shape, device: str) -> float:
    """By how much one call raises the peak memory of this process, which should have done nothing else."""
    torch.set_num_threads(1)
    small = Shape(shape.batch, 8, shape.dim, shape.heads, shape.causal)
    call(way, what, small, device)()
    ready = call(way, what, shape, device)
    memory = PeakMemory(device)
    before = memory.mb()
    ready()
    return memory.mb() - before


def peaks_mb(what: str, shape: Shape, device: str) -> dict[str, float]:
    """`added_mb` of each way, in a process of its own."""
    found = {}
    for way in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[way] = pool.apply(added_mb, (way, what, shape, device))
    return found


# --- Printing ---


def line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def measured(what: str, shape: Shape, device: str) -> str:
    """A line of the table."""
    times, peaks = latencies_ms(what, shape, device), peaks_mb(what, shape, device)
    against = [
        statistics.median(one / fused for one, fused in zip(times[way], times["fused"], strict=True))
        for way in ("explicit", "torch")
    ]
    theory = (f"{shape.mmac:,.1f}", f"{shape.weights_mb:,.1f}", f"{shape.tokens_mb:,.1f}")
    medians = (f"{statistics.median(times[way]):.2f}" for way in WAYS)
    ratios, memory = (f"{ratio:.2f}" for ratio in against), (f"{peaks[way]:,.1f}" for way in WAYS)
    return line(what, shape.tokens, *theory, *medians, *ratios, *memory)


def machine(device: str) -> str:
    """Device, versions and how busy the machine is."""
    load = os.getloadavg()[0]
    busy = "; BUSY: trust the ratios only" if load > 0.5 else ""
    where = f"{provenance.device_name(device, 1)}, load {load:.1f} before the start{busy}"
    return f"{where}; python {platform.python_version()}, torch {torch.__version__}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--lengths", type=int, nargs="+", default=[16, 64, 256, 1024, 4096], help="in tokens")
    add("--passes", nargs="+", choices=PASSES, default=PASSES)
    add("--batch", type=int, default=1)
    add("--dim", type=int, default=128)
    add("--heads", type=int, default=4)
    add("--causal", action="store_true", help="with a causal mask, as a boolean tensor")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    device = pick_device(gpu=1)
    sizes = f"batch {options.batch}, dim {options.dim}, {options.heads} heads, float32"
    print(f"{machine(device)}; {sizes}{', causal mask' if options.causal else ''}\n")
    print(line(*HEAD), line("---", *["---:"] * (len(HEAD) - 1)), sep="\n", flush=True)
    for what in options.passes:
        for length in options.lengths:
            shape = Shape(options.batch, length, options.dim, options.heads, options.causal)
            print(measured(what, shape, device), flush=True)


if __name__ == "__main__":
    main()
