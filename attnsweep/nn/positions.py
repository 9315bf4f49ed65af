"""Where a token stands: added to it, turned into queries and keys, or taken off their scores.

    sinusoidal   section 3.5 of "Attention Is All You Need" (https://arxiv.org/abs/1706.03762)   `sinusoids`
    learned      a vector per place, likewise added to the tokens                                `Positions`
    rope         RoFormer (https://arxiv.org/abs/2104.09864): queries and keys are turned         `rotated`
    alibi        https://arxiv.org/abs/2108.12409: a line of their distance is taken off scores   `distances`
    none         nothing says it but the causal mask (https://arxiv.org/abs/2305.19466)

The first two say where a token stands, the next two how far two tokens stand from one another: those act in
the attention of a sequence to itself, and not where one sequence reads another.
Shapes: b examples, h heads, n queries, m keys, d the width of a token, or of a head where h stands before.
"""

import functools
from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from attnsweep.core.errors import UserError, known
from attnsweep.nn.design import POSITIONS

BASE = 10_000  # of the frequencies, in both papers


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


class Positions(nn.Module):
    """Adds to each token what says where it stands, `sinusoidal` or `learned`, for up to `longest` tokens.
    Of the other kinds it adds nothing, and there is no longest.

    Raises UserError for an unknown kind.
    """

    def __init__(self, longest: int, dim: int, *, kind: str = "sinusoidal") -> None:
        super().__init__()
        self.table: Tensor | None
        if known("positions", kind, POSITIONS) == "learned":
            self.table = nn.Parameter(torch.randn(longest, dim) * dim**-0.5)
        else:
            table = sinusoids(longest, dim) if kind == "sinusoidal" else None
            self.register_buffer("table", table, persistent=False)

    def forward(self, tokens: Float[Tensor, "b n d"], *, start: int = 0) -> Float[Tensor, "b n d"]:
        """Of tokens (b, n, d), the first of which stands at `start`. Raises UserError past `longest`."""
        if self.table is None:
            return tokens
        end, longest = start + tokens.shape[1], len(self.table)
        if end > longest:
            raise UserError(f"{end} tokens, but there are positions for {longest}; build the model for more")
        return tokens + self.table[start:end]


def rotated(x: Float[Tensor, "b h n d"], *, start: int = 0, parts: int = 1) -> Float[Tensor, "b h n d"]:
    """Queries or keys that stand from `start` on, each pair (x_2i, x_2i+1), as a complex number, turned by
    its place times 10000^(-2i / d) radians (RoFormer, section 3.2.2), so that q_m . k_n hangs on m - n alone.
    GPT-NeoX pairs x_i with x_(i + d/2) instead, which is the same up to the order of a head's columns.
    Of several `parts` side by side each is turned by itself, d being its width; it must be even.
    """
    exact = x if x.dtype in (torch.float32, torch.float64) else x.float()
    pairs = torch.view_as_complex(exact.unflatten(-1, (-1, 2)))
    end = start + x.shape[2]
    turned = pairs * turns(pairs, 2 ** (end - 1).bit_length(), x.shape[-1] // parts, parts)[start:end]
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def remembered(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A table made by `make(*sizes, dtype, device)` for tensors like the first argument, once for each; but
    anew while torch traces, whose tensors mean nothing after that.
    """
    known = functools.lru_cache(maxsize=64)(make)

    def table(like: Tensor, *sizes: int) -> Tensor:
        traced = torch.compiler.is_compiling() or type(like) is not Tensor
        return (make if traced else known)(*sizes, like.dtype, like.device)

    return table


@remembered
def turns(
    longest: int, dim: int, parts: int, dtype: torch.dtype, device: torch.device
) -> Shaped[Tensor, "n i"]:
    """exp(i place frequency) of the first places, (longest, parts dim / 2), complex."""
    with torch.inference_mode(False):  # whoever asks first, training may go on with them
        places = torch.arange(longest, dtype=torch.float64, device=device)
        angles = torch.outer(places, frequencies(dim, device=device)).repeat(1, parts)
        return torch.complex(*(part.to(dtype.to_real()) for part in (angles.cos(), angles.sin())))


def slopes(heads: int) -> Float[Tensor, " h"]:
    """What a step of distance takes off the scores of each head: 2^(-8i / h) for i = 1, ..., h, h being a
    power of two. Of another number of heads those of the power below, then every other one of that above, as
    in the authors' code (https://github.com/ofirpress/attention_with_linear_biases).
    """
    whole = 2 ** (heads.bit_length() - 1)
    exponents = [8 * i / whole for i in range(1, whole + 1)]
    between = [8 * i / (2 * whole) for i in range(1, 2 * (heads - whole) + 1, 2)]
    return 2.0 ** -torch.tensor(exponents + between, dtype=torch.float64)


@remembered
def steps(heads: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "h 1 1"]:
    """Minus the slopes."""
    with torch.inference_mode(False):
        return -slopes(heads).to(device, dtype)[:, None, None]


def distances(
    queries: Int[Tensor, " n"], keys: Int[Tensor, " m"], heads: int, *, like: Tensor
) -> Float[Tensor, "h n m"]:
    """ALiBi's bias on the scores, -slope |place of the query - place of the key|, (h, n, m), of the type of
    `like`.
    """
    return steps(like, heads) * (queries[:, None] - keys).abs().to(like.dtype)
