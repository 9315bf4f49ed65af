"""Scaled dot-product attention and masks: section 3.2 of "Attention Is All You Need"
(https://arxiv.org/abs/1706.03762).

    3.2.1  scaled dot-product attention, eq. 1    `explicit`, `fused`
    3.2.3  masks                                  `padding_mask`, `causal_mask`

Shapes: b examples, n queries, m keys, h query heads, g key and value heads (g = h by default), d the width of
a head.

Masks are boolean, True where the query may attend to the key: (n, m), (b, n, m), or (b, h, n, m) where heads
differ, each axis of full length or 1. A mask of two axes is always (n, m): `padding_mask` makes a mask (b, 1,
m) of key tokens (b, m). `&` combines masks. `causal` also closes later keys; the queries are the last of the
keys. A query that may attend to nothing has zero weights, output and gradients, where softmax would give 0/0.
"""

import functools
import math
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

Mask = Bool[Tensor, "n m"] | Bool[Tensor, "b n m"] | Bool[Tensor, "b h n m"]
Bias = Float[Tensor, "h n m"] | Float[Tensor, "b h n m"]


class Kernel(Protocol):
    """Eq. 1, Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V, of Q (b, h, n, d), K and V (b, g, m, d)."""

    def __call__(
        self,
        queries: Float[Tensor, "b h n d"],
        keys: Float[Tensor, "b g m d"],
        values: Float[Tensor, "b g m d"],
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        causal: bool = False,
        dropout: float = 0.0,
    ) -> Float[Tensor, "b h n d"]:
        """(b, h, n, d). `bias` is added to the scores, `dropout` is the rate on the weights.

        Raises as `expand_mask` does where the mask does not fit.
        """


class Weights(Protocol):
    """How much each query attends to each key (b, h, n, m): the first half of a `Kernel`."""

    def __call__(
        self,
        queries: Float[Tensor, "b h n d"],
        keys: Float[Tensor, "b g m d"],
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "b h n m"]:
        """Raises as `expand_mask` does where the mask does not fit."""


def attention_weights(
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b g m d"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h n m"]:
    """softmax(Q K^T / sqrt(d) + bias): how much a query attends to a key, (b, h, n, m); rows sum to one.

    Raises as `expand_mask` does where the mask does not fit.
    """
    scores = scores_of(queries, keys, bias)
    mask = combined_mask(mask, queries, keys, causal=causal)
    if mask is None:
        return scores.softmax(dim=-1)
    least = torch.finfo(scores.dtype).min  # not -inf, of which a row makes NaN
    return scores.masked_fill(~mask, least).softmax(dim=-1).masked_fill(~mask, 0)


def scores_of(
    queries: Float[Tensor, "b h n d"], keys: Float[Tensor, "b g m d"], bias: Bias | None
) -> Float[Tensor, "b h n m"]:
    """Q K^T / sqrt(d) + bias."""
    scores: Tensor = queries @ repeat_kv(keys, queries).mT / math.sqrt(queries.shape[-1])
    return scores if bias is None else scores + bias


def repeat_kv(keys: Float[Tensor, "b g m d"], queries: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h m d"]:
    """The keys or values of each query head: h / g consecutive heads share one (grouped-query attention,
    https://arxiv.org/abs/2305.13245, section 2.2).
    """
    shared = queries.shape[1] // keys.shape[1]
    return keys.repeat_interleave(shared, dim=1) if is_grouped(queries, keys) else keys


def is_grouped(queries: Tensor, keys: Tensor) -> bool:
    """Whether there are fewer key heads than query heads."""
    return queries.shape[1] != keys.shape[1]


def explicit(
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b g m d"],
    values: Float[Tensor, "b g m d"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    weigh: Weights = attention_weights,
) -> Float[Tensor, "b h n d"]:
    """Eq. 1 step by step, or with other weights than its own. All weights (b, h, n, m) are in memory."""
    weights = weigh(queries, keys, mask=mask, bias=bias, causal=causal)
    return F.dropout(weights, dropout) @ repeat_kv(values, queries)


def fused(
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b g m d"],
    values: Float[Tensor, "b g m d"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Float[Tensor, "b h n d"]:
    """Eq. 1 by torch's own kernels, block by block of keys, never all weights; `scale` for 1 / sqrt(d).

    On a CPU torch has such a kernel without dropout only; with it, the weights are held as by `explicit`.
    """
    n, m = queries.shape[2], keys.shape[2]
    if bias is not None:  # its kernels take masks of four axes
        bias = bias.to(queries.dtype).reshape(-1, *bias.shape[-3:])
    attend = functools.partial(
        F.scaled_dot_product_attention, queries, keys, values,
        dropout_p=dropout, scale=scale, enable_gqa=is_grouped(queries, keys),
    )  # fmt: skip
    if mask is None and bias is None and (not causal or n in (1, m)):  # the last query sees every key
        return attend(is_causal=causal and n > 1)
    mask = combined_mask(mask, queries, keys, causal=causal)
    if mask is None:
        return attend(attn_mask=bias)
    idle = ~mask.any(dim=-1, keepdim=True)  # not every kernel of torch is sure to give zeros for such rows
    open_to = mask | idle
    if bias is not None:
        open_to = bias.masked_fill(~open_to, -torch.inf)
    return attend(attn_mask=open_to).masked_fill(idle, 0)


KERNELS: dict[str, Kernel] = {"explicit": explicit, "fused": fused}

# --- Masks ---


def padding_mask(tokens: Int[Tensor, "b m"], *, padding: int = 0) -> Bool[Tensor, "b 1 m"]:
    """Every query may attend to the keys that are not padding: (b, 1, m), from token ids (b, m)."""
    return rearrange(tokens != padding, "b m -> b 1 m")


def causal_mask(queries: int, keys: int, *, device: torch.device | None = None) -> Bool[Tensor, "n m"]:
    """A query may attend to itself and to earlier keys; the queries are the last of the keys: (n, m)."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def combined_mask(mask: Mask | None, queries: Tensor, keys: Tensor, *, causal: bool) -> Tensor | None:
    """The mask with four axes, later keys closed where it is `causal`; None where all is open.

    Raises as `expand_mask` does.
    """
    whole = None if mask is None else expand_mask(mask, queries, keys)
    n, m = queries.shape[2], keys.shape[2]
    if not causal or n == 1:  # the last query sees every key
        return whole
    earlier = rearrange(causal_mask(n, m, device=queries.device), "n m -> 1 1 n m")
    return earlier if whole is None else whole & earlier


def expand_mask(mask: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """A mask of queries (b, h, n, d) and keys (b, h, m, d) with all four axes, each of full length or 1.

    Raises TypeError where it is not boolean, ValueError where it is not (n, m), (b, n, m) or (b, h, n, m).
    """
    if mask.dtype != torch.bool:
        raise TypeError(
            f"the mask is {mask.dtype}; make it torch.bool, True where a query may attend to a key"
        )
    given, full = tuple(mask.shape), (*queries.shape[:3], keys.shape[2])
    if mask.ndim == 2:
        mask = rearrange(mask, "n m -> 1 1 n m")
    elif mask.ndim == 3:
        mask = rearrange(mask, "b n m -> b 1 n m")
    if mask.ndim != 4 or any(axis not in (1, most) for axis, most in zip(mask.shape, full, strict=True)):
        sizes = ", ".join(f"{axis}={length}" for axis, length in zip("bhnm", full, strict=True))
        raise ValueError(
            f"the mask is {given}, but attention has {sizes}; make the mask (n, m), (b, n, m) or "
            "(b, h, n, m), each axis of that length or 1"
        )
    return mask
