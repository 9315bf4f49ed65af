"""Attention as in section 3.2 of "Attention Is All You Need" (https://arxiv.org/abs/1706.03762).

Read on: `blocks` puts it between residuals and feed-forward networks, `transformer` stacks those, `decoding`
writes with them.

    3.2.1  scaled dot-product attention, eq. 1    `explicit`, `fused`
    3.2.3  who may attend to whom                 `padding_mask`, `causal_mask`
    3.2.2  multi-head attention                   `MultiHeadAttention`

Shapes: b examples, n queries, m keys, h heads, d the width of a token, or of a head where h stands before.

One convention for masks: boolean, True where the query may attend to the key; (n, m), or (b, n, m), or
(b, h, n, m) where heads differ, each axis of full length or 1. A mask of two axes is always (n, m): what is
known of the keys (b, m) becomes a mask by `padding_mask`, (b, 1, m). `&` joins two of them. A query that may
attend to nothing has weights of zero and gets zeros, with gradients of zero, where the softmax would say 0/0.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnsweep.core.errors import UserError, known

Mask = Bool[Tensor, "n m"] | Bool[Tensor, "b n m"] | Bool[Tensor, "b h n m"]

# --- Scaled dot-product attention ---


class Kernel(Protocol):
    """Eq. 1, Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V, of Q (b, h, n, d), K and V (b, h, m, d)."""

    def __call__(
        self,
        queries: Float[Tensor, "b h n d"],
        keys: Float[Tensor, "b h m d"],
        values: Float[Tensor, "b h m d"],
        *,
        mask: Mask | None,
        dropout: float,
    ) -> Float[Tensor, "b h n d"]:
        """What each query reads from the values, (b, h, n, d). `dropout` is a rate on the weights.

        Raises as `four_axes` does where the mask does not fit.
        """


def attention_weights(
    queries: Float[Tensor, "b h n d"], keys: Float[Tensor, "b h m d"], *, mask: Mask | None = None
) -> Float[Tensor, "b h n m"]:
    """softmax(Q K^T / sqrt(d)): how much each query attends to each key, (b, h, n, m); rows sum to one.

    Raises as `four_axes` does where the mask does not fit.
    """
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    if mask is None:
        return scores.softmax(dim=-1)
    mask = four_axes(mask, queries, keys)
    least = torch.finfo(scores.dtype).min  # not -inf, of which a row makes NaN
    return scores.masked_fill(~mask, least).softmax(dim=-1).masked_fill(~mask, 0)


def explicit(
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b h m d"],
    values: Float[Tensor, "b h m d"],
    *,
    mask: Mask | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n d"]:
    """Eq. 1 as it is written. Holds all weights (b, h, n, m) in memory."""
    return F.dropout(attention_weights(queries, keys, mask=mask), dropout) @ values


def fused(
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b h m d"],
    values: Float[Tensor, "b h m d"],
    *,
    mask: Mask | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n d"]:
    """Eq. 1 by torch's own kernels, which go over the keys in blocks and never hold all weights.

    On a CPU there is such a kernel for a dropout of zero only; with dropout torch computes step by step and
    holds the weights, like `explicit`. The blocks below have no dropout on weights.
    """
    if mask is None:
        return F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
    mask = four_axes(mask, queries, keys)
    idle = ~mask.any(dim=-1, keepdim=True)  # not every kernel of torch is sure to give zeros for such rows
    read = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask | idle, dropout_p=dropout)
    return read.masked_fill(idle, 0)


KERNELS: dict[str, Kernel] = {"explicit": explicit, "fused": fused}

# --- Masks ---


def padding_mask(tokens: Int[Tensor, "b m"], *, padding: int = 0) -> Bool[Tensor, "b 1 m"]:
    """Every query may attend to the keys that are not padding: (b, 1, m) of token ids (b, m)."""
    return rearrange(tokens != padding, "b m -> b 1 m")


def causal_mask(queries: int, keys: int, *, device: torch.device | None = None) -> Bool[Tensor, "n m"]:
    """A query may attend to itself and what came before; the queries are the last of the keys: (n, m)."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def four_axes(mask: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
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


# --- Multi-head attention ---


