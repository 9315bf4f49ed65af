"""What attention has got since 2017: each variant against another formulation of it, with a cache and
without.
"""

import cmath
import copy
import functools
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from attnsweep.core.errors import UserError
from attnsweep.nn.attention import Cache, MultiHeadAttention, attention_maps
from attnsweep.nn.blocks import BlockDesign, EncoderBlock, FeedForward, norm_of
from attnsweep.nn.cost import FOLD_FROM, cache_bytes, multi_head
from attnsweep.nn.design import ATTENTIONS, Variant
from attnsweep.nn.kernels import causal_mask, explicit, fused, padding_mask
from attnsweep.nn.positions import alibi_bias, alibi_slopes, apply_rope, fold_alibi
from attnsweep.nn.variants import Differential, linear_attention, sigmoid
from attnsweep.nn.windows import window_mask
from attnsweep.space.trials import cost_of, make_trial
from attnsweep.tasks.counting import count
from attnsweep.tasks.images.models.vit_variants import varied
from attnsweep.tasks.registry import build, resolve
from attnsweep.tasks.sequences import training as sequences
from attnsweep.tasks.sequences.cost import by_length
from attnsweep.tasks.sequences.decoding import beam, greedy
from attnsweep.tasks.sequences.problems import BEGIN, PAD

B, N, M, D, H, W = 2, 9, 7, 24, 4, 8  # W is the width of a head
DESIGNS: dict[str, dict[str, Any]] = {
    "as published": {},
    "rope": dict(positions="rope"),
    "alibi": dict(positions="alibi"),
    "one head of keys": dict(kv_heads=1),
    "two heads of keys": dict(kv_heads=2, positions="rope"),
    "window": dict(window=3),
    "window of one": dict(window=1),
    "window with sinks": dict(window=3, sinks=2, positions="rope"),
    "window, alibi, shared keys": dict(window=4, sinks=1, positions="alibi", kv_heads=2),
    "normed queries and keys": dict(qk_norm="rms", positions="rope"),
    "explicit": dict(attention="explicit", positions="alibi", kv_heads=2, window=4),
    "linear": dict(attention="linear"),
    "linear, rope, shared keys": dict(attention="linear", positions="rope", kv_heads=2, qk_norm="rms"),
    "differential": dict(attention="differential", positions="rope"),
    "differential, alibi, shared keys": dict(
        attention="differential", positions="alibi", kv_heads=2, window=4, sinks=1
    ),
    "gated": dict(attention="gated", kv_heads=2),
    "sigmoid": dict(attention="sigmoid", positions="alibi", kv_heads=2),
    "sigmoid in a window": dict(attention="sigmoid", window=3, sinks=1),
}
designs = pytest.mark.parametrize("design", DESIGNS)
close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(design: str = "as published", **words: Any) -> MultiHeadAttention:
    """An attention of a design, moved off where its norms and biases begin."""
    torch.manual_seed(0)
    options = {**DESIGNS[design], **words}
    attention, block = options.pop("attention", "fused"), options.pop("block", 1)
    layer = MultiHeadAttention(
        D, heads=H, dim_head=W, attention=attention, variant=Variant(**options), block=block
    )
    for parameter in layer.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.5)
    return layer.double()


def qkv(queries: int = N, keys: int = N, *, width: int = W) -> tuple[Tensor, Tensor, Tensor]:
    return noise(B, H, queries, width), noise(B, H, keys, width, seed=1), noise(B, H, keys, width, seed=2)


# --- Positions ---


