"""The small models that every latency is measured beside, and their own time on a device.

Blocks of a transformer in torch's own layers, of which the weights are fixed and play no part. At a small
batch a forward pass is a row of short kernels and of what dispatches them; at a large one it is arithmetic
and memory. A reference is to feel what a model feels, so there is one for each: two blocks over 17 tokens of
256 features (a millisecond on a CPU's core), for one example and for sixteen. Their 4 MB of weights do not
stay in a core's own cache, as a model's do not, so what neighbours do to the shared one falls on both. Of
those that were tried, from a few convolutions of 0.07 ms to four blocks of 1.5 ms, it repeated best without
a bias; what is small and stays in the cache by itself takes half as long again after a model.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnsweep.core.deployment import Reference
from attnsweep.measuring.pairs import Call, Clocks, ns_of, timed

SEED = 0
BURSTS, BURST_S, PAUSE_S = 20, 0.05, 0.05  # by which a reference's own time is measured, over two seconds


class Block(nn.Module):
    """A pre-norm transformer block (Vaswani et al. 2017, sections 3.1 to 3.3), written out."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (b, n, dim) to tokens."""
        b, n, dim = x.shape
        q, k, v = self.to_qkv(self.norm_attention(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = functional.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        x = x + self.to_out((weights @ v).transpose(1, 2).reshape(b, n, dim))
        return x + self.mlp(self.norm_mlp(x))


def reference_call(reference: Reference, device: str, synchronise: Callable[[], object]) -> Call:
    """A forward pass of the reference on the device, in single precision; to be called in inference mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = nn.Sequential(Block(256, 4), Block(256, 4)).eval().to(device)
        x = torch.randn(reference.batch, 17, 256).to(device)

    def call() -> None:
        model(x)
        synchronise()

    return call


def reference_ms(
    call: Call, *, clocks: Clocks | None = None, sleep: Callable[[float], None] = time.sleep
) -> float:
    """A reference's own time in ms: the median over twenty bursts of calls, which lie over two seconds so
    that no passing disturbance decides. To be kept for each device.
    """
    clocks, medians = clocks or Clocks(), []
    call()
    for _ in range(BURSTS):
        until, burst = clocks.wall() + BURST_S * 1e9, [timed(call, clocks)]
        while clocks.wall() < until:
            burst.append(timed(call, clocks))
        medians.append(statistics.median(ns_of(burst)))
        sleep(PAUSE_S)
    return statistics.median(medians) / 1e6