class Cache:
    """Keys and values (b, h, m, d) that one attention has computed, so that decoding computes each once."""

    def __init__(self) -> None:
        self.held: tuple[Tensor, Tensor] | None = None

    @property
    def tokens(self) -> int:
        """How many tokens are held."""
        return self.held[0].shape[2] if self.held else 0

    def grow(
        self, keys: Float[Tensor, "b h m d"], values: Float[Tensor, "b h m d"]
    ) -> tuple[Float[Tensor, "b h m2 d"], Float[Tensor, "b h m2 d"]]:
        """All that is held, now with these at the end."""
        if self.held:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(self.held, (keys, values), strict=True))
        self.held = keys, values
        return self.held

    def choose(self, rows: Tensor) -> None:
        """Goes on with these rows of the batch, in this order."""
        if self.held:
            self.held = self.held[0][rows], self.held[1][rows]


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V).

    `dim_head` is dim // heads if not given, as in the paper. `dropout` is a rate on the weights in training.
    Raises UserError for an unknown kernel, and without `dim_head` for heads that do not divide dim.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        dim_head: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        attention: str = "fused",
    ) -> None:
        super().__init__()
        inner = heads * (width_of_head(dim, heads) if dim_head is None else dim_head)
        self.heads, self.dropout = heads, dropout
        self.kernel = KERNELS[known("attention", attention, KERNELS)]
        self.to_queries, self.to_keys, self.to_values = (linear(dim, inner, bias=bias) for _ in range(3))
        self.to_output = linear(inner, dim, bias=bias)

    def forward(
        self,
        queries: Float[Tensor, "b n d"],
        keys: Float[Tensor, "b m d"] | None = None,
        *,
        mask: Mask | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "b n d"]:
        """What the tokens `queries` (b, n, d) read from the tokens `keys` (b, m, d), or from themselves:
        (b, n, d).

        With a cache, self-attention reads from the earlier calls' tokens too, which count as the first of the
        m keys; attention to others computes their keys and values in the first call, and reads those in all.
        The mask is as the head of this file says. Raises as `four_axes` does where it does not fit.
        """
        q = self.split(self.to_queries(queries))
        k, v = self.keys_values(queries if keys is None else keys, cache, crosses=keys is not None)
        dropout = self.dropout if self.training else 0.0
        read = self.kernel(q, k, v, mask=mask, dropout=dropout)
        return self.to_output(rearrange(read, "b h n d -> b n (h d)"))

    def weights(
        self,
        queries: Float[Tensor, "b n d"],
        keys: Float[Tensor, "b m d"] | None = None,
        *,
        mask: Mask | None = None,
    ) -> Float[Tensor, "b h n m"]:
        """The weights (b, h, n, m) with which `forward` reads, whichever the kernel; without dropout.

        Raises as `four_axes` does where the mask does not fit.
        """
        q, k = self.to_queries(queries), self.to_keys(queries if keys is None else keys)
        return attention_weights(self.split(q), self.split(k), mask=mask)

    def keys_values(self, tokens: Tensor, cache: Cache | None, *, crosses: bool) -> tuple[Tensor, Tensor]:
        """The keys and values (b, h, m, d) to read from."""
        if cache and cache.held and crosses:
            return cache.held
        k, v = self.split(self.to_keys(tokens)), self.split(self.to_values(tokens))
        return cache.grow(k, v) if cache else (k, v)

    def split(self, tokens: Float[Tensor, "b n hd"]) -> Float[Tensor, "b h n d"]:
        """What belongs to each head."""
        return rearrange(tokens, "b n (h d) -> b h n d", h=self.heads)


@contextmanager
def attention_maps(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A dictionary that holds, after a forward pass without caches, the weights (b, h, n, m) of every
    `MultiHeadAttention` in the model, by its name there.
    """
    maps: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(attention: MultiHeadAttention, args: tuple, options: dict, output: Tensor) -> None:
            maps[name] = attention.weights(*args, **{key: options[key] for key in options if key != "cache"})

        return hook

    attentions = [
        (name, part) for name, part in model.named_modules() if isinstance(part, MultiHeadAttention)
    ]
    hooks = [part.register_forward_hook(record(name), with_kwargs=True) for name, part in attentions]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


# --- What the pieces are made of ---


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """x W + b with W from Xavier's uniform distribution and b = 0; the paper does not say how it begins."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def width_of_head(dim: int, heads: int) -> int:
    """dim // heads. Raises UserError where it leaves a remainder."""
    if dim % heads:
        fitting = [str(count) for count in range(1, dim + 1) if dim % count == 0]
        raise UserError(f"heads={heads} does not divide dim={dim}; use one of {', '.join(fitting)}")
    return dim // heads
