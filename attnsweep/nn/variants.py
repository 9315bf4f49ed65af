"""Variants of softmax(Q K^T / sqrt(d)) V, each as in its paper.

    gated          the output times sigmoid(X W) (https://arxiv.org/abs/2505.06708)    `MultiHeadAttention`
    differential   the difference of two softmaxes (https://arxiv.org/abs/2410.05258)  `Differential`
    sigmoid        a sigmoid instead of the softmax (https://arxiv.org/abs/2409.04431) `sigmoid`
    linear         running sums instead of weights (https://arxiv.org/abs/2006.16236)  `linear_attention`

Shapes and masks are those of `kernels`.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from attnsweep.nn import kernels
from attnsweep.nn.cost import CHUNK
from attnsweep.nn.kernels import Bias, Kernel, Mask, Weights, fused, repeat_kv
from attnsweep.nn.norms import RMSNorm

Pair = tuple[Tensor, Tensor]  # features without and with rope


def kernel_of(attention: str, dim_head: int, block: int) -> tuple[Kernel, Weights]:
    """The kernel and its weights; `MultiHeadAttention` uses neither for linear attention."""
    if attention == "differential":
        difference = Differential(dim_head, block=block)
        return difference, difference.weights
    if attention == "sigmoid":
        return sigmoid, sigmoid_weights
    return kernels.KERNELS.get(attention, fused), kernels.attention_weights


# --- Sigmoid attention ---


def sigmoid_weights(
    queries: Float[Tensor, "b h n d"],
    keys: Float[Tensor, "b g m d"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h n m"]:
    """sigmoid(Q K^T / sqrt(d) - log n) (section 2, with the bias that its authors recommend), where n is the
    number of keys that the query may attend to, so that later tokens change nothing: (b, h, n, m).
    """
    scores = kernels.scores_of(queries, keys, bias)
    mask = kernels.combined_mask(mask, queries, keys, causal=causal)
    if mask is None:
        return (scores - math.log(max(1, keys.shape[2]))).sigmoid()
    count = mask.expand(*mask.shape[:-1], keys.shape[2]).sum(dim=-1, keepdim=True).clamp(min=1)
    return (scores - count.to(scores.dtype).log()).sigmoid().masked_fill(~mask, 0)


sigmoid: Kernel = functools.partial(kernels.explicit, weigh=sigmoid_weights)  # torch has no kernel for it


# --- Differential attention ---


class Differential(nn.Module):
    """(softmax(Q1 K1^T / sqrt(d)) - lambda softmax(Q2 K2^T / sqrt(d))) V (section 2.1), where Q1 and Q2 are
    the halves of the queries, d wide; then a norm per head, times 1 - lambda_init (section 2.2).

    lambda = exp(l_q1 . l_k1) - exp(l_q2 . l_k2) + lambda_init, lambda_init = 0.8 - 0.6 exp(-0.3 (l - 1)) in
    block l. A head is 2 d wide, like the values of the paper's heads.
    """

    def __init__(self, dim_head: int, *, block: int = 1) -> None:
        super().__init__()
        self.initial = 0.8 - 0.6 * math.exp(-0.3 * (block - 1))
        self.lambdas = nn.Parameter(0.1 * torch.randn(4, dim_head // 2))  # q1, k1, q2, k2
        self.norm = RMSNorm(dim_head, eps=1e-5)
        self.halves: Tensor
        self.register_buffer("halves", torch.eye(2).repeat_interleave(dim_head // 2, 1), persistent=False)

    @property
    def factor(self) -> Float[Tensor, ""]:
        """lambda, a scalar."""
        one, other = torch.linalg.vecdot(self.lambdas[::2], self.lambdas[1::2]).exp()
        return one - other + self.initial

    def forward(
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
        """See `Kernel`. One call of the fused kernel computes both halves, each with zeros in place of the
        other half: so keys and values are shared as in grouped-query attention, without a copy.
        """
        both = queries[:, :, None] * self.halves.to(queries.dtype)[:, None]  # (b, h, 2, n, d)
        options: dict[str, Any] = dict(dropout=dropout, scale=math.sqrt(2 / queries.shape[-1]))
        if queries.shape[2] == 1:  # the last query sees every key: the halves are two such
            read = fused(both.flatten(2, 3), keys, values, mask=mask, bias=bias, **options)[:, :, :, None]
        else:
            mask = None if mask is None else of_halves(kernels.expand_mask(mask, queries, keys), dim=1)
            bias = None if bias is None else of_halves(bias, dim=-3)
            read = fused(both.flatten(1, 2), keys, values, mask=mask, bias=bias, causal=causal, **options)
            read = read.unflatten(1, (-1, 2))
        one, other = read.unbind(dim=2)
        return self.norm(one - self.factor * other) * (1 - self.initial)

    def weights(
        self,
        queries: Float[Tensor, "b h n d"],
        keys: Float[Tensor, "b g m d"],
        *,
        mask: Mask | None = None,
        bias: Bias | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "b h n m"]:
        """The factors of V: rows sum to 1 - lambda, and entries may be negative."""
        pairs = zip(queries.chunk(2, dim=-1), keys.chunk(2, dim=-1), strict=True)
        one, other = (kernels.attention_weights(q, k, mask=mask, bias=bias, causal=causal) for q, k in pairs)
        return one - self.factor * other


def of_halves(x: Tensor, *, dim: int) -> Tensor:
    """A mask or bias per head, repeated for the two halves of each head."""
    return x if x.shape[dim] == 1 else x.repeat_interleave(2, dim=dim)


# --- Linear attention ---


class Sums(NamedTuple):
    """Linear attention's state: sums of phi(k) v^T (b, g, d, e), of phi(k) (b, g, d) over earlier tokens."""

    products: Tensor
    features: Tensor


