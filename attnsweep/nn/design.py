"""Which attention there is, and what goes together; needs no torch, so that a plan is checked in a second."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnsweep.core.axes import SHARED
from attnsweep.core.errors import UserError, one_of

ATTENTIONS, POSITIONS, NORMS, MLPS = (
    SHARED[name].choices for name in ("attention", "positions", "norm", "mlp")
)
RELATIVE = ("rope", "alibi")  # positions that act in the attention of tokens to one another


@dataclass(frozen=True)
class Variant:
    """What a multi-head attention does otherwise than the paper's; see `variants` and `positions`.

    `kv_heads` heads of keys and values (None: as many as of queries). Positions "rope" or "alibi" act between
    the tokens of one sequence; these, with a `window`, attend to what is less than that many tokens away, and
    to the first `sinks`. qk_norm "rms" norms queries and keys.
    """

    kv_heads: int | None = None
    positions: str | None = None
    window: int | None = None
    sinks: int = 0
    qk_norm: str | None = None


PLAIN = Variant()


def variant_of(config: Mapping[str, Any]) -> Variant:
    """What a configuration says of attention."""
    positions, qk_norm = config.get("positions"), config.get("qk_norm")
    return Variant(
        kv_heads=config.get("kv_heads"),
        positions=positions if positions in RELATIVE else None,
        window=config.get("window"),
        sinks=config.get("sinks") or 0,
        qk_norm=None if qk_norm == "none" else qk_norm,
    )


def check(attention: str, variant: Variant, *, heads: int, dim_head: int, dropout: float = 0.0) -> None:
    """Raises UserError for an unknown word, and what does not go together; `dropout`: that of the weights."""
    one_of("attention", attention, ATTENTIONS)
    kv_heads = variant.kv_heads
    if kv_heads is not None and (kv_heads > heads or heads % kv_heads):
        fitting = ", ".join(str(count) for count in range(1, heads + 1) if heads % count == 0)
        raise UserError(f"kv_heads={kv_heads} does not divide heads={heads}; use {fitting}")
    check_widths(attention, variant.positions, dim_head)
    if variant.sinks and variant.window is None:
        raise UserError(
            f"sinks={variant.sinks} means something beside a window only; add window=, or leave it out"
        )
    if attention != "linear":
        return
    if variant.positions == "alibi":
        raise UserError(
            "positions='alibi' is added to scores, which attention='linear' has not; use "
            f"positions= one of {', '.join(name for name in POSITIONS if name != 'alibi')}"
        )
    if variant.window is not None:
        raise UserError(
            f"window={variant.window} needs scores for each pair, which attention='linear' has not; leave "
            "window out, or use another attention"
        )
    if dropout:
        raise UserError(
            f"attention_dropout={dropout:g} is one on weights, which attention='linear' has not; use 0"
        )


def width_of_head(dim: int, heads: int) -> int:
    """dim // heads, as in the paper. Raises UserError, naming heads that do, where these do not divide it."""
    if dim % heads:
        divisors = [n for n in range(1, dim + 1) if dim % n == 0]
        near = sorted(sorted(divisors, key=lambda n: abs(n - heads))[:4])
        raise UserError(f"heads={heads} does not divide dim={dim}; use {', '.join(map(str, near))}")
    return dim // heads


def check_width(dim: int, norm: str) -> None:
    """Raises UserError where tokens have one value, of which less its own mean nothing is left."""
    if dim == 1 and norm != "rms":
        raise UserError(f"dim=1 is too small for norm={norm!r}, which leaves nothing of it; use 2 or more")


def check_window(variant: Variant, *, longest: int, what: str, causal: bool) -> None:
    """Raises UserError for a window that closes nothing; `what` makes sequences `longest` tokens."""
    window, sinks = variant.window, variant.sinks
    if window is not None and window >= longest:
        raise UserError(
            f"window={window} closes nothing, as {what} has {longest} tokens; use 1 to {longest - 1}, or "
            "leave it out"
        )
    most = longest - 1 - (window or 0) if causal else longest - 1
    if window is not None and sinks > most:
        raise UserError(
            f"window={window} with sinks={sinks} closes nothing, as {what} has {longest} tokens; use sinks "
            f"of {most} or less"
        )


def parts_of(attention: str) -> int:
    """Into how many queries, side by side, the width of a head falls."""
    return 2 if attention == "differential" else 1


def check_widths(attention: str, positions: str | None, dim_head: int) -> None:
    """Raises UserError where a head is not as wide as its halves, or its pairs, need."""
    halves, pairs = parts_of(attention) > 1, positions == "rope"
    parts = parts_of(attention) * (2 if pairs else 1)
    if dim_head % parts:
        why = " and ".join(
            ["attention='differential' halves it"] * halves + ["positions='rope' turns its pairs"] * pairs
        )
        near = sorted({max(parts, dim_head // parts * parts), (dim_head // parts + 1) * parts})
        raise UserError(
            f"dim_head={dim_head} is no multiple of {parts}, as {why}; use {', '.join(map(str, near))}"
        )
