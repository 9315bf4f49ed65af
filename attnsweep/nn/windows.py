"""Sliding windows: tokens attend to what is near and to the first few, the sinks of "Efficient Streaming
Language Models with Attention Sinks" (https://arxiv.org/abs/2309.17453).

torch has no kernel for them on a CPU: with a mask it computes the closed pairs too. So long sequences are cut
into blocks of queries, each of which reads the keys around it (`cost.in_blocks` says how long): time and
memory then go with the length, not with its square. Shapes and masks are those of `kernels`.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnsweep.nn.cost import BLOCK
from attnsweep.nn.design import Variant
from attnsweep.nn.kernels import Kernel, Mask, four_axes
from attnsweep.nn.positions import distances


def window_mask(
    queries: Int[Tensor, "*c n"], keys: Int[Tensor, "*c m"], window: int, sinks: int = 0
) -> Bool[Tensor, "*c n m"]:
    """A query may attend to what is less than `window` tokens away from it, and to the first `sinks` tokens
    (n, m), of the places where they stand.
    """
    queries, keys = queries[..., :, None], keys[..., None, :]
    return ((queries - keys).abs() < window) | (keys < sinks)


def read_in_blocks(
    kernel: Kernel,
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b g n d"],
    values: Float[Tensor, "b g n d"],
    *,
    variant: Variant,
    mask: Mask | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n d"]:
    """What the tokens of a sequence read under the variant's window, its c blocks as examples of a batch.

    Raises as `four_axes` does where the mask does not fit.
    """
    n, blocks = queries.shape[2], -(-queries.shape[2] // BLOCK)
    window, filled = variant.window or n, blocks * BLOCK - n
    after = 0 if causal else window - 1
    around = range(1 - window, BLOCK + after)  # a block's keys, as seen from its first query

    def read_by_blocks(x: Tensor) -> Tensor:
        near = F.pad(x, (0, 0, window - 1, filled + after)).unfold(2, len(around), BLOCK)
        first = repeat(x[:, :, : variant.sinks], "b g s d -> (b c) g s d", c=blocks)
        return torch.cat([first, rearrange(near, "b g c d m -> (b c) g m d")], dim=2)

    here = torch.arange(blocks * BLOCK, device=queries.device).view(blocks, BLOCK)
    there = here[:, :1] + torch.arange(around.start, around.stop, device=queries.device)
    there = there.masked_fill(there < variant.sinks, -1)  # they come once, in front
    there = torch.cat([torch.arange(variant.sinks, device=here.device).expand(blocks, -1), there], dim=1)
    is_open = window_mask(here, there, window, variant.sinks) & ((there >= 0) & (there < n))[:, None]
    if causal:
        is_open &= there[:, None] <= here[..., None]
    is_open = is_open[None, :, None]  # (1, c, 1, n, m)
    if mask is not None:
        whole = four_axes(mask, queries, keys)
        rows, columns = (
            at.clamp(0, size - 1) for at, size in zip((here, there), whole.shape[2:], strict=True)
        )
        is_open = is_open & rearrange(
            whole[:, :, rows[..., None], columns[:, None]], "b h c n m -> b c h n m"
        )
    bias = None
    if variant.positions == "alibi":
        of_blocks = [
            distances(*places, queries.shape[1], like=queries) for places in zip(here, there, strict=True)
        ]
        bias = repeat(torch.stack(of_blocks), "c h n m -> (b c) h n m", b=len(queries))
    read = kernel(
        rearrange(F.pad(queries, (0, 0, 0, filled)), "b h (c n) d -> (b c) h n d", c=blocks),
        read_by_blocks(keys), read_by_blocks(values),
        mask=is_open.expand(len(queries), *is_open.shape[1:]).flatten(0, 1), bias=bias, dropout=dropout,
    )  # fmt: skip
    return rearrange(read, "(b c) h n d -> b h (c n) d", c=blocks)[:, :, :n]
