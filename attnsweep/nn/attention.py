"""Multi-head attention: section 3.2.2 of "Attention Is All You Need" (https://arxiv.org/abs/1706.03762), and
the variants that replace its parts today (`design` names them, `variants` implements them).

Read `kernels` first, then this, then `blocks`, which adds residuals and feed-forward networks.

Shapes: b examples, n queries, m keys, h query heads, g key and value heads (g = h by default), d the width of
a token, or of a head after an axis h or g. `kernels` defines masks.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnsweep.nn import variants
from attnsweep.nn.cost import FOLDED, blockwise_pairs, fold_from
from attnsweep.nn.design import PLAIN, Variant, check, parts_of, width_of_head
from attnsweep.nn.kernels import Mask, fused
from attnsweep.nn.norms import RMSNorm
from attnsweep.nn.positions import alibi_bias, apply_rope, fold_alibi
from attnsweep.nn.windows import blockwise_attention, window_mask

FLEX_FROM = 128  # tokens: a block of FlexAttention's
# the arguments of a kernel: queries (b, h, n, d), keys and values (b, g, m, d); mask, bias and `causal`
KernelInputs = tuple[Tensor, Tensor, Tensor, dict[str, Any]]


class Cache:
    """The key-value cache of one attention layer, so that decoding computes each token once: keys and values
    (b, g, m, d), or the running sums of linear attention.
    """

    def __init__(self) -> None:
        self.held: tuple[Tensor, ...] | None = None
        self.tokens = 0  # seen so far, those that have left the window included

    @property
    def bytes(self) -> int:
        """Its memory."""
        return sum(part.numel() * part.element_size() for part in self.held or ())

    def positions(
        self, more: int, *, sinks: int = 0, device: torch.device | None = None
    ) -> Int[Tensor, " m"]:
        """The positions of the tokens it holds, followed by those of `more` new ones."""
        held = self.held[0].shape[2] if self.held else 0
        if held == self.tokens:
            return torch.arange(held + more, device=device)
        first, latest = torch.arange(sinks, device=device), self.tokens - (held - sinks)
        return torch.cat([first, torch.arange(latest, self.tokens + more, device=device)])

    def append(
        self, keys: Float[Tensor, "b g m d"], values: Float[Tensor, "b g m d"]
    ) -> tuple[Float[Tensor, "b g m2 d"], Float[Tensor, "b g m2 d"]]:
        """Appends keys and values; returns all of them."""
        self.tokens += keys.shape[2]
        if self.held:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(self.held, (keys, values), strict=True))
        self.held = keys, values
        return keys, values

    def evict(self, window: int, sinks: int) -> None:
        """Keeps what the next token can attend to: the first `sinks` tokens and the last window - 1."""
        if self.held and self.held[0].shape[2] > sinks + window - 1:
            begins = self.held[0].shape[2] - (window - 1)
            self.held = tuple(torch.cat([part[:, :, :sinks], part[:, :, begins:]], 2) for part in self.held)

    def reorder(self, rows: Tensor) -> None:
        """Selects rows of the batch, in this order, as beam search does."""
        if self.held:
            self.held = tuple(part[rows] for part in self.held)


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V).

    `attention` names a kernel of eq. 1 or one of `variants`. `dim_head` defaults to dim // heads, as in the
    paper. `dropout` is applied to the weights in training. `block` is the layer's number in its
    stack, from 1. Raises UserError for an unknown word, and for sizes that do not fit each other.
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
        variant: Variant = PLAIN,
        block: int = 1,
    ) -> None:
        super().__init__()
        dim_head = width_of_head(dim, heads) if dim_head is None else dim_head
        check(attention, variant, heads=heads, dim_head=dim_head, dropout=dropout)
        inner, kv_inner = heads * dim_head, (variant.kv_heads or heads) * dim_head
        self.heads, self.dim_head, self.dropout, self.variant = heads, dim_head, dropout, variant
        self.to_queries, self.to_keys, self.to_values = (
            linear(dim, width, bias=bias) for width in (inner, kv_inner, kv_inner)
        )
        self.to_output = linear(inner, dim, bias=bias)
        self.kernel, self.weigh = variants.kernel_of(attention, dim_head, block)
        self.is_linear, self.fold_from = attention == "linear", fold_from(attention, variant)
        self.parts = parts_of(attention)
        self.to_gate = linear(dim, inner, bias=bias) if attention == "gated" else None
        self.norm_queries, self.norm_keys = (
            RMSNorm(dim_head) if variant.qk_norm else nn.Identity() for _ in range(2)
        )

    def forward(
        self,
        queries: Float[Tensor, "b n d"],
        keys: Float[Tensor, "b m d"] | None = None,
        *,
        mask: Mask | None = None,
        causal: bool = False,
        cache: Cache | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Attention of tokens `queries` (b, n, d) to tokens `keys` (b, m, d), or to themselves: (b, n, d).

        With a cache, self-attention also attends to the tokens of earlier calls, which are the first of the m
        keys; cross-attention computes keys and values in the first call and reuses them in later ones.
        `kernels` defines the mask. Raises as `expand_mask` does where it does not fit.
        """
        n, dropout = queries.shape[1], self.dropout if self.training else 0.0
        whole = keys is None and not (cache and cache.tokens)
        if self.is_linear:
            read = self.linear_attention(queries, keys, mask=mask, causal=causal, cache=cache)
        elif self.uses_flex(queries, alone=keys is None and mask is None and cache is None):
            read = self.flex_attention(queries, causal=causal)
        elif whole and mask is None and causal and n >= self.fold_from:
            q, k, v = self.project(queries)
            options: dict[str, Any] = dict(causal=True, dropout=dropout, scale=self.dim_head**-0.5)
            read = fused(*fold_alibi(q, k, v), **options)[..., :-FOLDED]
            self.extend_cache(k, v, cache)
        elif whole and blockwise_pairs(n, self.variant, causal=causal):
            q, k, v = self.project(queries)
            read = blockwise_attention(
                self.kernel, q, k, v, variant=self.variant, mask=mask, causal=causal, dropout=dropout
            )
            self.extend_cache(k, v, cache)
        else:
            q, k, v, masking = self.kernel_inputs(queries, keys, mask=mask, causal=causal, cache=cache)
            read = self.kernel(q, k, v, **masking, dropout=dropout)
        if self.to_gate is not None:
            read = read * self.split(self.to_gate(queries)).sigmoid()
        return self.to_output(rearrange(read, "b h n d -> b n (h d)"))

    def weights(
        self,
        queries: Float[Tensor, "b n d"],
        keys: Float[Tensor, "b m d"] | None = None,
        *,
        mask: Mask | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "b h n m"]:
        """The attention weights (b, h, n, m) of `forward`, whichever the kernel; without dropout, and before
        a gate or a norm changes the output.

        Raises as `expand_mask` does where the mask does not fit.
        """
        if self.is_linear:
            of_queries, of_keys, _ = self.feature_maps(queries, keys, start=0)
            return variants.linear_weights(of_queries, of_keys, mask=mask, causal=causal)
        q, k, _, masking = self.kernel_inputs(queries, keys, mask=mask, causal=causal, cache=None)
        return self.weigh(q, k, **masking)

    def kernel_inputs(
        self, queries: Tensor, keys: Tensor | None, *, mask: Mask | None, causal: bool, cache: Cache | None
    ) -> KernelInputs:
        """Queries, and all keys and values, those in the cache included."""
        if keys is not None:
            q = self.norm_queries(self.split(self.to_queries(queries)))
            return q, *self.cross_keys_values(keys, cache), {"mask": mask, "causal": causal}
        q, k, v = self.project(queries, start=cache.tokens if cache is not None else 0)
        masking = self.masking(mask, q, cache, causal=causal)
        return q, *self.extend_cache(k, v, cache), masking

    def extend_cache(self, keys: Tensor, values: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """All keys and values; the cache holds them, too, and keeps what later tokens can attend to."""
        if cache is None:
            return keys, values
        keys, values = cache.append(keys, values)
        if self.variant.window is not None:
            cache.evict(self.variant.window, self.variant.sinks)
        return keys, values

    def project(self, tokens: Tensor, *, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values for self-attention; the first token's position is `start`."""
        q = self.norm_queries(self.split(self.to_queries(tokens)))
        k, v = self.norm_keys(self.split(self.to_keys(tokens))), self.split(self.to_values(tokens))
        if self.variant.positions == "rope":
            q, k = self.rotate(q, start=start), self.rotate(k, start=start)
        return q, k, v

    def rotate(self, x: Tensor, *, start: int) -> Tensor:
        """Queries or keys with rotary positions."""
        return apply_rope(x, start=start, parts=self.parts)

    def uses_flex(self, tokens: Tensor, *, alone: bool) -> bool:
        """Whether FlexAttention is used: on a GPU, for self-attention of enough tokens with a window or a
        bias, without dropout; `alone` is True where there is neither a mask nor a cache.
        """
        shaped = self.variant.window is not None or self.variant.positions == "alibi"
        suits = tokens.is_cuda and tokens.shape[1] >= FLEX_FROM and not (self.training and self.dropout)
        return bool(alone and shaped and suits and self.kernel is fused)

    def flex_attention(self, tokens: Tensor, *, causal: bool) -> Tensor:
        """Self-attention by a kernel that is compiled for the window and the bias."""
        from attnsweep.nn import flex  # here: it imports torch's compiler, which takes a second

        variant, (q, k, v) = self.variant, self.project(tokens)
        return flex.attend(
            q, k, v,
            causal=causal, window=variant.window, sinks=variant.sinks, alibi=variant.positions == "alibi",
        )  # fmt: skip

    def cross_keys_values(self, tokens: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """The keys and values (b, g, m, d) of another sequence's tokens."""
        if cache is not None and cache.held:
            k, v = cache.held
            return k, v
        k, v = self.norm_keys(self.split(self.to_keys(tokens))), self.split(self.to_values(tokens))
        return (k, v) if cache is None else cache.append(k, v)

    def masking(
        self, mask: Mask | None, queries: Tensor, cache: Cache | None, *, causal: bool
    ) -> dict[str, Any]:
        """Mask, bias and `causal` for self-attention, over the tokens of the cache and these."""
        variant, n, bias = self.variant, queries.shape[2], None
        if variant.window is None and variant.positions != "alibi":
            return {"mask": mask, "causal": causal}
        there = (cache or Cache()).positions(n, sinks=variant.sinks, device=queries.device)
        here = there[len(there) - n :]
        if variant.positions == "alibi":
            bias = alibi_bias(here, there, self.heads, like=queries)
        if mask is not None and variant.window is not None and cache is not None:
            mask = mask[..., there] if mask.shape[-1] == cache.tokens + n else mask
        if variant.window is not None and (cache is None or n > 1):  # a cache holds no more than the window
            near = window_mask(here, there, variant.window, variant.sinks)
            mask = near if mask is None else near & mask
        return {"mask": mask, "bias": bias, "causal": causal}

    def linear_attention(
        self, queries: Tensor, keys: Tensor | None, *, mask: Mask | None, causal: bool, cache: Cache | None
    ) -> Tensor:
        """The output of linear attention, (b, h, n, d); the cache has its sums. Masks can only close keys."""
        own, n = keys is None, queries.shape[1]
        start = cache.tokens if cache is not None and own else 0
        if cache is not None and cache.held and not own:
            plain = variants.feature_map(self.norm_queries(self.split(self.to_queries(queries))))
            return variants.read_sums((plain, plain), variants.Sums(*cache.held))
        q, k, v = self.feature_maps(queries, keys, start=start)
        before = variants.Sums(*cache.held) if cache is not None and cache.held else None
        admitted = variants.key_mask(mask, q[0], k[0], seen=start)
        read, sums = variants.linear_attention(q, k, v, admitted=admitted, causal=causal, before=before)
        if cache is not None:
            cache.held, cache.tokens = tuple(sums), cache.tokens + (n if own else k[0].shape[2])
        return read

    def feature_maps(
        self, queries: Tensor, keys: Tensor | None, *, start: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
        """phi(Q) and phi(K), each without and with rope, and V."""
        tokens = queries if keys is None else keys
        q = variants.feature_map(self.norm_queries(self.split(self.to_queries(queries))))
        k = variants.feature_map(self.norm_keys(self.split(self.to_keys(tokens))))
        turned = (q, k)
        if self.variant.positions == "rope" and keys is None:
            turned = self.rotate(q, start=start), self.rotate(k, start=start)
        return (q, turned[0]), (k, turned[1]), self.split(self.to_values(tokens))

    def split(self, tokens: Float[Tensor, "b n hd"]) -> Float[Tensor, "b n h d"]:
        """The heads side by side as an axis of their own."""
        return rearrange(tokens, "b n (h d) -> b h n d", d=self.dim_head)


@contextmanager
def attention_maps(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A dictionary that a forward pass without caches fills with each attention's weights (b, h, n, m)."""
    maps: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(attention: MultiHeadAttention, args: tuple, options: dict, output: Tensor) -> None:
            maps[name] = attention.weights(*args, **{key: options[key] for key in options if key != "cache"})

        return hook

    with ExitStack() as hooks:
        for name, part in model.named_modules():
            if isinstance(part, MultiHeadAttention):
                hooks.enter_context(part.register_forward_hook(record(name), with_kwargs=True))
        yield maps


# --- What the pieces are made of ---


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """x W + b, W initialised from Xavier's uniform distribution and b = 0: the paper does not say how."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
