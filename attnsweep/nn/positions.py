"""Positional encodings: added to the tokens, rotated into queries and keys, or subtracted from the scores.

    sinusoidal   "Attention Is All You Need" (https://arxiv.org/abs/1706.03762), section 3.5  `sinusoids`
    learned      a vector per position, also added to the tokens                       `PositionalEncoding`
    rope         RoFormer (https://arxiv.org/abs/2104.09864): rotates queries and keys  `apply_rope`
    alibi        subtracts slope times distance (https://arxiv.org/abs/2108.12409)      `alibi_bias`,
                 `fold_alibi`
    none         the causal mask alone tells positions (https://arxiv.org/abs/2305.19466)

The first two are absolute, the next two relative: those act in self-attention and not in cross-attention.
Shapes: b examples, h heads, n queries, m keys, d the width of a token, or of a head after an axis h.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from attnsweep.core.errors import UserError, one_of
from attnsweep.nn.cost import FOLDED
from attnsweep.nn.design import POSITIONS

BASE = 10_000  # of the frequencies, in both papers
DIGIT = 256  # to the base of which bfloat16 holds both digits of a place exactly


def frequencies(dim: int, *, device: torch.device | None = None) -> Float[Tensor, " i"]:
    """1 / 10000^(2i / d) for i = 0, 1, ..., in float64: radians per place."""
    steps = torch.arange(0, dim, 2, dtype=torch.float64, device=device)
    return BASE ** (-steps / dim)


def sinusoids(longest: int, dim: int) -> Float[Tensor, "n d"]:
    """PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) = cos(the same), (longest, d); section 3.5."""
    position = torch.arange(longest, dtype=torch.float64)
    angles = torch.outer(position, frequencies(dim))
    both = rearrange([angles.sin(), angles.cos()], "two n i -> n (i two)")
    return both[:, :dim].to(torch.get_default_dtype())


class PositionalEncoding(nn.Module):
    """Adds `sinusoidal` or `learned` positions to up to `longest` tokens; other kinds nothing to any number.

    Raises UserError for an unknown kind.
    """

    def __init__(self, longest: int, dim: int, *, kind: str = "sinusoidal") -> None:
        super().__init__()
        self.table: Tensor | None
        if one_of("positions", kind, POSITIONS) == "learned":
            self.table = nn.Parameter(torch.randn(longest, dim) * dim**-0.5)
        else:
            table = sinusoids(longest, dim) if kind == "sinusoidal" else None
            self.register_buffer("table", table, persistent=False)

    def forward(self, tokens: Float[Tensor, "b n d"], *, start: int = 0) -> Float[Tensor, "b n d"]:
        """(b, n, d) to (b, n, d); the first token's position is `start`. Raises UserError past `longest`."""
        if self.table is None:
            return tokens
        end, longest = start + tokens.shape[1], len(self.table)
        if end > longest:
            raise UserError(f"{end} tokens, but there are positions for {longest}; build the model for more")
        return tokens + self.table[start:end]