def test_rope_turns_pairs_as_complex_numbers_turn() -> None:
    x = noise(B, H, N, W)
    turned = apply_rope(x, start=5)
    for b, h, n, i in itertools.product(range(B), range(2), (0, 3, N - 1), range(W // 2)):
        pair = complex(x[b, h, n, 2 * i], x[b, h, n, 2 * i + 1])
        other = pair * cmath.exp(1j * (5 + n) * 10_000 ** (-2 * i / W))
        assert complex(turned[b, h, n, 2 * i], turned[b, h, n, 2 * i + 1]) == pytest.approx(other)


def test_scores_under_rope_hang_on_the_distance_alone() -> None:
    q, k, _ = qkv()
    near, far = (apply_rope(q, start=start) @ apply_rope(k, start=start).mT for start in (0, 1000))
    close(near, far, atol=1e-6, rtol=0)
    assert not torch.allclose(near, q @ k.mT, atol=0.1)


def authors_slopes(heads: int) -> list[float]:
    """As the authors of ALiBi compute them."""

    def of_power(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(heads).is_integer():
        return of_power(heads)
    below = 2 ** math.floor(math.log2(heads))
    return of_power(below) + authors_slopes(2 * below)[0::2][: heads - below]


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 6, 7, 8, 12, 16, 20])
def test_the_slopes_of_alibi_are_its_authors(heads: int) -> None:
    assert alibi_slopes(heads).tolist() == pytest.approx(authors_slopes(heads))


def test_alibi_takes_a_line_of_the_distance_off_the_scores() -> None:
    q, k, v = qkv()
    bias = alibi_bias(torch.arange(N), torch.arange(N), H, like=noise(1))
    for kernel in (explicit, fused):
        read = kernel(q, k, v, bias=bias, causal=True)
        for h, n in itertools.product(range(H), range(N)):
            scores = [
                float(q[0, h, n] @ k[0, h, m]) / math.sqrt(W) - 2 ** (-8 * (h + 1) / H) * (n - m)
                for m in range(n + 1)
            ]
            weights = torch.tensor(scores, dtype=torch.float64).softmax(dim=0)
            close(read[0, h, n], weights @ v[0, h, : n + 1])


# --- Which keys, and which weights ---


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("attention", ["explicit", "fused", "linear", "differential", "gated", "sigmoid"])
def test_shared_heads_of_keys_are_heads_of_equal_weights(attention: str, kv_heads: int) -> None:
    shared, whole = made(attention=attention, kv_heads=kv_heads), made(attention=attention)
    state = shared.state_dict()
    for name in ("to_keys.weight", "to_keys.bias", "to_values.weight", "to_values.bias"):
        heads = rearrange(state[name], "(g d) ... -> g d ...", d=W)
        state[name] = rearrange(
            heads.repeat_interleave(H // kv_heads, dim=0), "h d ... -> (h d) ..."
        ).contiguous()
    whole.load_state_dict(state)
    x = noise(B, N, D)
    close(shared(x, causal=True), whole(x, causal=True))
    close(shared(x, noise(B, M, D)), whole(x, noise(B, M, D)))


@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (3, 0), (3, 2), (1, 1)])
def test_a_window_is_open_to_what_is_near_and_to_the_sinks(window: int, sinks: int) -> None:
    mask = window_mask(torch.arange(N), torch.arange(N), window, sinks)
    assert mask.tolist() == [[abs(n - m) < window or m < sinks for m in range(N)] for n in range(N)]
    x, layer = noise(B, N, D), made(window=window, sinks=sinks)
    plain = made()
    close(layer(x), plain(x, mask=mask))
    close(layer(x, causal=True), plain(x, mask=mask & causal_mask(N, N)))


LONG = 400  # tokens, of which windows are read in blocks


