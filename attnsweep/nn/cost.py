"""Parameters and multiply-accumulates of layers in closed form, and the memory of their caches, so that a
plan can state those of an architecture before anything is built.

Each task's `cost` module adds them up to its models. The tests hold every formula against the built model:
parameters to the unit, MACs against torch's FLOP counter, bytes against what a cache holds.
"""

import math

from attnsweep.core.cost import Cost
from attnsweep.nn.design import PLAIN, Variant

CHUNK = 64  # tokens between which linear attention computes weights; between chunks it goes by sums
BLOCK = 128  # queries that read under a window together
FOLD_FROM = 512  # tokens from which on linear biases are folded into queries and keys
FOLDED = 4  # columns that queries, keys and values get more then: three, and one to align them
FLOAT = 4  # bytes


def linear(inputs: int, outputs: int, *, tokens: int = 1, bias: bool = True) -> Cost:
    """A linear layer applied to `tokens` vectors."""
    return Cost(inputs * outputs + bias * outputs, tokens * inputs * outputs)


def norm(width: int, kind: str = "pre") -> Cost:
    """A layer norm: a scale and a shift; of `rms` a scale. Its arithmetic is not counted, as is usual."""
    return Cost(width if kind == "rms" else 2 * width, 0)


def feed_forward(dim: int, mlp_dim: int, tokens: int, *, kind: str = "relu", norm_kind: str = "pre") -> Cost:
    """Norm, two linear layers; of `swiglu` three, without biases."""
    bias, into = kind != "swiglu", 2 if kind == "swiglu" else 1
    up = linear(dim, mlp_dim, tokens=tokens, bias=bias) * into
    return norm(dim, norm_kind) + up + linear(mlp_dim, dim, tokens=tokens, bias=bias)


def attention(dim: int, heads: int, dim_head: int, tokens: int, *, project: bool = True) -> Cost:
    """Norm; queries, keys and values without bias; the two products of softmax(QK^T)V; projection back."""
    inner = heads * dim_head
    products = Cost(0, 2 * tokens * tokens * inner)
    back = linear(inner, dim, tokens=tokens) if project else Cost(0, 0)
    return norm(dim) + linear(dim, 3 * inner, tokens=tokens, bias=False) + products + back


def multi_head(
    dim: int,
    queries: int,
    keys: int,
    *,
    heads: int,
    dim_head: int,
    attention: str = "fused",
    variant: Variant = PLAIN,
    crosses: bool = False,
    causal: bool = False,
    padded: bool = False,
) -> Cost:
    """Attention of `queries` tokens to `keys` tokens, all projections with bias. Masked pairs count too, as
    kernels that are given a mask compute them, under a window those of its blocks; and so do the zeros in the
    place of the other half of `differential`, and the columns of biases that are folded in, as they are
    unless a mask of padding closes keys (`padded`).
    """
    inner, kv_inner = heads * dim_head, (variant.kv_heads or heads) * dim_head
    folded = heads * FOLDED if causal and not padded and queries >= fold_from(attention, variant) else 0
    to_keys_and_values = linear(dim, kv_inner, tokens=keys) * 2
    to_queries, to_output = linear(dim, inner, tokens=queries), linear(inner, dim, tokens=queries)
    own = Cost(2 * dim_head if variant.qk_norm else 0, 0)
    if attention == "gated":
        own += linear(dim, inner, tokens=queries)
    if attention == "differential":
        own += Cost(4 * (dim_head // 2) + dim_head, 0)
    turned = variant.positions == "rope" and not crosses
    return to_keys_and_values + to_queries + to_output + own + Cost(
        0,
        sums(queries, keys, heads=heads, kv_heads=variant.kv_heads or heads, dim_head=dim_head, causal=causal,
             turned=turned) if attention == "linear"
        else (4 if attention == "differential" else 2) * (inner + folded)
        * (queries * keys if crosses else blockwise_pairs(queries, variant, causal=causal) or queries**2),
    )  # fmt: skip


def fold_from(attention: str, variant: Variant) -> float:
    """From how many tokens on linear biases are folded into queries and keys, where all that closes keys is a
    causal mask (`positions.fold_alibi`); infinite where there is no kernel of torch's for the rest.
    """
    folds = variant.positions == "alibi" and variant.window is None and attention in ("fused", "gated")
    return FOLD_FROM if folds else math.inf


def blockwise_pairs(tokens: int, variant: Variant, *, causal: bool) -> int | None:
    """The pairs of a query and a key where queries read under a window in blocks, each block from the keys
    around it and the sinks; None where all are computed, as they are less than twice as many, or there is no
    window.
    """
    if variant.window is None:
        return None
    around = variant.sinks + BLOCK + (variant.window - 1) * (1 if causal else 2)
    found = -(-tokens // BLOCK) * BLOCK * around
    return found if 2 * found <= tokens**2 else None


def sums(
    queries: int, keys: int, *, heads: int, kv_heads: int, dim_head: int, causal: bool, turned: bool
) -> int:
    """The multiply-accumulates of linear attention's products: no term has the square of the length."""
    written = keys * kv_heads * dim_head**2
    if not causal or queries == 1:
        return written + queries * heads * dim_head**2
    size = min(CHUNK, queries)
    chunks = -(-queries // size)
    return chunks * size * dim_head * ((heads + kv_heads) * dim_head + (3 if turned else 2) * size * heads)


def cache_bytes(
    tokens: int, *, heads: int, dim_head: int, attention: str, variant: Variant = PLAIN, crosses: bool = False
) -> int:
    """What one attention holds of one sequence after `tokens` tokens, in bytes of float32."""
    kv_heads = variant.kv_heads or heads
    if attention == "linear":
        return FLOAT * kv_heads * dim_head * (dim_head + 1)
    if variant.window is not None and not crosses:
        tokens = min(tokens, variant.sinks + variant.window - 1)
    return FLOAT * 2 * tokens * kv_heads * dim_head
