"""Multi-head attention: section 3.2.2 of "Attention Is All You Need" (https://arxiv.org/abs/1706.03762), and
what is put in the place of its parts today (`design` names it, `variants` has it).

Read `kernels` before this, then `blocks`, which puts attention between residuals and feed-forward networks.

Shapes: b examples, n queries, m keys, h heads of queries, g of keys and values (as many, where nothing else
is said), d the width of a token, or of a head where h stands before. Masks are as `kernels` says.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnsweep.nn import variants
from attnsweep.nn.cost import in_blocks
from attnsweep.nn.design import PLAIN, Variant, check, parts_of, width_of_head
from attnsweep.nn.kernels import Mask, fused
from attnsweep.nn.norms import RMSNorm
from attnsweep.nn.positions import distances, rotated
from attnsweep.nn.windows import read_in_blocks, window_mask

FLEX_FROM = 128  # tokens: a block of FlexAttention's


class Cache:
    """What one attention keeps of the tokens that it has seen, so that decoding computes each once: their
    keys and values (b, g, m, d), or the sums of them that linear attention needs. The first axis is the
    batch.
    """

    def __init__(self) -> None:
        self.held: tuple[Tensor, ...] | None = None
        self.tokens = 0  # how many it has seen

    @property
    def bytes(self) -> int:
        """What is held takes so much memory."""
        return sum(part.numel() * part.element_size() for part in self.held or ())

    def places(self, more: int, *, sinks: int = 0, device: torch.device | None = None) -> Int[Tensor, " m"]:
        """Where the tokens that are held stand, and `more` new ones behind all that were seen."""
        held = self.held[0].shape[2] if self.held else 0
        if held == self.tokens:
            return torch.arange(held + more, device=device)
        first, latest = torch.arange(sinks, device=device), self.tokens - (held - sinks)
        return torch.cat([first, torch.arange(latest, self.tokens + more, device=device)])

    def grow(
        self, keys: Float[Tensor, "b g m d"], values: Float[Tensor, "b g m d"]
    ) -> tuple[Float[Tensor, "b g m2 d"], Float[Tensor, "b g m2 d"]]:
        """All that is held, now with these at the end."""
        self.tokens += keys.shape[2]
        if self.held:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(self.held, (keys, values), strict=True))
        self.held = keys, values
        return keys, values

    def forget(self, window: int, sinks: int) -> None:
        """Holds no more than a window needs for the next token: the first `sinks` and the last window - 1."""
        if self.held and self.held[0].shape[2] > sinks + window - 1:
            begins = self.held[0].shape[2] - (window - 1)
            self.held = tuple(torch.cat([part[:, :, :sinks], part[:, :, begins:]], 2) for part in self.held)

    def choose(self, rows: Tensor) -> None:
        """Goes on with these rows of the batch, in this order."""
        if self.held:
            self.held = tuple(part[rows] for part in self.held)


class Reading(NamedTuple):
    """All that a kernel needs: queries (b, h, n, d), keys and values (b, g, m, d), who may attend to whom."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    scope: dict[str, Any]


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V).

    `attention` is a kernel of eq. 1, or one of `variants`. `dim_head` is dim // heads if not given,
    as in the paper. `dropout` is a rate on the weights in training. `block`, from 1, is where it stands in
    its stack. Raises UserError for an unknown word, and for sizes that do not fit one another.
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
        self.sums = attention == "linear"
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
        """What the tokens `queries` (b, n, d) read from the tokens `keys` (b, m, d), or from themselves:
        (b, n, d).

        With a cache, self-attention reads from the earlier calls' tokens too, which count as the first of the
        m keys; attention to others computes their keys and values in the first call, and reads those in all.
        The mask is as `kernels` says. Raises as `four_axes` does where it does not fit.
        """
        n, dropout = queries.shape[1], self.dropout if self.training else 0.0
        if self.sums:
            read = self.read_sums(queries, keys, mask=mask, causal=causal, cache=cache)
        elif self.compiles(queries, alone=keys is None and mask is None and cache is None):
            read = self.read_compiled(queries, causal=causal)
        elif keys is None and not (cache and cache.tokens) and in_blocks(n, self.variant, causal=causal):
            q, k, v = self.projected(queries)
            read = read_in_blocks(
                self.kernel, q, k, v, variant=self.variant, mask=mask, causal=causal, dropout=dropout
            )
            self.keep(k, v, cache)
        else:
            q, k, v, scope = self.reading(queries, keys, mask=mask, causal=causal, cache=cache)
            read = self.kernel(q, k, v, **scope, dropout=dropout)
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
        """The weights (b, h, n, m) with which `forward` reads, whichever the kernel; without dropout, and
        before what a gate or a norm does to what was read.

        Raises as `four_axes` does where the mask does not fit.
        """
        if self.sums:
            of_queries, of_keys, _ = self.features(queries, keys, start=0)
            return variants.linear_weights(of_queries, of_keys, mask=mask, causal=causal)
        q, k, _, scope = self.reading(queries, keys, mask=mask, causal=causal, cache=None)
        return self.weigh(q, k, **scope)

    def reading(
        self, queries: Tensor, keys: Tensor | None, *, mask: Mask | None, causal: bool, cache: Cache | None
    ) -> Reading:
        """Queries, keys, values, with those of the cache, and who may attend to whom."""
        if keys is not None:
            q = self.norm_queries(self.split(self.to_queries(queries)))
            return Reading(q, *self.crossed(keys, cache), {"mask": mask, "causal": causal})
        q, k, v = self.projected(queries, start=cache.tokens if cache is not None else 0)
        scope = self.scope(mask, q, cache, causal=causal)
        return Reading(q, *self.keep(k, v, cache), scope)

    def keep(self, keys: Tensor, values: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """All keys and values, with those that the cache held, which then holds what later tokens need."""
        if cache is None:
            return keys, values
        keys, values = cache.grow(keys, values)
        if self.variant.window is not None:
            cache.forget(self.variant.window, self.variant.sinks)
        return keys, values

    def projected(self, tokens: Tensor, *, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens that read themselves, the first of which stands at `start`."""
        q = self.norm_queries(self.split(self.to_queries(tokens)))
        k, v = self.norm_keys(self.split(self.to_keys(tokens))), self.split(self.to_values(tokens))
        if self.variant.positions == "rope":
            q, k = self.turned(q, start=start), self.turned(k, start=start)
        return q, k, v

    def turned(self, x: Tensor, *, start: int) -> Tensor:
        """Queries or keys with their rotary positions."""
        return rotated(x, start=start, parts=self.parts)

    def compiles(self, tokens: Tensor, *, alone: bool) -> bool:
        """Whether FlexAttention is to read them: on a GPU, tokens enough that read themselves `alone`, under
        a window or a bias, without dropout.
        """
        shaped = self.variant.window is not None or self.variant.positions == "alibi"
        suits = tokens.is_cuda and tokens.shape[1] >= FLEX_FROM and not (self.training and self.dropout)
        return bool(alone and shaped and suits and self.kernel is fused)

    def read_compiled(self, tokens: Tensor, *, causal: bool) -> Tensor:
        """What tokens read from themselves by a kernel that is compiled for their window and bias."""
        from attnsweep.nn import flex  # here: it imports torch's compiler, which takes a second

        variant, (q, k, v) = self.variant, self.projected(tokens)
        return flex.attend(
            q, k, v,
            causal=causal, window=variant.window, sinks=variant.sinks, alibi=variant.positions == "alibi",
        )  # fmt: skip

    def crossed(self, tokens: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """The keys and values (b, g, m, d) of another sequence's tokens."""
        if cache is not None and cache.held:
            k, v = cache.held
            return k, v
        k, v = self.norm_keys(self.split(self.to_keys(tokens))), self.split(self.to_values(tokens))
        return (k, v) if cache is None else cache.grow(k, v)

    def scope(
        self, mask: Mask | None, queries: Tensor, cache: Cache | None, *, causal: bool
    ) -> dict[str, Any]:
        """What a kernel is told of who may attend to whom, the tokens of the cache and these."""
        variant, n, bias = self.variant, queries.shape[2], None
        if variant.window is None and variant.positions != "alibi":
            return {"mask": mask, "causal": causal}
        there = (cache or Cache()).places(n, sinks=variant.sinks, device=queries.device)
        here = there[len(there) - n :]
        if variant.positions == "alibi":
            bias = distances(here, there, self.heads, like=queries)
        if mask is not None and variant.window is not None and cache is not None:
            mask = mask[..., there] if mask.shape[-1] == cache.tokens + n else mask
        if variant.window is not None and not (cache is not None and n == 1):  # which holds what is near
            near = window_mask(here, there, variant.window, variant.sinks)
            mask = near if mask is None else near & mask
        return {"mask": mask, "bias": bias, "causal": causal}

    def read_sums(
        self, queries: Tensor, keys: Tensor | None, *, mask: Mask | None, causal: bool, cache: Cache | None
    ) -> Tensor:
        """What linear attention reads, (b, h, n, d); a cache holds its sums. The mask may be of keys
        alone.
        """
        own, n = keys is None, queries.shape[1]
        start = cache.tokens if cache is not None and own else 0
        if cache is not None and cache.held and not own:
            plain = variants.features(self.norm_queries(self.split(self.to_queries(queries))))
            return variants.read_sums((plain, plain), variants.Sums(*cache.held))
        q, k, v = self.features(queries, keys, start=start)
        before = variants.Sums(*cache.held) if cache is not None and cache.held else None
        admitted = variants.of_keys(mask, q[0], k[0], seen=start)
        read, sums = variants.linear_attention(q, k, v, admitted=admitted, causal=causal, before=before)
        if cache is not None:
            cache.held, cache.tokens = tuple(sums), cache.tokens + (n if own else k[0].shape[2])
        return read

    def features(
        self, queries: Tensor, keys: Tensor | None, *, start: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
        """phi(Q) and phi(K), each as it stands and as rope turns it, and V."""
        tokens = queries if keys is None else keys
        q = variants.features(self.norm_queries(self.split(self.to_queries(queries))))
        k = variants.features(self.norm_keys(self.split(self.to_keys(tokens))))
        turned = (q, k)
        if self.variant.positions == "rope" and keys is None:
            turned = self.turned(q, start=start), self.turned(k, start=start)
        return (q, turned[0]), (k, turned[1]), self.split(self.to_values(tokens))

    def split(self, tokens: Float[Tensor, "b n hd"]) -> Float[Tensor, "b n h d"]:
        """What belongs to each head."""
        return rearrange(tokens, "b n (h d) -> b h n d", d=self.dim_head)


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