def apply_rope(x: Float[Tensor, "b h n d"], *, start: int = 0, parts: int = 1) -> Float[Tensor, "b h n d"]:
    """Queries or keys at positions `start`, `start` + 1, ...: each pair (x_2i, x_2i+1), as a complex number,
    is rotated by its position times 10000^(-2i / d) radians (RoFormer, section 3.2.2), so that q_m . k_n
    depends on m - n alone. GPT-NeoX pairs x_i with x_(i + d/2), which only reorders the columns of a head.
    Each of several `parts` side by side is rotated by itself, d being its width, which must be even.
    """
    exact = x if x.dtype in (torch.float32, torch.float64) else x.float()
    pairs = torch.view_as_complex(exact.unflatten(-1, (-1, 2)))
    end = start + x.shape[2]
    turned = pairs * rotations(pairs, 2 ** (end - 1).bit_length(), x.shape[-1] // parts, parts)[start:end]
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def cached_table(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Caches the table that `make(*sizes, dtype, device)` gives for tensors like the first argument. While
    torch traces it is made anew: tensors of a trace mean nothing after it.
    """

    def made(*arguments: Any) -> Tensor:
        with torch.inference_mode(False):  # training may use it later
            return make(*arguments)

    known = functools.lru_cache(maxsize=64)(made)

    def table(like: Tensor, *sizes: int) -> Tensor:
        traced = torch.compiler.is_compiling() or type(like) is not Tensor
        return (made if traced else known)(*sizes, like.dtype, like.device)

    return table


@cached_table
def rotations(
    longest: int, dim: int, parts: int, dtype: torch.dtype, device: torch.device
) -> Shaped[Tensor, "n i"]:
    """exp(i position frequency) for positions below `longest`, (longest, parts dim / 2), complex."""
    places = torch.arange(longest, dtype=torch.float64, device=device)
    angles = torch.outer(places, frequencies(dim, device=device)).repeat(1, parts)
    return torch.complex(*(part.to(dtype.to_real()) for part in (angles.cos(), angles.sin())))


def alibi_slopes(heads: int) -> Float[Tensor, " h"]:
    """The slope of each head: 2^(-8i / h) for i = 1, ..., h where h is a power of two. Otherwise those of the
    next lower power of two, then every other one of the next higher, as in the authors' code
    (https://github.com/ofirpress/attention_with_linear_biases).
    """
    whole = 2 ** (heads.bit_length() - 1)
    exponents = [8 * i / whole for i in range(1, whole + 1)]
    between = [8 * i / (2 * whole) for i in range(1, 2 * (heads - whole) + 1, 2)]
    return 2.0 ** -torch.tensor(exponents + between, dtype=torch.float64)


@cached_table
def negative_slopes(heads: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "h 1 1"]:
    """Minus the slopes."""
    return -alibi_slopes(heads).to(device, dtype)[:, None, None]


def alibi_bias(
    queries: Int[Tensor, " n"], keys: Int[Tensor, " m"], heads: int, *, like: Tensor
) -> Float[Tensor, "h n m"]:
    """-slope |position of the query - position of the key|, (h, n, m), in the dtype of `like`."""
    return negative_slopes(like, heads) * (queries[:, None] - keys).abs().to(like.dtype)


def fold_alibi(
    queries: Float[Tensor, "b h n d"], keys: Float[Tensor, "b g n d"], values: Float[Tensor, "b g n d"]
) -> tuple[Float[Tensor, "b h n e"], Float[Tensor, "b g n e"], Float[Tensor, "b g n e"]]:
    """Queries, keys and values of one sequence under a causal mask with FOLDED more columns, the last ones of
    the values 0, so that scores Q K^T / sqrt(d) have ALiBi's bias in them: no kernel of torch's that goes
    over the keys in blocks takes a bias.

    Below the diagonal -slope |i - j| is slope j - slope i. The latter is the same for all keys of a query, so
    that softmax does not see how it is rounded; it keeps the scores small, whose digits would be lost.
    """
    n, d = queries.shape[2:]
    rows, columns = folded_slopes(queries, queries.shape[1], d, n), folded_places(keys, n)
    return (
        torch.cat([rows.expand(len(queries), -1, -1, -1), queries], dim=-1),
        torch.cat([columns.expand(*keys.shape[:2], -1, -1), keys], dim=-1),
        F.pad(values, (0, FOLDED)),
    )


@cached_table
def folded_slopes(
    heads: int, dim_head: int, longest: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "h n FOLDED"]:
    """What `fold_alibi` puts before queries, (h, longest, FOLDED)."""
    slope = (alibi_slopes(heads) * math.sqrt(dim_head)).to(device, dtype)[:, None].expand(-1, longest)
    place = torch.arange(longest, device=device)
    return torch.stack([-slope * place, DIGIT * slope, slope, torch.zeros_like(slope)], dim=-1)


@cached_table
def folded_places(longest: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n FOLDED"]:
    """What `fold_alibi` puts before keys, (longest, FOLDED)."""
    place = torch.arange(longest, device=device)
    return torch.stack([torch.ones_like(place), place // DIGIT, place % DIGIT, 0 * place], dim=-1).to(dtype)
