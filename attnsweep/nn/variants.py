"""What is put in the place of softmax(Q K^T / sqrt(d)) V today, each as its paper writes it.

    gated          sigmoid(X W) times what was read (https://arxiv.org/abs/2505.06708)   `MultiHeadAttention`
    differential   a softmax less another one (https://arxiv.org/abs/2410.05258)         `Differential`
    sigmoid        each weight by itself (https://arxiv.org/abs/2409.04431)              `sigmoid`
    linear         sums in the place of weights (https://arxiv.org/abs/2006.16236)       `linear_attention`
    window         what is near, and the first tokens (https://arxiv.org/abs/2309.17453) `window_mask`

Shapes and masks are those of `kernels`.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnsweep.nn.cost import CHUNK
from attnsweep.nn.kernels import (
    KERNELS,
    Kernel,
    Mask,
    Weights,
    attention_weights,
    for_heads,
    four_axes,
    fused,
    joined,
    scores_of,
)

Pair = tuple[Tensor, Tensor]  # features as they stand, and as rope turns them


def kernel_of(attention: str, dim_head: int, block: int) -> tuple[Kernel, Weights]:
    """What reads, and the weights with which it does; of linear attention `MultiHeadAttention` asks
    neither.
    """
    if attention == "differential":
        difference = Differential(dim_head, block=block)
        return difference, difference.weights
    if attention == "sigmoid":
        return sigmoid, sigmoid_weights
    return KERNELS.get(attention, fused), attention_weights


# --- Sliding windows ---


def window_mask(
    queries: Int[Tensor, " n"], keys: Int[Tensor, " m"], window: int, sinks: int = 0
) -> Bool[Tensor, "n m"]:
    """A query may attend to what is less than `window` tokens away from it, and to the first `sinks` tokens
    (n, m), of the places where they stand.
    """
    return ((queries[:, None] - keys).abs() < window) | (keys < sinks)


# --- Sigmoid attention ---


def sigmoid_weights(
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b g m d"],
    *,
    mask: Mask | None = None,
    bias: Float[Tensor, "h n m"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h n m"]:
    """sigmoid(Q K^T / sqrt(d) - log n) (eq. 3, with the bias that its authors recommend), n being here the
    number of keys that a query may attend to, so that later tokens change nothing: (b, h, n, m).
    """
    mask = joined(mask, queries, keys, causal=causal)
    if mask is None:
        return (scores_of(queries, keys, bias) - math.log(max(1, keys.shape[2]))).sigmoid()
    scores = scores_of(queries, keys, bias)
    count = mask.expand(*mask.shape[:-1], keys.shape[2]).sum(dim=-1, keepdim=True).clamp(min=1)
    return (scores - count.to(scores.dtype).log()).sigmoid().masked_fill(~mask, 0)


def sigmoid(
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b g m d"],
    values: Float[Tensor, "b g m d"],
    *,
    mask: Mask | None = None,
    bias: Float[Tensor, "h n m"] | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Float[Tensor, "b h n d"]:
    """Sigmoid attention; torch has no kernel for it, so all weights are held."""
    weights = sigmoid_weights(queries, keys, mask=mask, bias=bias, causal=causal)
    return F.dropout(weights, dropout) @ for_heads(values, queries)


# --- Differential attention ---


class Differential(nn.Module):
    """(softmax(Q1 K1^T / sqrt(d)) - lambda softmax(Q2 K2^T / sqrt(d))) V (eq. 1), Q1 and Q2 being the halves
    of the queries, d the width of a half; then a norm per head, times 1 - lambda_init (eq. 3).

    lambda = exp(l_q1 . l_k1) - exp(l_q2 . l_k2) + lambda_init (eq. 2), lambda_init = 0.8 - 0.6 exp(-0.3 (l -
    1)) in block l. The paper's h heads of width d are here of width 2 d, as wide as its values.
    """

    def __init__(self, dim_head: int, *, block: int = 1) -> None:
        super().__init__()
        self.initial = 0.8 - 0.6 * math.exp(-0.3 * (block - 1))
        self.lambdas = nn.Parameter(0.1 * torch.randn(4, dim_head // 2))  # q1, k1, q2, k2
        self.norm = nn.RMSNorm(dim_head, eps=1e-5)

    @property
    def factor(self) -> Float[Tensor, ""]:
        """lambda, a scalar."""
        q1, k1, q2, k2 = self.lambdas
        return (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + self.initial

    def forward(
        self,
        queries: Float[Tensor, "b h n d"],
        keys: Float[Tensor, "b g m d"],
        values: Float[Tensor, "b g m d"],
        *,
        mask: Mask | None = None,
        bias: Float[Tensor, "h n m"] | None = None,
        causal: bool = False,
        dropout: float = 0.0,
    ) -> Float[Tensor, "b h n d"]:
        """See `Kernel`: both halves in one call of the fused kernel, as heads of their own."""
        both = fused(
            halves(queries), halves(keys), torch.cat([values, values], dim=1),
            mask=None if mask is None else twice(four_axes(mask, queries, keys)),
            bias=None if bias is None else torch.cat([bias, bias]),
            causal=causal, dropout=dropout,
        )  # fmt: skip
        one, other = both.chunk(2, dim=1)
        return self.norm(one - self.factor * other) * (1 - self.initial)

    def weights(
        self,
        queries: Float[Tensor, "b h n d"],
        keys: Float[Tensor, "b g m d"],
        *,
        mask: Mask | None = None,
        bias: Float[Tensor, "h n m"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "b h n m"]:
        """What eq. 1 multiplies V with: rows sum to 1 - lambda, and may be negative."""
        pairs = zip(queries.chunk(2, dim=-1), keys.chunk(2, dim=-1), strict=True)
        one, other = (attention_weights(q, k, mask=mask, bias=bias, causal=causal) for q, k in pairs)
        return one - self.factor * other


def halves(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h2 n d2"]:
    """The first halves of all heads, then the second ones, each as a head."""
    return rearrange(x, "b h n (two d) -> b (two h) n d", two=2)


def twice(mask: Bool[Tensor, "b h n m"]) -> Bool[Tensor, "b h2 n m"]:
    """A mask of heads for both halves of each."""
    return mask if mask.shape[1] == 1 else torch.cat([mask, mask], dim=1)


# --- Linear attention ---


class Sums(NamedTuple):
    """All that linear attention keeps of earlier tokens: of phi(k) v^T (b, g, d, e), of phi(k) (b, g, d)."""

    products: Tensor
    features: Tensor


def features(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
    """phi(x) = elu(x) + 1 (eq. 7), above 0."""
    return F.elu(x) + 1


def of_keys(mask: Mask | None, keys: Float[Tensor, "b g m d"]) -> Bool[Tensor, "b 1 m 1"] | None:
    """The last m keys of a mask as what may be summed up, (b, 1, m, 1).

    Raises ValueError where it is not of keys alone: sums know no queries.
    """
    if mask is None:
        return None
    if mask.ndim != 3 or mask.shape[1] != 1:
        raise ValueError(
            f"the mask is {tuple(mask.shape)}, but linear attention sums over keys whoever asks; make it "
            "(b, 1, m), and say causal=True for what comes later"
        )
    return rearrange(mask[..., -keys.shape[2] :], "b 1 m -> b 1 m 1")


def linear_attention(
    queries: Pair,
    keys: Pair,
    values: Float[Tensor, "b g m d"],
    *,
    admitted: Bool[Tensor, "b 1 m 1"] | None = None,
    causal: bool = False,
    before: Sums | None = None,
) -> tuple[Float[Tensor, "b h n d"], Sums]:
    """(phi(q) sum_j phi(k_j) v_j^T) / (phi(q) . sum_j phi(k_j)) (eqs. 4 and 5), and the sums for what
    follows.

    With rope the numerator's features are turned, as in RoFormer (https://arxiv.org/abs/2104.09864, eq. 19).
    `causal`: over the j up to the query's own place (eqs. 9 to 12), chunk by chunk.
    """
    if admitted is not None:
        keys = keys[0].masked_fill(~admitted, 0), keys[1].masked_fill(~admitted, 0)
    if not causal:
        sums = added(before, keys, values)
        return read_sums(queries, sums), sums
    parts, so_far = [], before
    for q, k, v in zip(chunks(queries), chunks(keys), values.split(CHUNK, dim=2), strict=True):
        parts.append(read_chunk(q, k, v, so_far))
        so_far = added(so_far, k, v)
    assert so_far is not None, "there is a token"
    return torch.cat(parts, dim=2), so_far


def chunks(pair: Pair) -> Iterator[Pair]:
    """Both, token by token in chunks; one tensor where rope turns nothing."""
    plain, turned = pair[0].split(CHUNK, dim=2), pair[1].split(CHUNK, dim=2)
    return zip(plain, plain if pair[0] is pair[1] else turned, strict=True)


def added(sums: Sums | None, keys: Pair, values: Tensor) -> Sums:
    """The sums with these keys and values."""
    products, features = keys[1].mT @ values, keys[0].sum(dim=2)
    return Sums(products, features) if sums is None else Sums(sums[0] + products, sums[1] + features)


def read_sums(queries: Pair, sums: Sums) -> Float[Tensor, "b h n d"]:
    """What each query reads from all that was summed up."""
    products, total = for_heads(sums.products, queries[0]), for_heads(sums.features, queries[0])
    return divided(queries[1] @ products, (queries[0] * total[:, :, None]).sum(dim=-1, keepdim=True))


def read_chunk(queries: Pair, keys: Pair, values: Tensor, sums: Sums | None) -> Float[Tensor, "b h n d"]:
    """What each query reads from the earlier ones of its chunk, and from the sums of those before."""
    turned = chunk_weights(queries[1], keys[1])
    plain = turned if queries[0] is queries[1] else chunk_weights(queries[0], keys[0])
    above, below = turned @ for_heads(values, queries[0]), plain.sum(dim=-1, keepdim=True)
    if sums is not None:
        products, total = for_heads(sums.products, queries[0]), for_heads(sums.features, queries[0])
        above = above + queries[1] @ products
        below = below + (queries[0] * total[:, :, None]).sum(dim=-1, keepdim=True)
    return divided(above, below)


def chunk_weights(queries: Tensor, keys: Tensor) -> Float[Tensor, "b h n m"]:
    """phi(q) . phi(k) for each pair whose key is not later than its query."""
    return (queries @ for_heads(keys, queries).mT).tril(keys.shape[2] - queries.shape[2])


def divided(above: Tensor, below: Tensor) -> Tensor:
    """The quotient; 0 where nothing was summed up."""
    return above / below.masked_fill(below == 0, 1)


def linear_weights(
    queries: Pair, keys: Pair, *, mask: Mask | None = None, causal: bool = False
) -> Float[Tensor, "b h n m"]:
    """The weights that linear attention never computes, (b, h, n, m): eq. 3 with its similarity."""
    mask = joined(mask, queries[0], keys[0], causal=causal)
    plain, turned = (q @ for_heads(k, q).mT for q, k in zip(queries, keys, strict=True))
    if mask is not None:
        turned, plain = turned.masked_fill(~mask, 0), plain.masked_fill(~mask, 0)
    return divided(turned, plain.sum(dim=-1, keepdim=True))
