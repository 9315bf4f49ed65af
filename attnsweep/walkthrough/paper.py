"""The transformer of the paper, from tokens to loss, piece by piece."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from attnsweep.nn.attention import MultiHeadAttention
from attnsweep.nn.blocks import FeedForward, Residual
from attnsweep.nn.kernels import attention_weights, causal_mask, padding_mask
from attnsweep.tasks.sequences.problems import BEGIN, END, PAD
from attnsweep.tasks.sequences.transformer import Transformer
from attnsweep.walkthrough.reader import Reader

D, H, HIDDEN, VOCABULARY = 8, 2, 16, 13
WIDTH = D // H
QUESTION, ANSWER = [6, 4, 7, PAD], [7, 4, 6, END]  # the digits 3 1 4, and the same from the last to the first


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


def heads_of(
    layer: MultiHeadAttention, x: Tensor, others: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of x, keys and values of the others, or of x itself, by head."""
    others = x if others is None else others
    pairs = ((layer.to_queries, x), (layer.to_keys, others), (layer.to_values, others))
    q, k, v = (layer.split(project(tokens)) for project, tokens in pairs)
    return q, k, v


def attend(layer: MultiHeadAttention, x: Tensor, others: Tensor, mask: Tensor, say: Reader) -> Tensor:
    """Multi-head attention of x (b, n, d) to others (b, m, d), piece by piece."""
    q, k, v = heads_of(layer, x, others)
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
