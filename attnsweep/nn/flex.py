"""Windows and linear biases by torch's FlexAttention (https://arxiv.org/abs/2412.05496), which compiles who
may attend to whom into its kernel and leaves out blocks of pairs that are closed: for GPUs, where masks of
all pairs cost what they leave out.

Equal to the kernels of `kernels` (a test that is marked `gpu` compiles it; on a CPU it is tested as torch
runs it step by step).
"""

import functools
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from attnsweep.nn.positions import alibi_slopes


def attend(
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b g n d"],
    values: Float[Tensor, "b g n d"],
    *,
    causal: bool,
    window: int | None = None,
    sinks: int = 0,
    alibi: bool = False,
    compiled: bool = True,
) -> Float[Tensor, "b h n d"]:
    """What each query of a sequence reads from the same sequence, (b, h, n, d)."""
    run = compiled_attention() if compiled else cast(Callable[..., Tensor], flex_attention)
    read: Tensor = run(
        queries, keys, values,
        score_mod=biased(alibi_slopes(queries.shape[1]).to(queries.device, queries.dtype)) if alibi else None,
        block_mask=blocks(queries.shape[2], causal, window, sinks, queries.device),
        enable_gqa=queries.shape[1] != keys.shape[1],
    )  # fmt: skip
    return read


@functools.cache
def compiled_attention() -> Callable[..., Tensor]:
    """FlexAttention as one kernel; compiled once for all shapes."""
    return torch.compile(flex_attention, dynamic=True)


def biased(slope: Float[Tensor, " h"]) -> Callable[..., Tensor]:
    """ALiBi's bias, added to a score."""

    def score(scores: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return scores - slope[h] * (query - key).abs()

    return score


@functools.lru_cache(maxsize=32)
def blocks(n: int, causal: bool, window: int | None, sinks: int, device: torch.device) -> BlockMask | None:
    """Which blocks of pairs are open; None: all."""
    if window is None and not causal:
        return None

    def is_open(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        near = query >= query  # True, as a tensor
        if window is not None:
            near = ((query - key).abs() < window) | (key < sinks)
        return near & (key <= query) if causal else near

    return create_block_mask(is_open, None, None, n, n, device=device)