@pytest.mark.parametrize(
    ("design", "causal"),
    [
        ("window", True),
        ("window, alibi, shared keys", False),
        ("differential, alibi, shared keys", True),
        ("sigmoid in a window", False),
    ],
)
def test_in_blocks_a_window_reads_what_it_reads_at_once(
    design: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x, cache = made(design), noise(B, LONG, D).requires_grad_(), Cache()
    tokens = torch.ones(B, LONG, dtype=torch.long)
    tokens[0, 300:] = tokens[1, :130] = 0  # a block and more sees nothing
    masks = (padding_mask(tokens), noise(LONG, LONG, seed=3) > 0)
    found = [layer(x, mask=mask, causal=causal) for mask in masks]
    begun = layer(x[:, : LONG - 2], causal=True, cache=cache)
    steps = [begun, *(layer(token, causal=True, cache=cache) for token in x[:, LONG - 2 :].split(1, dim=1))]
    monkeypatch.setattr("attnsweep.nn.attention.blockwise_pairs", lambda *_, **__: None)
    for mask, read in zip(masks, found, strict=True):
        close(read, layer(x, mask=mask, causal=causal))
    gradients = (
        torch.autograd.grad(read.square().sum(), x)[0]
        for read in (found[0], layer(x, mask=masks[0], causal=causal))
    )
    close(*gradients, rtol=1e-6, atol=1e-6)
    close(torch.cat(steps, dim=1), layer(x, causal=True))


@pytest.mark.parametrize(("attention", "heads"), [("fused", 1), ("gated", 4)])
def test_a_linear_bias_that_is_folded_in_is_the_one_that_is_added(attention: str, heads: int) -> None:
    n = FOLD_FROM + 2
    layer, x, cache = (
        made(attention=attention, positions="alibi", kv_heads=heads),
        noise(1, n, D).requires_grad_(),
        Cache(),
    )
    read, begun = layer(x, causal=True), layer(x[:, : n - 2], causal=True, cache=cache)
    steps = [begun, *(layer(token, causal=True, cache=cache) for token in x[:, n - 2 :].split(1, dim=1))]
    added = layer(x, causal=True, mask=torch.ones(n, n, dtype=torch.bool))
    close(read, added)
    close(torch.cat(steps, dim=1), added)
    close(*(torch.autograd.grad(one.square().sum(), x)[0] for one in (read, added)), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_linear_bias_loses_no_digits_as_it_is_folded_in(dtype: torch.dtype) -> None:
    """Its heads' slopes go up to 1/2, so that the line is 512 high."""
    q, k, v = (noise(1, 8, 1024, W, seed=seed).to(dtype) for seed in range(3))
    bias = alibi_bias(torch.arange(1024), torch.arange(1024), 8, like=noise(1))
    exact = explicit(q.double(), k.double(), v.double(), bias=bias, causal=True)
    folded = fused(*fold_alibi(q, k, v), causal=True, scale=W**-0.5)[..., :W]
    errors = [(read - exact).abs().max() for read in (folded, fused(q, k, v, bias=bias, causal=True))]
    assert errors[0] < 2 * errors[1]


def test_sigmoid_weighs_each_key_by_itself() -> None:
    q, k, v = qkv()
    read = sigmoid(q, k, v, causal=True)
    for h, n in itertools.product(range(H), range(N)):
        expected = torch.zeros(W, dtype=torch.float64)
        for m in range(n + 1):
            score = float(q[1, h, n] @ k[1, h, m]) / math.sqrt(W) - math.log(n + 1)
            expected += v[1, h, m] / (1 + math.exp(-score))
        close(read[1, h, n], expected)


def test_differential_attention_is_one_softmax_less_the_other() -> None:
    torch.manual_seed(0)
    layer, (q, k, v) = Differential(W, block=3).double(), qkv()
    nn.init.normal_(layer.norm.weight)
    q1, k1, q2, k2 = layer.lambdas.detach()
    initial = 0.8 - 0.6 * math.exp(-0.3 * 2)
    factor = math.exp(q1 @ k1) - math.exp(q2 @ k2) + initial
    closed = ~causal_mask(N, N)
    first, second = (
        (q[..., part] @ k[..., part].mT / math.sqrt(W / 2)).masked_fill(closed, -math.inf).softmax(-1)
        for part in (slice(0, W // 2), slice(W // 2, W))
    )
    read = (first - factor * second) @ v
    read = read / (read.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight
    close(layer(q, k, v, causal=True), read * (1 - initial))
    close(layer.weights(q, k, causal=True).sum(-1), torch.full((B, H, N), 1 - factor, dtype=torch.float64))


@pytest.mark.parametrize("positions", ["rope", "alibi"])
@pytest.mark.parametrize("queries", [1, N])
def test_the_maps_of_differential_attention_are_two_attentions_with_positions(
    positions: str, queries: int
) -> None:
    """Each half is queries and keys of its own: it is turned by itself, from the highest frequency on."""
    layer, x = made(attention="differential", positions=positions, kv_heads=2), noise(B, N, D)
    q, k = (rearrange(to(x), "b n (h d) -> b h n d", d=W) for to in (layer.to_queries, layer.to_keys))
    maps = []
    for part in (slice(0, W // 2), slice(W // 2, W)):
        q1, k1 = q[..., part], k[..., part].repeat_interleave(2, dim=1)
        scores = (apply_rope(q1) @ apply_rope(k1).mT if positions == "rope" else q1 @ k1.mT) / math.sqrt(
            W / 2
        )
        if positions == "alibi":
            scores = scores + alibi_bias(torch.arange(N), torch.arange(N), H, like=x)
        maps.append(scores.masked_fill(~causal_mask(N, N), -math.inf).softmax(-1))
    kernel = layer.kernel
    assert isinstance(kernel, Differential)
    v = rearrange(layer.to_values(x), "b n (g d) -> b g n d", d=W).repeat_interleave(2, dim=1)
    read = kernel.norm((maps[0] - kernel.factor * maps[1]) @ v) * (1 - kernel.initial)
    cache = Cache()
    steps = [layer(part, causal=True, cache=cache) for part in x.split(queries, dim=1)]
    close(torch.cat(steps, dim=1), layer.to_output(rearrange(read, "b h n d -> b n (h d)")))


def test_lambda_begins_lower_in_the_first_blocks() -> None:
    begins = [Differential(W, block=block).initial for block in (1, 2, 12)]
    assert begins == pytest.approx([0.2, 0.8 - 0.6 * math.exp(-0.3), 0.8 - 0.6 * math.exp(-3.3)])


def test_a_gate_scales_what_was_read_by_the_sigmoid_of_the_query() -> None:
    gated, plain, x = made("gated", kv_heads=None), made(), noise(B, N, D)
    plain.load_state_dict({name: value for name, value in gated.state_dict().items() if "gate" not in name})
    plain.to_output = gated.to_output = nn.Identity()  # type: ignore[assignment]
    assert gated.to_gate is not None
    gate = 1 / (1 + (-(x @ gated.to_gate.weight.T + gated.to_gate.bias)).exp())
    close(gated(x), plain(x) * gate)


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("length", [1, 5, 64, 65, 150])
def test_linear_attention_is_a_recurrence_over_two_sums(length: int, turns: bool) -> None:
    """Section 3.4 of its paper, token by token; with rope RoFormer's form of it."""
    q, k, v = (part[:1, :2] for part in qkv(length, length))
    q, k = F.elu(q) + 1, F.elu(k) + 1
    turned_q, turned_k = (apply_rope(q), apply_rope(k)) if turns else (q, k)
    read, sums = linear_attention((q, turned_q), (k, turned_k), v, causal=True)
    s, z = torch.zeros(2, W, W, dtype=torch.float64), torch.zeros(2, W, dtype=torch.float64)
    for i in range(length):
        s = s + torch.einsum("hd,he->hde", turned_k[0, :, i], v[0, :, i])
        z = z + k[0, :, i]
        below = (q[0, :, i] * z).sum(-1, keepdim=True)
        close(read[0, :, i], torch.einsum("hd,hde->he", turned_q[0, :, i], s) / below)
    close(sums.products[0], s)
    close(sums.features[0], z)


def test_queries_and_keys_are_normed_by_their_root_mean_square() -> None:
    normed, x = made("normed queries and keys", positions=None), noise(B, N, D)
    q, k, v = (
        rearrange(layer(x), "b n (h d) -> b h n d", d=W)
        for layer in (normed.to_queries, normed.to_keys, normed.to_values)
    )
    q, k = (
        part / (part.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
        for part, norm in ((q, normed.norm_queries), (k, normed.norm_keys))
    )
    read = rearrange(explicit(q, k, v), "b h n d -> b n (h d)")
    close(normed(x), normed.to_output(read))


# --- Around attention ---


def test_feed_forward_layers_are_their_papers() -> None:
    torch.manual_seed(0)
    x = noise(B, N, D)
    gelu, swiglu = (FeedForward(D, 10, kind=kind).double() for kind in ("gelu", "swiglu"))
    up = x @ gelu[0].weight.T + gelu[0].bias
    close(gelu(x), (up * 0.5 * (1 + torch.erf(up / math.sqrt(2)))) @ gelu[2].weight.T + gelu[2].bias)
    gate, value = x @ swiglu[0].gate.weight.T, x @ swiglu[0].up.weight.T  # type: ignore[union-attr]
    close(swiglu(x), (gate / (1 + (-gate).exp()) * value) @ swiglu[1].weight.T)


def test_the_rms_norm_leaves_the_mean_and_divides_by_the_root_mean_square() -> None:
    norm, x = norm_of(D, "rms").double(), noise(B, N, D) + 3
    close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    block = EncoderBlock(D, heads=H, mlp_dim=10, norm="rms").double()
    x = x + block.attention(norm(x))
    close(block(noise(B, N, D) + 3), x + block.feed_forward(norm(x)))


# --- Every design ---


@designs
def test_what_is_read_is_what_the_weights_say(design: str) -> None:
    layer, x, memory = made(design), noise(B, N, D), noise(B, M, D, seed=1)
    gate, layer.to_gate = layer.to_gate, None
    for keys, causal in ((None, True), (None, False), (memory, False)):
        v = rearrange(layer.to_values(x if keys is None else keys), "b m (g d) -> b g m d", d=W)
        weights = layer.weights(x, keys, causal=causal)
        read = weights @ v.repeat_interleave(H // v.shape[1], dim=1)
        if isinstance(layer.kernel, Differential):
            read = layer.kernel.norm(read) * (1 - layer.kernel.initial)
        close(layer(x, keys, causal=causal), layer.to_output(rearrange(read, "b h n d -> b n (h d)")))
    layer.to_gate = gate
    with attention_maps(layer) as maps:
        layer(x, causal=True)
    close(maps[""], layer.weights(x, causal=True))


@designs
def test_later_tokens_have_no_influence(design: str) -> None:
    layer, x = made(design), noise(B, N, D)
    other = torch.cat([x[:, :4], noise(B, N - 4, D, seed=7)], dim=1)
    close(layer(x, causal=True)[:, :4], layer(other, causal=True)[:, :4])


@pytest.mark.slow
@designs
@pytest.mark.parametrize("parts", [[1] * N, [2, 1, 3, 3], [5, 4], [N]], ids=str)
def test_cached_attention_reads_what_it_reads_at_once(design: str, parts: list[int]) -> None:
    layer, x, cache = made(design), noise(B, N, D), Cache()
    steps = [layer(part, causal=True, cache=cache) for part in x.split(parts, dim=1)]
    close(torch.cat(steps, dim=1), layer(x, causal=True))
    assert cache.tokens == N
    memory, crossed = noise(B, M, D, seed=1), Cache()
    steps = [layer(part, memory, cache=crossed) for part in x.split(parts, dim=1)]
    close(torch.cat(steps, dim=1), layer(x, memory))


@designs
def test_padding_is_read_by_no_query_with_a_cache_or_without(design: str) -> None:
    layer, x, cache = made(design), noise(B, N, D), Cache()
    tokens = torch.ones(B, N, dtype=torch.long)
    tokens[0, 6:] = tokens[1, 2] = 0
    whole = layer(x, mask=padding_mask(tokens), causal=True)
    steps = [
        layer(part, mask=padding_mask(tokens[:, : end + 1]), causal=True, cache=cache)
        for end, part in enumerate(x.split(1, dim=1))
    ]
    close(torch.cat(steps, dim=1), whole)
    other = torch.where(tokens[..., None] == 0, noise(B, N, D, seed=9), x)
    seen = tokens.bool()
    close(layer(other, mask=padding_mask(tokens), causal=True)[seen], whole[seen])


@designs
def test_without_keys_there_is_nothing_to_read_and_gradients_are_finite(design: str) -> None:
    layer, x = made(design), noise(B, N, D).requires_grad_()
    mask = torch.zeros(B, 1, N, dtype=torch.bool)
    mask[1, 0, 3] = True
    read = layer(x, mask=mask, causal=True)
    close(read[0], layer.to_output.bias.expand(N, D))
    read.square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@designs
def test_a_cache_holds_the_bytes_of_the_closed_form(design: str) -> None:
    layer, cache = made(design).float(), Cache()
    sizes = dict(heads=H, dim_head=W, attention=DESIGNS[design].get("attention", "fused"))
    x, variant = noise(1, 20, D).float(), layer.variant
    for tokens in range(1, 21):
        layer(x[:, tokens - 1 : tokens], causal=True, cache=cache)
        assert cache.bytes == cache_bytes(tokens, variant=variant, **sizes)
    crossed = Cache()
    layer(x[:, :1], x, cache=crossed)
    assert crossed.bytes == cache_bytes(20, variant=variant, crosses=True, **sizes)


# --- Whole models ---

POINT = dict(model="transformer", depth=2, heads=4, dim=16, mlp_dim=24, length=6, dropout=0.0)
POINTS: dict[str, dict[str, Any]] = {
    **{name: design for name, design in DESIGNS.items() if name not in ("as published", "explicit")},
    "no positions": dict(positions="none"),
    "rms norms": dict(norm="rms", mlp="swiglu"),
    "gelu": dict(norm="pre", mlp="gelu"),
    "a deep encoder": dict(encoder_depth=3, decoder_depth=1, attention="differential"),
    "a deep decoder": dict(decoder_depth=3, positions="learned"),
    "heads of their own width": dict(dim_head=6, kv_heads=2, attention="gated", qk_norm="rms"),
}
points = pytest.mark.parametrize("point", POINTS)


@pytest.mark.slow
@points
def test_the_closed_form_is_what_is_counted(point: str) -> None:
    config = resolve(POINT | POINTS[point])
    assert count(build(config), *sequences.example(config, 1)) == cost_of(config)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_multiply_accumulates_at_other_lengths_are_those_of_the_model_there(attention: str) -> None:
    config = resolve(POINT | dict(attention=attention, length=40, positions="rope"))
    columns = by_length(config)
    model = build(config | {"length": 80})
    for name, times in (("macs_2x", 2), ("macs_4x", 4)):
        longer = {**config, "length": times * 40}
        assert count(model, *sequences.example(longer, 1)).macs == columns[name]


@pytest.mark.parametrize("attention", ["fused", "differential"])
def test_multiply_accumulates_under_a_window_go_with_the_length(attention: str) -> None:
    layer, variant = made(attention=attention, window=5, sinks=1), Variant(window=5, sinks=1)
    sizes: dict[str, Any] = dict(heads=H, dim_head=W, attention=attention, variant=variant)
    short, long = (multi_head(D, n, n, **sizes) for n in (512, 2048))
    assert count(layer, noise(1, 512, D)) == short
    assert long.macs == 4 * short.macs


@pytest.mark.parametrize(("mask", "heads"), [(None, H), (torch.ones(1, 1, FOLD_FROM).bool(), 1)])
def test_columns_of_a_folded_bias_are_counted_where_there_are_some(mask: Tensor | None, heads: int) -> None:
    layer, x = made(positions="alibi", kv_heads=heads), noise(1, FOLD_FROM, D)
    closed = multi_head(
        D, FOLD_FROM, FOLD_FROM, heads=H, dim_head=W, variant=layer.variant, causal=True,
        padded=mask is not None,
    )  # fmt: skip

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, causal=True, mask=mask)

    assert count(Causal(), x) == closed


@pytest.mark.slow
@pytest.mark.parametrize("point", ["as published", *POINTS])
@torch.no_grad()
def test_the_columns_of_the_cache_are_what_decoding_holds(point: str, tmp_path: Any) -> None:
    config = resolve(POINT | POINTS.get(point, {}))
    row = make_trial(config, tmp_path).row()
    model: Any = build(config).eval()
    questions, target = sequences.example(config, 1)
    memory, caches, mask = model.encode(questions), model.caches(), padding_mask(questions)
    held = []
    for end in range(1, target.shape[1] + 1):
        model.decode(target[:, :end], memory, memory_mask=mask, caches=caches)
        held.append(sum(cache.bytes for pair in caches for cache in pair))
    assert held[-1] == row["cache_bytes"]
    if config["window"] != 1:
        assert held[1] - held[0] == row["cache_bytes_per_token"]


@pytest.mark.slow
@points
@torch.no_grad()
def test_decoding_with_a_cache_is_decoding_without(point: str) -> None:
    torch.manual_seed(1)
    model: Any = build(resolve(POINT | POINTS[point])).double().eval()
    source = torch.randint(3, 13, (6, 6), generator=torch.Generator().manual_seed(1))
    source[1, 4:] = source[2, 2:] = PAD
    for decode in (greedy, functools.partial(beam, width=3)):
        one, other = (decode(model, source, longest=9, cached=cached) for cached in (True, False))
        assert torch.equal(one.tokens, other.tokens)
        close(one.log_p, other.log_p, rtol=1e-6, atol=1e-6)
    target = torch.randint(3, 13, (6, 9), generator=torch.Generator().manual_seed(2))
    target[:, 0], target[3, 5:] = BEGIN, PAD
    memory, mask, caches = model.encode(source), padding_mask(source), model.caches()
    steps = [model.decode(target[:, :end], memory, memory_mask=mask, caches=caches) for end in (2, 3, 7, 9)]
    close(torch.cat(steps, dim=1), model(source, target))


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@points
def test_in_bf16_every_variant_computes_nearly_the_same(point: str) -> None:
    torch.manual_seed(0)
    config = resolve(POINT | POINTS[point])
    model, inputs = build(config).eval(), sequences.example(config, 3)
    exact = model(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(*inputs)
        logits.float().square().mean().backward()
    assert 1e-4 < float((logits - exact).detach().std() / exact.detach().std()) < 0.1
    sequences.answer(model.bfloat16(), inputs, config)()  # as it is measured


@pytest.mark.slow
@points
def test_every_variant_learns(point: str) -> None:
    torch.manual_seed(0)
    config = resolve(POINT | POINTS[point] | dict(attention_dropout=None))
    model: Any = build(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = next(
        sequences.batches(
            sequences.load_for(config, "", "cpu"), {"batch_size": 32}, epoch=0, order=torch.Generator()
        )
    )
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = sequences.loss(model, batch, config)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert losses[-1] < losses[0] - 0.1


def test_dropout_on_weights_is_an_axis() -> None:
    config = resolve(POINT | dict(attention_dropout=0.5))
    model: Any = build(config)
    questions = sequences.example(config, 2)
    assert not torch.equal(model(*questions), model(*questions))
    assert torch.equal(model.eval()(*questions), build_like(model, attention_dropout=0.0)(*questions))


def build_like(model: nn.Module, **point: Any) -> nn.Module:
    other = build(resolve(POINT | point)).eval()
    other.load_state_dict(model.state_dict())
    return other


# --- What is refused, and what is the same ---


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        (
            dict(positions="rope", dim_head=7),
            "dim_head=7 is no multiple of 2, as positions='rope' turns its pairs; use 6, 8",
        ),
        (
            dict(attention="differential", dim_head=5),
            "dim_head=5 is no multiple of 2, as attention='differential' halves it; use 4, 6",
        ),
        (
            dict(attention="differential", positions="rope", dim_head=2),
            "4, as attention='differential' halves it and positions='rope' turns its pairs; use 4",
        ),
        (dict(kv_heads=3), "kv_heads=3 does not divide heads=4; use 1, 2, 4"),
        (dict(kv_heads=8), "kv_heads=8 does not divide heads=4; use 1, 2, 4"),
        (dict(window=7), "window=7 closes nothing, as length=6 has 7 tokens; use 1 to 6, or leave it out"),
        (dict(window=2, sinks=7), "sinks=7 closes nothing, as length=6 has 7 tokens; use sinks of 6 or less"),
        (dict(sinks=2), "sinks=2 means something beside a window only; add window=, or leave it out"),
        (dict(attention="linear", positions="alibi"), "positions= one of sinusoidal, learned, rope, none"),
        (dict(attention="linear", window=3), "window=3 needs scores for each pair"),
        (dict(attention="linear", attention_dropout=0.1), "attention_dropout=0.1 is one on weights"),
        (dict(attention="flash"), "attention='flash' is unknown; use one of explicit, fused, linear"),
        (dict(positions="ropes"), "did you mean 'rope'?"),
        (dict(window=0), "window=0 is out of range; use a whole number from 1"),
        (dict(mlp="glu"), "mlp='glu' is unknown, did you mean 'gelu'?"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_together_is_refused_with_what_does(point: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(POINT | point)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_mask_over_queries_is_refused_by_linear_attention() -> None:
    with pytest.raises(ValueError, match=r"the mask is \(9, 9\), but linear attention sums over keys"):
        made("linear")(noise(B, N, D), mask=causal_mask(N, N))


@pytest.mark.parametrize("mask", [torch.ones(B, 1, N + 2), torch.ones(B + 1, 1, N), torch.ones(B, 1, 3)])
def test_a_mask_of_other_keys_or_numbers_is_refused_by_linear_attention(mask: Tensor) -> None:
    layer, x = made("linear"), noise(B, N, D)
    with pytest.raises(
        ValueError, match=r"the mask is .* but attention has b=2, h=4, n=9, m=9; make the mask"
    ):
        layer(x, mask=mask.bool())
    with pytest.raises(TypeError, match=r"the mask is torch\.float32; make it torch\.bool"):
        layer(x, mask=torch.ones(B, 1, N))
    seen = torch.arange(N).expand(B, N) < 5
    close(layer(x, mask=seen[:, None, None]), layer(x, mask=seen[:, None]))


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["rope", "alibi"])
def test_what_a_trace_computes_is_not_remembered(positions: str) -> None:
    layer, x = made(positions=positions), noise(1, 1500, D)  # so long as no other test's
    exported = torch.export.export(layer, (x,))
    close(layer(x), exported.module()(x))


def test_saying_what_is_so_anyway_is_the_same_trial(tmp_path: Any) -> None:
    said = dict(kv_heads=4, encoder_depth=2, decoder_depth=2, sinks=0, qk_norm="none", mlp="relu",
                attention_dropout=0.0)  # fmt: skip
    one, other = (make_trial(resolve(POINT | point), tmp_path) for point in ({}, said))
    assert (one.trial_id, one.arch_id) == (other.trial_id, other.arch_id)


VITS: dict[str, dict[str, Any]] = {
    **{kind: dict(attention=kind) for kind in ("linear", "differential", "gated", "sigmoid")},
    "shared keys": dict(kv_heads=1, qk_norm="rms"),
    "rms": dict(norm="rms", mlp="swiglu", positions="none"),
    "relu": dict(mlp="relu", positions="sinusoidal", attention="fused"),
}
VIT = dict(model="vit", dataset="digits", depth=2, heads=4, dim=16, dim_head=8, mlp_dim=24)


@pytest.mark.parametrize("point", VITS)
def test_a_vit_takes_what_means_something_to_it(point: str) -> None:
    torch.manual_seed(0)
    config = resolve(VIT | VITS[point])
    model = build(config)
    images = torch.randn(3, 1, 8, 8)
    assert count(model, images[:1]) == cost_of(config)
    model(images).square().sum().backward()
    lacking = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not lacking


@torch.no_grad()
def test_a_vit_of_our_pieces_is_vit_pytorchs_where_they_are_equal() -> None:
    torch.manual_seed(0)
    plain, config = build(resolve(VIT)).eval(), resolve(VIT)
    ours: Any = varied(copy.deepcopy(plain), config).eval()
    for (mine, more), (theirs, further) in zip(
        ours.transformer.layers, plain.transformer.layers, strict=True
    ):
        layer = mine.sublayer
        for to, weight in zip(
            (layer.to_queries, layer.to_keys, layer.to_values), theirs.to_qkv.weight.chunk(3), strict=True
        ):
            to.weight.copy_(weight)
        layer.to_output.load_state_dict(theirs.to_out[0].state_dict())
        mine.norm.load_state_dict(theirs.norm.state_dict())
        more.norm.load_state_dict(further.net[0].state_dict())
        more.sublayer[0].load_state_dict(further.net[1].state_dict())
        more.sublayer[2].load_state_dict(further.net[4].state_dict())
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(ours(images), plain(images), rtol=1e-5, atol=1e-5)


def test_saying_what_a_vit_is_anyway_is_the_same_trial(tmp_path: Any) -> None:
    said = dict(kv_heads=4, norm="pre", positions="learned", qk_norm="none", mlp="gelu")
    one, other = (make_trial(resolve(VIT | point), tmp_path) for point in ({}, said))
    assert (one.trial_id, one.arch_id) == (other.trial_id, other.arch_id)


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        (dict(norm="post"), "norm='post' is for transformer and decoder; a vit norms before: use pre or rms"),
        (
            dict(positions="rope"),
            "positions='rope' is of tokens in a row, and a vit's patches lie in a plane",
        ),
        (dict(kv_heads=3), "kv_heads=3 does not divide heads=4; use 1, 2, 4"),
        (dict(attention="differential", dim_head=5), "dim_head=5 is no multiple of 2"),
    ],
    ids=str,
)
def test_what_a_vit_cannot_have_is_refused(point: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(VIT | point)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("model", ["hybrid", "planning"])
def test_models_without_variants_refuse_their_words(model: str) -> None:
    with pytest.raises(UserError, match="attention='linear' is unknown; use one of"):
        resolve({"model": model, "attention": "linear"})


def test_a_block_takes_every_design() -> None:
    for design in DESIGNS.values():
        options = dict(design)
        attention = options.pop("attention", "fused")
        block = EncoderBlock(
            D, heads=H, dim_head=W, mlp_dim=10, attention=attention, design=BlockDesign(Variant(**options))
        )
        x = repeat(torch.randn(N, D), "n d -> b n d", b=B)
        assert block(x, causal=True).shape == (B, N, D)
