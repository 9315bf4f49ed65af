"""What "Attention Is All You Need" (https://arxiv.org/abs/1706.03762) puts around attention.

    3.3  feed-forward network, eq. 2            `FeedForward`
    3.1  residuals, norms and the two blocks    `Residual`, `EncoderBlock`, `DecoderBlock`

Shapes: b examples, n tokens, d the width of a token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.core.errors import one_of
from attnsweep.nn.attention import Cache, MultiHeadAttention, linear
from attnsweep.nn.design import MLPS, NORMS, PLAIN, Variant, variant_of
from attnsweep.nn.kernels import Mask
from attnsweep.nn.norms import RMSNorm


class SwiGLU(nn.Module):
    """Swish(x W) * x V without biases, "GLU Variants Improve Transformer" (https://arxiv.org/abs/2002.05202,
    FFN_SwiGLU): it replaces the first layer and its ReLU, and needs a third matrix.
    """

    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.gate, self.up = (linear(dim, mlp_dim, bias=False) for _ in range(2))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n hidden"]:
        return nn.functional.silu(self.gate(x)) * self.up(x)


class FeedForward(nn.Sequential):
    """Eq. 2, FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, token by token: (b, n, d) to (b, n, d).

    `gelu` replaces the ReLU (https://arxiv.org/abs/1606.08415); `swiglu` is `SwiGLU`, then W_2 without bias.
    """

    def __init__(self, dim: int, mlp_dim: int, *, kind: str = "relu") -> None:
        if one_of("mlp", kind, MLPS) == "swiglu":
            super().__init__(SwiGLU(dim, mlp_dim), linear(mlp_dim, dim, bias=False))
        else:
            activation = nn.GELU() if kind == "gelu" else nn.ReLU()
            super().__init__(linear(dim, mlp_dim), activation, linear(mlp_dim, dim))


def norm_of(dim: int, kind: str) -> nn.Module:
    """LayerNorm, or for `rms` RMSNorm (https://arxiv.org/abs/1910.07467)."""
    return RMSNorm(dim) if kind == "rms" else nn.LayerNorm(dim)


def last_norm(dim: int, kind: str) -> nn.Module:
    """The norm after the last block, which stacks of pre-norm blocks need, and those of post-norm do not."""
    return nn.Identity() if kind == "post" else norm_of(dim, kind)


class Residual(nn.Module):
    """The residual connection and norm around a sub-layer (section 3.1), and dropout (section 5.4).

    norm="post", the paper's: Norm(x + Dropout(Sublayer(x))). norm="pre": x + Dropout(Sublayer(Norm(x))).
    norm="rms" is "pre" with RMSNorm.
    """

    def __init__(self, dim: int, *, norm: str = "post", dropout: float = 0.0) -> None:
        super().__init__()
        self.pre = one_of("norm", norm, NORMS) != "post"
        self.norm, self.dropout = norm_of(dim, norm), nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b n d"], sublayer: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "b n d"]:
        if self.pre:
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))


@dataclass(frozen=True)
class BlockDesign:
    """A block besides its sizes: arguments of `MultiHeadAttention`, and the kind of feed-forward layer."""

    variant: Variant = PLAIN
    attention_dropout: float = 0.0
    mlp: str = "relu"
    block: int = 1


AS_PUBLISHED = BlockDesign()


def block_design(config: Mapping[str, Any]) -> BlockDesign:
    """The design of a configuration's blocks."""
    dropout, mlp = config.get("attention_dropout") or 0.0, config.get("mlp") or "relu"
    return BlockDesign(variant_of(config), dropout, mlp)


class EncoderBlock(nn.Module):
    """Tokens attend to one another, then each goes through the feed-forward network."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        mlp_dim: int,
        dim_head: int | None = None,
        dropout: float = 0.0,
        norm: str = "post",
        attention: str = "fused",
        design: BlockDesign = AS_PUBLISHED,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(
            dim, heads=heads, dim_head=dim_head, attention=attention,
            dropout=design.attention_dropout, variant=design.variant, block=design.block,
        )  # fmt: skip
        self.feed_forward = FeedForward(dim, mlp_dim, kind=design.mlp)
        self.around_attention, self.around_feed_forward = (
            Residual(dim, norm=norm, dropout=dropout) for _ in range(2)
        )

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        *,
        mask: Mask | None = None,
        causal: bool = False,
        cache: Cache | None = None,
    ) -> Float[Tensor, "b n d"]:
        """(b, n, d) to (b, n, d). With `causal` and a cache it serves a decoder without an encoder."""
        x = self.around_attention(x, lambda x: self.attention(x, mask=mask, causal=causal, cache=cache))
        return self.around_feed_forward(x, self.feed_forward)


class DecoderBlock(nn.Module):
    """An encoder block with cross-attention to the encoder's output between its two sub-layers."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        mlp_dim: int,
        dim_head: int | None = None,
        dropout: float = 0.0,
        norm: str = "post",
        attention: str = "fused",
        design: BlockDesign = AS_PUBLISHED,
    ) -> None:
        super().__init__()
        self.attention, self.cross_attention = (
            MultiHeadAttention(
                dim, heads=heads, dim_head=dim_head, attention=attention,
                dropout=design.attention_dropout, variant=design.variant, block=design.block,
            )
            for _ in range(2)
        )  # fmt: skip
        self.feed_forward = FeedForward(dim, mlp_dim, kind=design.mlp)
        self.around_attention, self.around_cross_attention, self.around_feed_forward = (
            Residual(dim, norm=norm, dropout=dropout) for _ in range(3)
        )

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        memory: Float[Tensor, "b m d"],
        *,
        mask: Mask | None = None,
        causal: bool = False,
        memory_mask: Mask | None = None,
        caches: tuple[Cache, Cache] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """(b, n, d) to (b, n, d), with the encoder's output `memory` (b, m, d); a cache per attention."""
        own, crossed = caches or (None, None)
        x = self.around_attention(x, lambda x: self.attention(x, mask=mask, causal=causal, cache=own))
        x = self.around_cross_attention(
            x, lambda x: self.cross_attention(x, memory, mask=memory_mask, cache=crossed)
        )
        return self.around_feed_forward(x, self.feed_forward)
