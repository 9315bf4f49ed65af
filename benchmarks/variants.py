"""What does each variant of attention cost beside the fused kernel, and is that what its arithmetic says?

A multi-head self-attention with its projections under a causal mask, in pairs: one call of the variant, one
of the fused kernel on the same tokens, the first of them in turn, so that what else the machine does falls on
both. Printed is a Markdown table with a line per pass, length and variant. Its columns:

    ms               median of the variant, on a CPU in processor time
    / fused          median over the pairs of its time over that of the fused kernel
    arithmetic       its multiply-accumulates by nn.cost over those of the fused kernel
    ratio            the one over the other: 1 where time goes as arithmetic does
    kernel           what of it runs in a kernel of torch's: flash (goes over the keys in blocks), masked (the
    same,
                     with a mask, so that closed pairs are computed too) or none (weights are held)
    cache            bytes that its cache was measured to hold of one sequence, after so many tokens, in
    float32; the
                     closed form is asserted to be the same

Passes: training is forward and backward; decoding is one token after so many in the cache. `torch` is
torch.nn.MultiheadAttention with need_weights=False; it has no cache, and so decodes by reading all tokens
again.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from attention import Shape, line, machine, tokens, torchs
from torch import Tensor

from attnsweep.measuring.device import pick_device
from attnsweep.nn.attention import Cache, MultiHeadAttention
from attnsweep.nn.cost import cache_bytes, multi_head
from attnsweep.nn.design import PLAIN, Variant
from attnsweep.nn.kernels import causal_mask

Call = Callable[[], object]
VARIANTS: dict[str, tuple[str, Variant, str]] = {  # the kind of attention, the rest of it, torch's kernel
    "explicit": ("explicit", PLAIN, "none"),
    "kv_heads=1": ("fused", Variant(kv_heads=1), "flash"),
    "qk_norm": ("fused", Variant(qk_norm="rms"), "flash"),
    "rope": ("fused", Variant(positions="rope"), "flash"),
    "alibi": ("fused", Variant(positions="alibi"), "masked; from 512 tokens on flash"),
    "window=64": ("fused", Variant(window=64, sinks=4), "masked"),
    "gated": ("gated", PLAIN, "flash"),
    "differential": ("differential", PLAIN, "flash, two maps"),
    "linear": ("linear", PLAIN, "none needed"),
    "sigmoid": ("sigmoid", PLAIN, "none"),
}
PASSES = ("training", "decoding")
LEAST_PAIRS, PAIRS_S = 5, 1.5
HEAD = ("pass", "tokens", "variant", "ms", "/ fused", "arithmetic", "ratio", "kernel", "cache")


def attention_of(name: str, shape: Shape, device: str) -> MultiHeadAttention:
    """The layer of a variant, or the fused one."""
    torch.manual_seed(0)
    attention, variant, _ = VARIANTS.get(name, ("fused", PLAIN, ""))
    layer = MultiHeadAttention(shape.dim, heads=shape.heads, attention=attention, variant=variant)
    return layer.to(device).eval()


def training(layer: Callable[[Tensor], Tensor], shape: Shape, device: str) -> Call:
    """A forward and a backward pass."""
    x = tokens(shape, device).requires_grad_()

    def step() -> None:
        layer(x).sum().backward()

    return step


def decoding(layer: MultiHeadAttention, shape: Shape, device: str) -> tuple[Call, int]:
    """Reads one token more than a cache of so many holds, and the bytes of that cache."""
    x = tokens(shape, device)
    with torch.inference_mode():
        full = Cache()
        layer(x, causal=True, cache=full)
    held, seen, last = full.held, full.tokens, x[:, -1:]

    @torch.inference_mode()
    def step() -> None:
        cache = Cache()
        cache.held, cache.tokens = held, seen
        layer(last, causal=True, cache=cache)

    return step, full.bytes


def torch_call(what: str, shape: Shape, device: str) -> Call:
    """The same by torch's own module."""
    theirs = torchs(attention_of("", shape, device), shape).to(device).eval()
    closed = ~causal_mask(shape.tokens, shape.tokens).to(device)
    if what == "training":
        return training(lambda x: theirs(x, x, x, attn_mask=closed, need_weights=False)[0], shape, device)
    x = tokens(shape, device)
    return torch.inference_mode()(lambda: theirs(x[:, -1:], x, x, need_weights=False)[0])


