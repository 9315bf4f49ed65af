"""What "Attention Is All You Need" (https://arxiv.org/abs/1706.03762) puts around attention.

    3.3  feed-forward network, eq. 2            `FeedForward`
    3.5  positions                              `sinusoids`, `Positions`
    3.1  residuals, norms and the two blocks    `Residual`, `EncoderBlock`, `DecoderBlock`

Shapes: b examples, n tokens, d the width of a token.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.core.errors import UserError, known
from attnsweep.nn.attention import Cache, Mask, MultiHeadAttention, linear


class FeedForward(nn.Sequential):
    """Eq. 2, FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, of each token by itself: (b, n, d) to (b, n, d)."""

    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__(linear(dim, mlp_dim), nn.ReLU(), linear(mlp_dim, dim))


def sinusoids(longest: int, dim: int) -> Float[Tensor, "n d"]:
    """PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) = cos(the same), (longest, d); section 3.5."""
    position = torch.arange(longest, dtype=torch.float64)
    frequency = 10_000 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.outer(position, frequency)
    both = rearrange([angles.sin(), angles.cos()], "two n i -> n (i two)")
    return both[:, :dim].to(torch.get_default_dtype())


class Positions(nn.Module):
    """Adds to each token what says where it stands, `sinusoidal` or `learned`, for up to `longest` tokens.

    Raises UserError for another kind.
    """

    def __init__(self, longest: int, dim: int, *, kind: str = "sinusoidal") -> None:
        super().__init__()
        self.table: Tensor
        if known("positions", kind, ("sinusoidal", "learned")) == "learned":
            self.table = nn.Parameter(torch.randn(longest, dim) * dim**-0.5)
        else:
            self.register_buffer("table", sinusoids(longest, dim), persistent=False)

    def forward(self, tokens: Float[Tensor, "b n d"], *, start: int = 0) -> Float[Tensor, "b n d"]:
        """Of tokens (b, n, d), the first of which stands at `start`. Raises UserError past `longest`."""
        end, longest = start + tokens.shape[1], len(self.table)
        if end > longest:
            raise UserError(f"{end} tokens, but there are positions for {longest}; build the model for more")
        return tokens + self.table[start:end]


class Residual(nn.Module):
    """A sub-layer with what goes around it (section 3.1), dropout on its output (section 5.4).

    norm="post", the paper's: Norm(x + Dropout(Sublayer(x))). norm="pre": x + Dropout(Sublayer(Norm(x))).
    """

    def __init__(self, dim: int, *, norm: str = "post", dropout: float = 0.0) -> None:
        super().__init__()
        self.pre = known("norm", norm, ("post", "pre")) == "pre"
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b n d"], sublayer: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "b n d"]:
        """(b, n, d) to (b, n, d)."""
        if self.pre:
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))


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
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads=heads, dim_head=dim_head, attention=attention)
        self.feed_forward = FeedForward(dim, mlp_dim)
        self.around_attention, self.around_feed_forward = (
            Residual(dim, norm=norm, dropout=dropout) for _ in range(2)
        )

    def forward(self, x: Float[Tensor, "b n d"], *, mask: Mask | None = None) -> Float[Tensor, "b n d"]:
        """(b, n, d) to (b, n, d)."""
        x = self.around_attention(x, lambda x: self.attention(x, mask=mask))
        return self.around_feed_forward(x, self.feed_forward)


class DecoderBlock(nn.Module):
    """An encoder block whose tokens attend to the encoder's output too, between the two."""

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
    ) -> None:
        super().__init__()
        self.attention, self.cross_attention = (
            MultiHeadAttention(dim, heads=heads, dim_head=dim_head, attention=attention) for _ in range(2)
        )
        self.feed_forward = FeedForward(dim, mlp_dim)
        self.around_attention, self.around_cross_attention, self.around_feed_forward = (
            Residual(dim, norm=norm, dropout=dropout) for _ in range(3)
        )

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        memory: Float[Tensor, "b m d"],
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        caches: tuple[Cache, Cache] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """(b, n, d) to (b, n, d), with the encoder's output `memory` (b, m, d); a cache per attention."""
        own, crossed = caches or (None, None)
        x = self.around_attention(x, lambda x: self.attention(x, mask=mask, cache=own))
        x = self.around_cross_attention(
            x, lambda x: self.cross_attention(x, memory, mask=memory_mask, cache=crossed)
        )
        return self.around_feed_forward(x, self.feed_forward)
