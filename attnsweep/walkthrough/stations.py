"""Each variant of attention at a station of its own: a few tokens, what changes, and what it costs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from attnsweep.core.cost import Cost
from attnsweep.nn import variants, windows
from attnsweep.nn.attention import Cache, MultiHeadAttention
from attnsweep.nn.blocks import FeedForward, norm_of
from attnsweep.nn.cost import cache_bytes, feed_forward, multi_head
from attnsweep.nn.design import PLAIN, Variant
from attnsweep.nn.kernels import attention_weights, causal_mask, explicit
from attnsweep.nn.positions import alibi_bias, alibi_slopes, apply_rope
from attnsweep.walkthrough.paper import HIDDEN, WIDTH, D, H, heads_of
from attnsweep.walkthrough.reader import Reader

N = 5  # tokens


@dataclass(frozen=True)
class Station:
    """One variant: what it is, its paper, and what shows it; `attention` as the axis of that name says."""

    what: str
    source: str
    show: Callable[[MultiHeadAttention, Tensor, Reader], None]
    variant: Variant = PLAIN
    attention: str = "explicit"


def same(layer: MultiHeadAttention, x: Tensor, read: Tensor) -> None:
    """Asserts that the layer reads what was computed piece by piece, by head."""
    side_by_side = rearrange(read, "b h n d -> b n (h d)")
    torch.testing.assert_close(layer(x, causal=True), layer.to_output(side_by_side))


def rope(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    (q, k, v), places = heads_of(layer, x), torch.arange(N)
    turned = apply_rope(q), apply_rope(k)
    say.step("Each pair (x_2i, x_2i+1) turned by place times 10000^(-2i/d) radians", "section 3.2.2")
    angles = places[:, None] * 10_000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    say.tensor("angles", angles, "n i")
    say.tensor("Q turned", turned[0], "b h n d")
    say.step("Scores hang on the distance alone: 100 places further on they are the same", "section 3.2.2")
    scores = turned[0] @ turned[1].mT
    say.tensor("scores", scores, "b h n m")
    further = apply_rope(q, start=100) @ apply_rope(k, start=100).mT
    torch.testing.assert_close(scores, further, atol=1e-4, rtol=0)
    same(layer, x, explicit(*turned, v, causal=True))


def alibi(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    (q, k, v), places = heads_of(layer, x), torch.arange(N)
    say.step(f"Slopes 2^(-8i/h) of the {H} heads", "section 3")
    say.line(f"  {', '.join(f'{slope:.4f}' for slope in alibi_slopes(H).tolist())}")
    bias = alibi_bias(places, places, H, like=x)
    say.step("Added to the scores: minus slope times distance; here the first head's", "section 3")
    say.tensor("bias", bias, "h n m")
    same(layer, x, explicit(q, k, v, bias=bias, causal=True))


def shared_keys(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    q, k, v = heads_of(layer, x)
    say.step(f"{H} heads of queries share {k.shape[1]} of keys and values", "section 2.2")
    say.tensor("K", k, "b g m d")
    whole = (part.repeat_interleave(H, dim=1) for part in (k, v))
    same(layer, x, explicit(q, *whole, causal=True))


def window(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    (q, k, v), places, variant = heads_of(layer, x), torch.arange(N), layer.variant
    assert variant.window is not None
    near = windows.window_mask(places, places, variant.window, variant.sinks)
    say.step(
        f"Less than {variant.window} tokens away, or the first {variant.sinks}, and not later", "section 3.2"
    )
    say.tensor("mask", near & causal_mask(N, N), "n m")
    same(layer, x, explicit(q, k, v, mask=near, causal=True))


def qk_norm(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    q, k, v = heads_of(layer, x)
    q, k = layer.norm_queries(q), layer.norm_keys(k)
    say.step(
        "Queries and keys divided by their root mean square: no score exceeds sqrt(d) at first", "section 2"
    )
    say.tensor("Q normed", q, "b h n d")
    say.line(
        f"  largest score {(q @ k.mT / math.sqrt(WIDTH)).abs().max().item():.2f} of {math.sqrt(WIDTH):.2f}"
    )
    same(layer, x, explicit(q, k, v, causal=True))


def linear(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    q, k, v = heads_of(layer, x)
    q, k = variants.feature_map(q), variants.feature_map(k)
    say.step("phi(x) = elu(x) + 1 of queries and keys, above 0", "section 3.2")
    say.tensor("phi(Q)", q, "b h n d")
    s, z, read = torch.zeros(1, H, WIDTH, WIDTH), torch.zeros(1, H, WIDTH), []
    for i in range(N):
        s = s + k[:, :, i, :, None] * v[:, :, i, None]
        z = z + k[:, :, i]
        below = (q[:, :, i] * z).sum(dim=-1, keepdim=True)
        read.append((q[:, :, i, None] @ s).squeeze(2) / below)
    say.step(
        "S += phi(k) v^T, z += phi(k), read = phi(q) S / phi(q) . z: after the last token", "section 3.4"
    )
    say.tensor("S", s, "b h d e")
    say.tensor("z", z, "b h d")
    same(layer, x, torch.stack(read, dim=2))


def differential(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    (q, k, v), kernel = heads_of(layer, x), layer.kernel
    assert isinstance(kernel, variants.Differential)
    one, other = (
        attention_weights(a, b, causal=True)
        for a, b in zip(q.chunk(2, dim=-1), k.chunk(2, dim=-1), strict=True)
    )
    factor = kernel.factor
    say.step("Weights of the first and the second halves of queries and keys", "section 2.1")
    say.tensor("first", one, "b h n m")
    say.tensor("second", other, "b h n m")
    say.step(f"The first less lambda = {factor.item():.3f} times the second", "section 2.1")
    say.tensor("difference", one - factor * other, "b h n m")
    read = kernel.norm((one - factor * other) @ v) * (1 - kernel.initial)
    say.step(
        f"Normed per head, times 1 - lambda_init = {1 - kernel.initial:.1f} in the first block", "section 2.2"
    )
    say.tensor("read", read, "b h n d")
    same(layer, x, read)


def gated(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    q, k, v = heads_of(layer, x)
    assert layer.to_gate is not None
    gate = layer.split(layer.to_gate(x)).sigmoid()
    say.step("What was read, element by element times sigmoid(x W)", "section 2.2")
    say.tensor("gate", gate, "b h n d")
    same(layer, x, explicit(q, k, v, causal=True) * gate)


def sigmoid(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    q, k, v = heads_of(layer, x)
    count = torch.arange(1, N + 1)[:, None]
    weights = (q @ k.mT / math.sqrt(WIDTH) - count.log()).sigmoid().tril()
    say.step("sigmoid(Q K^T / sqrt(d) - log n), n keys being open: rows need not sum to one", "section 2")
    say.tensor("weights", weights, "b h n m")
    say.tensor("their sums", weights.sum(dim=-1), "b h n")
    same(layer, x, weights @ v)


STATIONS = {
    "rope": Station("Rotary positions", "arXiv:2104.09864", rope, Variant(positions="rope")),
    "alibi": Station("Attention with linear biases", "arXiv:2108.12409", alibi, Variant(positions="alibi")),
    "kv_heads": Station("Shared keys and values", "arXiv:2305.13245", shared_keys, Variant(kv_heads=1)),
    "window": Station("A window with a sink", "arXiv:2309.17453", window, Variant(window=2, sinks=1)),
    "qk_norm": Station("Normed queries and keys", "arXiv:2302.05442", qk_norm, Variant(qk_norm="rms")),
    "linear": Station("Linear attention", "arXiv:2006.16236", linear, PLAIN, "linear"),
    "differential": Station(
        "Differential attention", "arXiv:2410.05258", differential, PLAIN, "differential"
    ),
    "gated": Station("Gated attention", "arXiv:2505.06708", gated, PLAIN, "gated"),
    "sigmoid": Station("Sigmoid attention", "arXiv:2409.04431", sigmoid, PLAIN, "sigmoid"),
}


def visit(name: str, say: Reader) -> None:
    """One variant on a sequence of N tokens under a causal mask, with what it costs."""
    torch.manual_seed(0)
    station = STATIONS[name]
    layer = MultiHeadAttention(D, heads=H, attention=station.attention, variant=station.variant)
    x = torch.randn(1, N, D, generator=torch.Generator().manual_seed(1))
    say.title(f"{name}: {station.what} ({station.source})")
    say.step("Tokens of one sequence, which may attend to themselves and to what came before")
    say.tensor("x", x, "b n d")
    with torch.no_grad():
        station.show(layer, x, say)
        state_cost(layer, station, x, say)


def state_cost(layer: MultiHeadAttention, station: Station, x: Tensor, say: Reader) -> None:
    """What the layer costs, and that its cache gives the same token by token."""
    kind, variant = station.attention, station.variant
    sizes: dict[str, Any] = dict(heads=H, dim_head=WIDTH, attention=kind, variant=variant)
    cost, cache = multi_head(D, N, N, causal=True, **sizes), Cache()
    steps = [layer(token, causal=True, cache=cache) for token in x.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x, causal=True))
    assert cost.params == sum(weight.numel() for weight in layer.parameters())
    assert cache.bytes == cache_bytes(N, **sizes)
    say.step("Token by token with a cache it is the same")
    counts = f"{cost.params} parameters, {cost.macs} multiply-accumulates"
    say.line(f"  {counts}, {cache.bytes} bytes in the cache")


def around_attention(say: Reader) -> None:
    """What has changed beside attention: norms and feed-forward layers."""
    torch.manual_seed(0)
    x = torch.randn(1, N, D)
    say.title("norm and mlp: what stands around attention")
    say.step("norm='pre': x + Sublayer(Norm(x)); norm='rms' is that with x / sqrt(mean(x^2)) times a scale",
             "arXiv:1910.07467")  # fmt: skip
    rms: nn.Module = norm_of(D, "rms")
    say.tensor("RMSNorm(x)", rms(x).detach(), "b n d")
    torch.testing.assert_close(rms(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    for kind, source in (("gelu", "arXiv:1606.08415"), ("swiglu", "arXiv:2002.05202, FFN_SwiGLU")):
        layer = FeedForward(D, HIDDEN, kind=kind)
        params = sum(weight.numel() for weight in layer.parameters())
        closed: Cost = feed_forward(D, HIDDEN, N, kind=kind)
        assert params + 2 * D == closed.params
        say.step(f"mlp={kind!r}: {params} parameters, {closed.macs} multiply-accumulates", source)
        say.tensor("FFN(x)", layer(x).detach(), "b n d")