def timed(one: Call, other: Call, device: str) -> tuple[float, float]:
    """The median ms of the one, and the median over pairs of its time over the other's: on a CPU in processor
    time, so that who else computes there does not count.
    """
    synchronise = torch.get_device_module(device).synchronize
    clock = time.process_time_ns if device == "cpu" else time.perf_counter_ns
    found: dict[Call, list[float]] = {one: [], other: []}
    for call in (one, other):
        call()
    began, pair = time.perf_counter(), 0
    while pair < LEAST_PAIRS or time.perf_counter() - began < PAIRS_S:
        for call in (one, other) if pair % 2 else (other, one):
            synchronise()
            start = clock()
            call()
            synchronise()
            found[call].append((clock() - start) / 1e6)
        pair += 1
    ratios = [mine / its for mine, its in zip(found[one], found[other], strict=True)]
    return statistics.median(found[one]), statistics.median(ratios)


def macs(what: str, name: str, shape: Shape) -> int:
    """The multiply-accumulates of a pass; of a decoding step what one more token adds in projections and in
    reading the cache.
    """
    attention, variant, _ = VARIANTS.get(name, ("fused", PLAIN, ""))
    n, dim_head = shape.tokens, shape.dim // shape.heads
    cost = functools.partial(
        multi_head, shape.dim, heads=shape.heads, dim_head=dim_head, attention=attention, variant=variant
    )
    if what == "training":
        return cost(n, n, causal=True).macs or 0
    alone = cost(1, 1, causal=True).macs or 0
    held = n if variant.window is None else min(n, variant.sinks + variant.window - 1)
    maps = 2
    read = shape.heads * (shape.dim // shape.heads) ** 2 if attention == "linear" else maps * held * shape.dim
    return alone + read


def measured(what: str, name: str, shape: Shape, device: str) -> str:
    """A line of the table."""
    plain, held = attention_of("", shape, device), ""
    if name == "torch":
        one, other = torch_call(what, shape, device), None
    elif what == "training":
        layer = attention_of(name, shape, device)
        one, other = training(lambda x: layer(x, causal=True), shape, device), None
    else:
        layer = attention_of(name, shape, device)
        one, size = decoding(layer, shape, device)
        attention, variant, _ = VARIANTS[name]
        sizes: dict[str, Any] = dict(
            heads=shape.heads, dim_head=shape.dim // shape.heads, attention=attention
        )
        assert size == cache_bytes(shape.tokens, variant=variant, **sizes)
        held = f"{size:,}"
    if what == "training":
        other = training(lambda x: plain(x, causal=True), shape, device)
    else:
        other, _ = decoding(plain, shape, device)
    ms, ratio = timed(one, other, device)
    cells = (what, shape.tokens, name, f"{ms:.2f}", f"{ratio:.2f}")
    if name == "torch":
        return line(*cells, "", "", "", held)
    paper = macs(what, name, shape) / macs(what, "", shape)
    return line(*cells, f"{paper:.2f}", f"{ratio / paper:.2f}", VARIANTS[name][2], held)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--lengths", type=int, nargs="+", default=[128, 1024, 4096], help="in tokens")
    add("--passes", nargs="+", choices=PASSES, default=PASSES)
    add("--variants", nargs="+", choices=(*VARIANTS, "torch"), default=(*VARIANTS, "torch"))
    add("--dim", type=int, default=128)
    add("--heads", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = pick_device(gpu=1)
    print(f"{machine(device)}; batch 1, dim {options.dim}, {options.heads} heads, float32, causal\n")
    print(line(*HEAD), line("---", "---:", "---", *["---:"] * 4, "---", "---:"), sep="\n", flush=True)
    for what in options.passes:
        for length in options.lengths:
            shape = Shape(1, length, options.dim, options.heads, causal=True)
            for name in options.variants:
                print(measured(what, name, shape, device), flush=True)


if __name__ == "__main__":
    main()
