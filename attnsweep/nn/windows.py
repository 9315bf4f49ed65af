"""Sliding windows: tokens attend to what is near and to the first few, the sinks of "Efficient Streaming
Language Models with Attention Sinks" (https://arxiv.org/abs/2309.17453).

torch has no kernel for them on a CPU: given a mask, it computes the masked pairs too. So long sequences (see
`cost.blockwise_pairs`) are cut into blocks of queries that attend to the keys around them: time and memory
grow linearly with the length. Shapes and masks are those of `kernels`.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnsweep.nn.cost import BLOCK
from attnsweep.nn.design import Variant
from attnsweep.nn.kernels import Kernel, Mask, expand_mask
from attnsweep.nn.positions import alibi_bias


def window_mask(
    queries: Int[Tensor, "*c n"], keys: Int[Tensor, "*c m"], window: int, sinks: int = 0
) -> Bool[Tensor, "*c n m"]:
    """Keys less than `window` positions away, and the first `sinks`, are open: (n, m), of the positions."""
    queries, keys = queries[..., :, None], keys[..., None, :]
    return ((queries - keys).abs() < window) | (keys < sinks)


def blockwise_attention(
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
    """Self-attention under the variant's window: the c blocks of queries become examples of a batch.

    Raises as `expand_mask` does where the mask does not fit.
    """
    n, blocks = queries.shape[2], -(-queries.shape[2] // BLOCK)
    window, filled = variant.window or n, blocks * BLOCK - n
    after = 0 if causal else window - 1
    around = range(1 - window, BLOCK + after)  # a block's keys, as seen from its first query

    def near(x: Tensor) -> Tensor:
        """The keys or values that each block attends to: the sinks, then those around it."""
        unfolded = F.pad(x, (0, 0, window - 1, filled + after)).unfold(2, len(around), BLOCK)
        sinks = repeat(x[:, :, : variant.sinks], "b g s d -> (b c) g s d", c=blocks)
        return torch.cat([sinks, rearrange(unfolded, "b g c d m -> (b c) g m d")], dim=2)

    here = torch.arange(blocks * BLOCK, device=queries.device).view(blocks, BLOCK)
    there = here[:, :1] + torch.arange(around.start, around.stop, device=queries.device)
    there = there.masked_fill(there < variant.sinks, -1)  # the sinks come once, in front
    there = torch.cat([torch.arange(variant.sinks, device=here.device).expand(blocks, -1), there], dim=1)
    is_open = window_mask(here, there, window, variant.sinks) & ((there >= 0) & (there < n))[:, None]
    if causal:
        is_open &= there[:, None] <= here[..., None]
    is_open = is_open[None, :, None]  # (1, c, 1, n, m)
    if mask is not None:
        is_open = is_open & mask_of_blocks(expand_mask(mask, queries, keys), here, there)
    bias = bias_of_blocks(queries, here, there) if variant.positions == "alibi" else None
    read = kernel(
        rearrange(F.pad(queries, (0, 0, 0, filled)), "b h (c n) d -> (b c) h n d", c=blocks),
        near(keys), near(values),
        mask=is_open.expand(len(queries), *is_open.shape[1:]).flatten(0, 1), bias=bias, dropout=dropout,
    )  # fmt: skip
    return rearrange(read, "(b c) h n d -> b h (c n) d", c=blocks)[:, :, :n]


def mask_of_blocks(
    mask: Bool[Tensor, "b h n m"], queries: Int[Tensor, "c q"], keys: Int[Tensor, "c k"]
) -> Bool[Tensor, "b c h q k"]:
    """A mask of the whole sequence at the positions of each block's queries and keys."""
    rows, columns = (
        positions.clamp(0, size - 1) for positions, size in zip((queries, keys), mask.shape[2:], strict=True)
    )
    return rearrange(mask[:, :, rows[..., None], columns[:, None]], "b h c q k -> b c h q k")


def bias_of_blocks(
    like: Float[Tensor, "b h n d"], queries: Int[Tensor, "c q"], keys: Int[Tensor, "c k"]
) -> Float[Tensor, "bc h q k"]:
    """ALiBi's bias at the positions of each block's queries and keys."""
    blocks = [alibi_bias(*pair, like.shape[1], like=like) for pair in zip(queries, keys, strict=True)]
    return repeat(torch.stack(blocks), "c h q k -> (b c) h q k", b=len(like))