def feature_map(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
    """phi(x) = elu(x) + 1 > 0."""
    return F.elu(x) + 1


def key_mask(mask: Mask | None, queries: Tensor, keys: Tensor, *, seen: int) -> Tensor | None:
    """Which keys (b, g, m, d) the mask of all, `seen` earlier ones included, admits: (b, 1, m, 1).

    Raises as `expand_mask` does, and ValueError where the mask depends on queries, which sums cannot.
    """
    if mask is None:
        return None
    shape, m = tuple(mask.shape), keys.shape[2]
    if mask.ndim not in (3, 4) or any(axis != 1 for axis in shape[1:-1]):
        raise ValueError(
            f"the mask is {shape}, but linear attention sums over keys whoever asks; make it (b, 1, m), and "
            "say causal=True for what comes later"
        )
    whole = kernels.expand_mask(mask, queries, keys.new_empty(1, 1, seen + m, 0))
    return rearrange(whole[..., -m:], "b 1 1 m -> b 1 m 1")


def linear_attention(
    queries: Pair,
    keys: Pair,
    values: Float[Tensor, "b g m d"],
    *,
    admitted: Bool[Tensor, "b 1 m 1"] | None = None,
    causal: bool = False,
    before: Sums | None = None,
) -> tuple[Float[Tensor, "b h n d"], Sums]:
    """(phi(q) sum_j phi(k_j) v_j^T) / (phi(q) . sum_j phi(k_j)) (section 3.2), and the sums so far.

    With rope the numerator's features are rotated, as in RoFormer (https://arxiv.org/abs/2104.09864,
    section 3.3). `causal` sums over j up to the query's position (section 3.3), chunk by chunk.
    """
    if admitted is not None:
        keys = keys[0].masked_fill(~admitted, 0), keys[1].masked_fill(~admitted, 0)
    if causal and values.shape[2] > 1:
        return chunk_by_chunk(queries, keys, values, before)
    products, features = keys[1].mT @ values, keys[0].sum(dim=2)
    sums = Sums(products, features) if before is None else Sums(before[0] + products, before[1] + features)
    return read_sums(queries, sums), sums


def read_sums(queries: Pair, sums: Sums) -> Float[Tensor, "b h n d"]:
    """The output of queries that attend to all keys in the sums."""
    products, total = repeat_kv(sums.products, queries[0]), repeat_kv(sums.features, queries[0])
    return safe_divide(queries[1] @ products, (queries[0] * total[:, :, None]).sum(dim=-1, keepdim=True))


def chunk_by_chunk(
    queries: Pair, keys: Pair, values: Tensor, before: Sums | None
) -> tuple[Float[Tensor, "b h n d"], Sums]:
    """Causal linear attention: by weights within a chunk, by sums over the chunks before it."""
    n, size = values.shape[2], min(CHUNK, values.shape[2])
    (q, q_turned), (k, k_turned) = (tuple(chunked(part, size) for part in pair) for pair in (queries, keys))
    v = chunked(values, size)
    of_chunks = Sums(k_turned.mT @ v, k.sum(dim=3))
    until = Sums(*(part.cumsum(dim=2) for part in of_chunks))
    if before is not None:
        until = Sums(*(part + held[:, :, None] for part, held in zip(until, before, strict=True)))
    products, total = (repeat_kv(end - own, q) for end, own in zip(until, of_chunks, strict=True))
    turned = (q_turned @ repeat_kv(k_turned, q).mT).tril()
    plain = turned if queries[0] is queries[1] else (q @ repeat_kv(k, q).mT).tril()
    above = turned @ repeat_kv(v, q) + q_turned @ products
    below = plain.sum(dim=-1, keepdim=True) + (q * total[:, :, :, None]).sum(dim=-1, keepdim=True)
    read = rearrange(safe_divide(above, below), "b h c i d -> b h (c i) d")[:, :, :n]
    return read, Sums(*(part[:, :, -1] for part in until))


def chunked(x: Float[Tensor, "b h n d"], size: int) -> Float[Tensor, "b h c i d"]:
    """Tokens in chunks of `size`, the last padded with zeros, which add nothing to the sums."""
    padded = F.pad(x, (0, 0, 0, -x.shape[2] % size))
    return rearrange(padded, "b h (c i) d -> b h c i d", i=size)


def safe_divide(above: Tensor, below: Tensor) -> Tensor:
    """The quotient; 0 where the denominator is 0, which is a sum over no keys."""
    return above / below.masked_fill(below == 0, 1)


def linear_weights(
    queries: Pair, keys: Pair, *, mask: Mask | None = None, causal: bool = False
) -> Float[Tensor, "b h n m"]:
    """The weights (b, h, n, m), which `linear_attention` never computes: similarities over their sum."""
    mask = kernels.combined_mask(mask, queries[0], keys[0], causal=causal)
    plain, turned = (q @ repeat_kv(k, q).mT for q, k in zip(queries, keys, strict=True))
    if mask is not None:
        turned, plain = turned.masked_fill(~mask, 0), plain.masked_fill(~mask, 0)
    return safe_divide(turned, plain.sum(dim=-1, keepdim=True))
