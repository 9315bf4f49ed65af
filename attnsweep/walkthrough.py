"""One small example from tokens to loss, then again with each variant of attention: to be read, or to be
stepped through in a debugger.

    python -m attnsweep.walkthrough            # everything, from top to bottom
    python -m attnsweep.walkthrough rope       # one variant; --list names them

The example is a question of `reverse`, `3 1 4` with a place of padding, and its answer. Every number that is
printed is computed here, piece by piece, from the weights of the very model that is trained elsewhere, and
what comes out is asserted to be what the model gives. Section and equation numbers are those of "Attention Is
All You Need" (https://arxiv.org/abs/1706.03762), or of the paper that is named.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from attnsweep.core.cost import Cost
from attnsweep.core.errors import exit_status, known
from attnsweep.nn import variants, windows
from attnsweep.nn.attention import Cache, MultiHeadAttention
from attnsweep.nn.blocks import FeedForward, Residual, norm_of
from attnsweep.nn.cost import cache_bytes, feed_forward, multi_head
from attnsweep.nn.design import Variant
from attnsweep.nn.kernels import attention_weights, causal_mask, explicit, padding_mask
from attnsweep.nn.positions import distances, rotated, slopes
from attnsweep.tasks.sequences.problems import BEGIN, END, PAD
from attnsweep.tasks.sequences.transformer import Transformer

D, H, HIDDEN, VOCABULARY, N = 8, 2, 16, 13, 5  # N tokens in the examples of the variants
WIDTH = D // H
QUESTION, ANSWER = [6, 4, 7, PAD], [7, 4, 6, END]  # the digits 3 1 4, and the same from the last to the first
Print = Callable[[str], None]


@dataclass(frozen=True)
class Reader:
    """Prints titles, what a step is, and tensors with their shapes."""

    line: Print = print

    def title(self, text: str) -> None:
        self.line(f"\n=== {text} ===")

    def step(self, text: str, source: str = "") -> None:
        self.line(f"\n{text}{f'  [{source}]' if source else ''}")

    def tensor(self, name: str, values: Tensor, axes: str) -> None:
        """The name, the axes with their lengths, and the values of the first example."""
        lengths = ", ".join(
            f"{axis}={length}" for axis, length in zip(axes.split(), values.shape, strict=True)
        )
        self.line(f"  {name} ({lengths})")
        for row in rows_of(values[0] if axes.startswith("b") else values):
            self.line(f"    {row}")


def rows_of(values: Tensor) -> list[str]:
    """A tensor as lines of text, the last axis along the line; of more than two axes the first of each."""
    while values.ndim > 2:
        values = values[0]
    return [" ".join(map(written, row)) for row in (values[None] if values.ndim == 1 else values).tolist()]


def written(value: float) -> str:
    """A number, or the sign of a mask: `x` where a query may attend, `.` where it may not."""
    if isinstance(value, bool):
        return "x" if value else "."
    return f"{value:>3}" if isinstance(value, int) else f"{round(value, 2) + 0.0:>6.2f}"


# --- From tokens to loss ---


def from_tokens_to_loss(say: Reader) -> Tensor:
    """The paper's transformer with one block on either side; returns the loss, a scalar in nats."""
    torch.manual_seed(0)
    model = Transformer(
        vocabulary=VOCABULARY, dim=D, depth=1, heads=H, mlp_dim=HIDDEN, dropout=0.0, attention="explicit"
    )
    source, answer = torch.tensor([QUESTION]), torch.tensor([ANSWER])
    target = F.pad(answer[:, :-1], (1, 0), value=BEGIN)
    say.title("From tokens to loss")
    say.step(f"Tokens: {PAD} pads, {BEGIN} begins an answer, {END} ends it, a digit is 3 more than it says")
    say.tensor("source", source, "b n")
    say.tensor("target, what the decoder sees", target, "b m")
    say.tensor("answer, what it is to say", answer, "b m")
    memory = encode(model, source, say)
    logits = decode(model, target, memory, source, say)
    loss = F.cross_entropy(logits.mT, answer, label_smoothing=0.1)
    loss.backward()
    say.step("Loss: cross-entropy per token against labels smoothed by 0.1, in nats", "section 5.4")
    say.line(
        f"  loss {loss.item():.4f}; one that knows nothing has log {VOCABULARY} = {math.log(VOCABULARY):.4f}"
    )
    norms = {
        name: float(weight.grad.norm())
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    say.step("Backward: every parameter has a gradient; the greatest and the least norms are")
    for name in (max(norms, key=norms.__getitem__), min(norms, key=norms.__getitem__)):
        say.line(f"  {norms[name]:.2e}  {name}")
    torch.testing.assert_close(model(source, target), logits)
    return loss.detach()


def embedded(model: Transformer, tokens: Tensor, say: Reader) -> Tensor:
    """Embedding and positions, (b, n, d)."""
    scaled = model.embedding(tokens) * math.sqrt(D)
    say.step(f"Embedding times sqrt(d) = {math.sqrt(D):.2f}", "section 3.4")
    say.tensor("x", scaled, "b n d")
    table = model.positions.table
    assert table is not None
    say.step(
        "Positions PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(...), added", "section 3.5"
    )
    say.tensor("PE", table[: tokens.shape[1]], "n d")
    return scaled + table[: tokens.shape[1]]


def encode(model: Transformer, source: Tensor, say: Reader) -> Tensor:
    """The encoder's output (b, n, d)."""
    say.title("Encoder")
    x, mask = embedded(model, source, say), padding_mask(source, padding=PAD)
    block: Any = model.encoder[0]
    say.step("Mask: every query may attend to the keys that are not padding, x", "section 3.2.3")
    say.tensor("mask", mask, "b one m")
    x = around(block.around_attention, x, lambda x: attend(block.attention, x, x, mask, say), say)
    return around(block.around_feed_forward, x, lambda x: feed(block.feed_forward, x, say), say)


def decode(model: Transformer, target: Tensor, memory: Tensor, source: Tensor, say: Reader) -> Tensor:
    """The logits (b, m, v)."""
    say.title("Decoder")
    x, length = embedded(model, target, say), target.shape[1]
    block: Any = model.decoder[0]
    mask = padding_mask(target, padding=PAD) & causal_mask(length, length)
    say.step("Mask: what is not padding, and not later than the query", "section 3.2.3")
    say.tensor("mask", mask, "b n m")
    x = around(block.around_attention, x, lambda x: attend(block.attention, x, x, mask, say), say)
    say.step(
        "Cross-attention: queries of the decoder, keys and values of the encoder's output", "section 3.2.3"
    )
    crossing = padding_mask(source, padding=PAD)
    x = around(
        block.around_cross_attention,
        x,
        lambda x: attend(block.cross_attention, x, memory, crossing, say),
        say,
    )
    x = around(block.around_feed_forward, x, lambda x: feed(block.feed_forward, x, say), say)
    logits = x @ model.embedding.weight.T
    say.step("Logits: the output is the embedding once more", "section 3.4")
    say.tensor("x E^T", logits, "b m v")
    return logits


def attend(layer: MultiHeadAttention, x: Tensor, others: Tensor, mask: Tensor, say: Reader) -> Tensor:
    """Multi-head attention of x (b, n, d) to others (b, m, d), piece by piece."""
    q, k, v = (
        layer.split(project(tokens))
        for project, tokens in ((layer.to_queries, x), (layer.to_keys, others), (layer.to_values, others))
    )
    say.step(
        f"Q, K, V: three projections, in {H} heads of width {WIDTH}; here the first head", "section 3.2.2"
    )
    for name, part in (("Q", q), ("K", k), ("V", v)):
        say.tensor(name, part, "b h n d")
    say.step("Scores Q K^T / sqrt(d)", "equation 1")
    say.tensor("scores", q @ k.mT / math.sqrt(WIDTH), "b h n m")
    weights = attention_weights(q, k, mask=mask)
    say.step("Weights: softmax along the keys, 0 where the mask is closed; rows sum to one", "equation 1")
    say.tensor("weights", weights, "b h n m")
    read = layer.to_output(rearrange(weights @ v, "b h n d -> b n (h d)"))
    say.step("Weights times V, heads side by side, times W^O", "equation 1, section 3.2.2")
    say.tensor("read", read, "b n d")
    torch.testing.assert_close(layer(x, None if others is x else others, mask=mask), read)
    return read


def feed(layer: FeedForward, x: Tensor, say: Reader) -> Tensor:
    """The feed-forward network, piece by piece."""
    up, down = layer[0], layer[2]
    read: Tensor = down(up(x).clamp(min=0))
    say.step(f"Feed-forward: max(0, x W_1 + b_1) W_2 + b_2, by way of {HIDDEN} numbers", "equation 2")
    say.tensor("FFN(x)", read, "b n d")
    return read


def around(residual: Residual, x: Tensor, sublayer: Callable[[Tensor], Tensor], say: Reader) -> Tensor:
    """What goes around a sub-layer."""
    normed: Tensor = residual.norm(x + sublayer(x))
    say.step("Residual and norm: Norm(x + Sublayer(x))", "section 3.1")
    say.tensor("x", normed, "b n d")
    return normed


# --- Variants ---


@dataclass(frozen=True)
class Station:
    """One variant: what it is, its paper, and what shows it; `attention` as the axis of that name says."""

    what: str
    source: str
    show: Callable[[MultiHeadAttention, Tensor, Reader], None]
    attention: str = "explicit"
    variant: Variant = field(default_factory=Variant)


def heads_of(layer: MultiHeadAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of x, by head."""
    q, k, v = (layer.split(project(x)) for project in (layer.to_queries, layer.to_keys, layer.to_values))
    return q, k, v


def output(layer: MultiHeadAttention, read: Tensor) -> Tensor:
    """Heads side by side, times W^O."""
    projected: Tensor = layer.to_output(rearrange(read, "b h n d -> b n (h d)"))
    return projected


def same(layer: MultiHeadAttention, x: Tensor, read: Tensor) -> None:
    """Asserts that the layer reads what was computed piece by piece."""
    torch.testing.assert_close(layer(x, causal=True), output(layer, read))


def rope(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    """Rotary positions."""
    (q, k, v), places = heads_of(layer, x), torch.arange(N)
    turned = rotated(q), rotated(k)
    say.step("Each pair (x_2i, x_2i+1) turned by place times 10000^(-2i/d) radians", "section 3.2.2")
    angles = places[:, None] * 10_000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    say.tensor("angles", angles, "n i")
    say.tensor("Q turned", turned[0], "b h n d")
    say.step("Scores hang on the distance alone: 100 places further on they are the same", "section 3.2.2")
    scores = turned[0] @ turned[1].mT
    say.tensor("scores", scores, "b h n m")
    torch.testing.assert_close(scores, rotated(q, start=100) @ rotated(k, start=100).mT, atol=1e-4, rtol=0)
    same(layer, x, explicit(*turned, v, causal=True))


def alibi(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    """A line of the distance taken off the scores."""
    (q, k, v), places = heads_of(layer, x), torch.arange(N)
    say.step(f"Slopes 2^(-8i/h) of the {H} heads", "section 3")
    say.line(f"  {', '.join(f'{slope:.4f}' for slope in slopes(H).tolist())}")
    bias = distances(places, places, H, like=x)
    say.step("Added to the scores: minus slope times distance; here the first head's", "section 3")
    say.tensor("bias", bias, "h n m")
    same(layer, x, explicit(q, k, v, bias=bias, causal=True))


def shared_keys(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    """Grouped and multi-query attention."""
    q, k, v = heads_of(layer, x)
    say.step(f"{H} heads of queries share {k.shape[1]} of keys and values", "section 2.2")
    say.tensor("K", k, "b g m d")
    whole = (part.repeat_interleave(H, dim=1) for part in (k, v))
    same(layer, x, explicit(q, *whole, causal=True))


def window(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    """A sliding window with a sink."""
    (q, k, v), places, variant = heads_of(layer, x), torch.arange(N), layer.variant
    assert variant.window is not None
    near = windows.window_mask(places, places, variant.window, variant.sinks)
    say.step(
        f"Less than {variant.window} tokens away, or the first {variant.sinks}, and not later", "section 3.2"
    )
    say.tensor("mask", near & causal_mask(N, N), "n m")
    same(layer, x, explicit(q, k, v, mask=near, causal=True))


def qk_norm(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    """Queries and keys normed."""
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
    """Sums in the place of weights, token by token."""
    q, k, v = heads_of(layer, x)
    q, k = variants.features(q), variants.features(k)
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
    """One softmax less another one."""
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
    """A gate on what was read."""
    q, k, v = heads_of(layer, x)
    assert layer.to_gate is not None
    gate = layer.split(layer.to_gate(x)).sigmoid()
    say.step("What was read, element by element times sigmoid(x W)", "section 2.2")
    say.tensor("gate", gate, "b h n d")
    same(layer, x, explicit(q, k, v, causal=True) * gate)


def sigmoid(layer: MultiHeadAttention, x: Tensor, say: Reader) -> None:
    """Each weight by itself."""
    q, k, v = heads_of(layer, x)
    count = torch.arange(1, N + 1)[:, None]
    weights = (q @ k.mT / math.sqrt(WIDTH) - count.log()).sigmoid().tril()
    say.step("sigmoid(Q K^T / sqrt(d) - log n), n keys being open: rows need not sum to one", "section 2")
    say.tensor("weights", weights, "b h n m")
    say.tensor("their sums", weights.sum(dim=-1), "b h n")
    same(layer, x, weights @ v)


STATIONS = {
    "rope": Station("Rotary positions", "arXiv:2104.09864", rope, variant=Variant(positions="rope")),
    "alibi": Station(
        "Attention with linear biases", "arXiv:2108.12409", alibi, variant=Variant(positions="alibi")
    ),
    "kv_heads": Station(
        "Shared keys and values", "arXiv:2305.13245", shared_keys, variant=Variant(kv_heads=1)
    ),
    "window": Station("A window with a sink", "arXiv:2309.17453", window, variant=Variant(window=2, sinks=1)),
    "qk_norm": Station(
        "Normed queries and keys", "arXiv:2302.05442", qk_norm, variant=Variant(qk_norm="rms")
    ),
    "linear": Station("Linear attention", "arXiv:2006.16236", linear, "linear"),
    "differential": Station("Differential attention", "arXiv:2410.05258", differential, "differential"),
    "gated": Station("Gated attention", "arXiv:2505.06708", gated, "gated"),
    "sigmoid": Station("Sigmoid attention", "arXiv:2409.04431", sigmoid, "sigmoid"),
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
        told(layer, station, x, say)


def told(layer: MultiHeadAttention, station: Station, x: Tensor, say: Reader) -> None:
    """What the layer costs, and that its cache gives the same token by token."""
    sizes: dict[str, Any] = dict(
        heads=H, dim_head=WIDTH, attention=station.attention, variant=station.variant
    )
    cost, cache = multi_head(D, N, N, causal=True, **sizes), Cache()
    steps = [layer(token, causal=True, cache=cache) for token in x.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x, causal=True))
    assert cost.params == sum(weight.numel() for weight in layer.parameters())
    assert cache.bytes == cache_bytes(N, **sizes)
    say.step("Token by token with a cache it is the same")
    say.line(
        f"  {cost.params} parameters, {cost.macs} multiply-accumulates, {cache.bytes} bytes in the cache"
    )


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


def walk(names: Sequence[str] = (), say: Reader | None = None) -> None:
    """All of it, or the variants that are named. Raises UserError for an unknown one."""
    say = say or Reader()
    for name in names:
        known("variant", name, STATIONS)
    if not names:
        from_tokens_to_loss(say)
    for name in names or STATIONS:
        visit(name, say)
    if not names:
        around_attention(say)


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep.walkthrough", description=walk.__doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"some of {', '.join(STATIONS)}")
    parser.add_argument("--list", action="store_true", help="name them")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:<13} {one.what} ({one.source})" for name, one in STATIONS.items()))
        return
    walk(options.variants)


if __name__ == "__main__":
    sys.exit(exit_status(main))
