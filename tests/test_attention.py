"""The pieces of the transformer against torch.nn's layers with the same weights, and by their properties."""

import copy
import itertools
import math
import re
from collections.abc import Iterable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from attnsweep.core.errors import UserError
from attnsweep.nn.attention import Cache, MultiHeadAttention, attention_maps, linear
from attnsweep.nn.blocks import DecoderBlock, EncoderBlock
from attnsweep.nn.kernels import KERNELS, attention_weights, causal_mask, padding_mask
from attnsweep.nn.positions import PositionalEncoding, sinusoids

B, N, M, D, H, HIDDEN = 3, 5, 7, 16, 4, 24
Pairs = list[tuple[nn.Module, nn.Module]]  # of ours and torch's
CLOSE = {torch.float32: 1e-4, torch.float64: 1e-10}
kernels = pytest.mark.parametrize("attention", KERNELS)
norms = pytest.mark.parametrize("norm", ["post", "pre"])
precisions = pytest.mark.parametrize("dtype", CLOSE, ids=str)
masks = pytest.mark.parametrize("kind", ["none", "padding", "causal", "both", "arbitrary", "per head"])


def mask_of(kind: str, queries: int, keys: int) -> Tensor | None:
    """A mask of a kind that lets every query attend to something."""
    tokens = torch.ones(B, keys, dtype=torch.long)
    tokens[1, keys - 2 :] = 0
    padding, causal = padding_mask(tokens), causal_mask(queries, max(queries, keys))[:, :keys]
    noise = torch.rand(B, H, queries, keys, generator=torch.Generator().manual_seed(1)) < 0.5
    noise[..., 0] = True
    every = {"padding": padding, "causal": causal, "both": padding & causal, "arbitrary": noise[:, 0]}
    return {"none": None, "per head": noise, **every}[kind]


def theirs(mask: Tensor | None, queries: int, keys: int) -> Tensor | None:
    """The mask as torch.nn takes it: (b * h, n, m), True where a query may not attend."""
    if mask is None:
        return None
    whole = mask if mask.ndim == 4 else mask.expand(B, queries, keys)[:, None]
    return ~whole.expand(B, H, queries, keys).reshape(B * H, queries, keys)


def noise(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    drawn = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return drawn.requires_grad_()


def layers(attention: MultiHeadAttention) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    return attention.to_queries, attention.to_keys, attention.to_values


def copy_attention(ours: MultiHeadAttention, torchs: nn.MultiheadAttention) -> None:
    """Gives torch's layer the weights of ours."""
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers(ours)]))
        torchs.out_proj.load_state_dict(ours.to_output.state_dict())
        if torchs.in_proj_bias is not None:
            torchs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers(ours)]))


def gradients(ours: MultiHeadAttention, torchs: nn.MultiheadAttention) -> Iterator[tuple[Tensor | None, ...]]:
    """The gradients of every parameter of the two, in pairs."""
    yield torch.cat([layer.weight.grad for layer in layers(ours)]), torchs.in_proj_weight.grad
    yield ours.to_output.weight.grad, torchs.out_proj.weight.grad
    if torchs.in_proj_bias is not None:
        yield torch.cat([layer.bias.grad for layer in layers(ours)]), torchs.in_proj_bias.grad
        yield ours.to_output.bias.grad, torchs.out_proj.bias.grad


def spread_biases(module: nn.Module) -> nn.Module:
    """The module with biases and norms that differ from where they begin, so that a wrong one is noticed."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.5)
    return module


def assert_pairs_close(pairs: Iterable[tuple[Tensor | None, ...]], dtype: torch.dtype) -> None:
    """As close as the precision lets them be, by the largest value of each pair where that is above 1."""
    for one, other in pairs:
        assert one is not None and other is not None
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=CLOSE[dtype])


# --- Against torch.nn ---


@pytest.mark.slow
@kernels
@precisions
@masks
@pytest.mark.parametrize(("crosses", "bias"), [(False, True), (True, True), (True, False)])
def test_multi_head_attention_is_torchs(
    attention: str, dtype: torch.dtype, kind: str, crosses: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    ours = spread_biases(MultiHeadAttention(D, heads=H, bias=bias, attention=attention)).to(dtype)
    torchs = nn.MultiheadAttention(D, H, bias=bias, batch_first=True, dtype=dtype)
    copy_attention(ours, torchs)
    keys = M if crosses else N
    mask = mask_of(kind, N, keys)
    mine = [noise(B, N, D, dtype=dtype, seed=2), *([noise(B, M, D, dtype=dtype, seed=3)] if crosses else [])]
    others = [tensor.detach().clone().requires_grad_() for tensor in mine]
    got = ours(*mine, mask=mask)
    read, weights = torchs(
        others[0], others[-1], others[-1],
        attn_mask=theirs(mask, N, keys), need_weights=True, average_attn_weights=False,
    )  # fmt: skip
    along = noise(B, N, D, dtype=dtype, seed=4)
    got.backward(along)
    read.backward(along)
    assert_pairs_close([(got, read), (ours.weights(*mine, mask=mask), weights)], dtype)
    assert_pairs_close(((one.grad, other.grad) for one, other in zip(mine, others, strict=True)), dtype)
    assert_pairs_close(gradients(ours, torchs), dtype)


def twins(block: EncoderBlock | DecoderBlock, norm: str, dtype: torch.dtype) -> Pairs:
    """The block and torch's layer with its weights, then their parts."""
    decodes = isinstance(block, DecoderBlock)
    make = nn.TransformerDecoderLayer if decodes else nn.TransformerEncoderLayer
    layer = make(D, H, HIDDEN, dropout=0.0, batch_first=True, norm_first=norm == "pre", dtype=dtype)
    attentions: Pairs = [(block.attention, layer.self_attn)]
    others: Pairs = [
        (block.feed_forward[0], layer.linear1),
        (block.feed_forward[2], layer.linear2),
        (block.around_attention.norm, layer.norm1),
        (block.around_feed_forward.norm, layer.norm3 if decodes else layer.norm2),
    ]
    if decodes:
        attentions.append((block.cross_attention, layer.multihead_attn))
        others.append((block.around_cross_attention.norm, layer.norm2))
    for one, other in attentions:
        copy_attention(one, other)
    for one, other in others:
        other.load_state_dict(one.state_dict())
    return [(block, layer), *attentions, *others]


def assert_same_gradients(parts: Pairs, dtype: torch.dtype) -> None:
    """Of every parameter of a block's parts and of torch's."""
    for one, other in parts:
        if isinstance(one, MultiHeadAttention):
            assert_pairs_close(gradients(one, other), dtype)
        else:
            pairs = zip(one.parameters(), other.parameters(), strict=True)
            assert_pairs_close(((mine.grad, theirs.grad) for mine, theirs in pairs), dtype)


@pytest.mark.slow
@kernels
@norms
@precisions
@masks
def test_the_encoder_block_is_torchs(attention: str, norm: str, dtype: torch.dtype, kind: str) -> None:
    torch.manual_seed(0)
    block = EncoderBlock(D, heads=H, mlp_dim=HIDDEN, norm=norm, attention=attention)
    (_, layer), *parts = twins(spread_biases(block).to(dtype), norm, dtype)
    mine, along = noise(B, N, D, dtype=dtype, seed=2), noise(B, N, D, dtype=dtype, seed=4)
    other = mine.detach().clone().requires_grad_()
    mask = mask_of(kind, N, N)
    got, expected = block(mine, mask=mask), layer(other, src_mask=theirs(mask, N, N))
    got.backward(along)
    expected.backward(along)
    assert_pairs_close([(got, expected), (mine.grad, other.grad)], dtype)
    assert_same_gradients(parts, dtype)


@pytest.mark.slow
@kernels
@norms
@precisions
@masks
def test_the_decoder_block_is_torchs(attention: str, norm: str, dtype: torch.dtype, kind: str) -> None:
    torch.manual_seed(0)
    block = DecoderBlock(D, heads=H, mlp_dim=HIDDEN, norm=norm, attention=attention)
    (_, layer), *parts = twins(spread_biases(block).to(dtype), norm, dtype)
    mine = [noise(B, N, D, dtype=dtype, seed=2), noise(B, M, D, dtype=dtype, seed=3)]
    others = [tensor.detach().clone().requires_grad_() for tensor in mine]
    along = noise(B, N, D, dtype=dtype, seed=4)
    mask, memory_mask = mask_of(kind, N, N), mask_of("padding" if kind == "causal" else kind, N, M)
    got = block(*mine, mask=mask, memory_mask=memory_mask)
    expected = layer(*others, tgt_mask=theirs(mask, N, N), memory_mask=theirs(memory_mask, N, M))
    got.backward(along)
    expected.backward(along)
    assert_pairs_close([(got, expected)], dtype)
    assert_pairs_close(((one.grad, other.grad) for one, other in zip(mine, others, strict=True)), dtype)
    assert_same_gradients(parts, dtype)


# --- Masks ---


def test_padding_closes_the_padded_keys_and_causality_the_later_ones() -> None:
    assert padding_mask(torch.tensor([[5, 3, 0], [4, 0, 0]])).int().tolist() == [[[1, 1, 0]], [[1, 0, 0]]]
    assert causal_mask(2, 3).int().tolist() == [[1, 1, 0], [1, 1, 1]]


@kernels
@precisions
def test_a_query_that_may_attend_to_nothing_gets_zeros_and_finite_gradients(
    attention: str, dtype: torch.dtype
) -> None:
    q, k, v = (noise(B, H, N, D, dtype=dtype, seed=seed) for seed in range(3))
    mask = mask_of("per head", N, N)
    assert mask is not None
    mask[0, :, 2] = mask[1, 1] = False
    read = KERNELS[attention](q, k, v, mask=mask, dropout=0.0)
    read.square().sum().backward()
    assert torch.all(read[0, :, 2] == 0) and torch.all(read[1, 1] == 0)
    assert torch.all(attention_weights(q, k, mask=mask)[0, :, 2] == 0)
    for tensor in (q, k, v):
        assert tensor.grad is not None and tensor.grad.isfinite().all()
    assert q.grad is not None and torch.all(q.grad[0, :, 2] == 0)


def test_the_kernels_are_equal_with_idle_queries_and_keys_of_huge_scores() -> None:
    q, k, v = (100 * noise(B, H, N, D, dtype=torch.float64, seed=seed).detach() for seed in range(3))
    mask = torch.rand(B, 1, N, N, generator=torch.Generator().manual_seed(0)) < 0.3
    assert (~mask.any(dim=-1)).any()
    one, other = (kernel(q, k, v, mask=mask, dropout=0.0) for kernel in KERNELS.values())
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@kernels
def test_without_keys_there_is_nothing_to_read(attention: str) -> None:
    layer = MultiHeadAttention(D, heads=H, attention=attention)
    assert torch.all(layer(torch.randn(B, N, D), torch.randn(B, 0, D)) == 0)
    nothing = torch.ones(B, N, 0, dtype=torch.bool)
    assert torch.all(layer(torch.randn(B, N, D), torch.randn(B, 0, D), mask=nothing) == 0)


def test_a_mask_that_is_not_boolean_is_refused() -> None:
    with pytest.raises(TypeError, match=r"float32; make it torch\.bool, True where"):
        MultiHeadAttention(D, heads=H)(torch.randn(B, N, D), mask=torch.ones(N, N))


ALL_AXES = (B, H, N, M)
FITTING = [
    *itertools.product((1, N), (1, M)),
    *itertools.product((1, B), (1, N), (1, M)),
    *itertools.product((1, B), (1, H), (1, N), (1, M)),
]


@pytest.mark.parametrize("shape", FITTING, ids=str)
def test_a_mask_may_have_any_axis_of_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    tokens, others = torch.randn(B, N, D), torch.randn(B, M, D)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.7
    whole = mask.reshape({2: (1, 1), 3: (len(mask), 1), 4: shape[:2]}[len(shape)] + shape[-2:]).expand(
        ALL_AXES
    )
    for attention in KERNELS:
        layer = MultiHeadAttention(D, heads=H, attention=attention)
        torch.testing.assert_close(layer(tokens, others, mask=mask), layer(tokens, others, mask=whole))
        torch.testing.assert_close(
            layer.weights(tokens, others, mask=mask), layer.weights(tokens, others, mask=whole)
        )


WRONG = [
    (), (M,), (B, M), (H, M), (M, N), (N, N), (B, N), (B, M, N), (H, N, M), (B, H, M), (B, N, M, 1),
    (H, B, N, M), (B, H, N, N), (2, 1, 1, M), (B, 0, N, M), (1, B, H, N, M),
]  # fmt: skip


@pytest.mark.parametrize("shape", WRONG, ids=str)
def test_a_mask_of_another_shape_is_refused_by_both_kernels_alike(shape: tuple[int, ...]) -> None:
    """Though torch would stretch some of them, such as a row of keys (m,)."""
    q, k, v = torch.randn(B, H, N, 4), torch.randn(B, H, M, 4), torch.randn(B, H, M, 4)
    mask = torch.ones(shape, dtype=torch.bool)
    refusal = re.escape(
        f"the mask is {shape}, but attention has b={B}, h={H}, n={N}, m={M}; make the mask (n, m)"
    )
    for kernel in KERNELS.values():
        with pytest.raises(ValueError, match=refusal):
            kernel(q, k, v, mask=mask, dropout=0.0)
    with pytest.raises(ValueError, match=refusal):
        attention_weights(q, k, mask=mask)


@kernels
def test_a_mask_of_more_queries_than_there_are_is_refused(attention: str) -> None:
    layer, tokens = MultiHeadAttention(D, heads=H, attention=attention), torch.randn(B, 3, D)
    with pytest.raises(ValueError, match=rf"the mask is \(3, 3\), but attention has b={B}, h={H}, n=1, m=3"):
        layer(tokens[:, :1], tokens, mask=causal_mask(3, 3))
    assert layer(tokens[:, :1], tokens, mask=causal_mask(1, 3)).shape == (B, 1, D)


@kernels
def test_two_axes_are_queries_and_keys_even_where_there_are_as_many_examples_as_queries(
    attention: str,
) -> None:
    layer, tokens = MultiHeadAttention(D, heads=H, attention=attention), torch.randn(N, N, D)
    mask = causal_mask(N, N)
    torch.testing.assert_close(layer(tokens, mask=mask), layer(tokens, mask=mask.expand(N, N, N)))
    assert not torch.allclose(layer(tokens, mask=mask), layer(tokens, mask=mask[:, None]), atol=1e-2)


# --- Properties ---


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.floats(0.1, 30))
def test_weights_of_a_row_sum_to_one_or_to_zero_where_all_is_masked(
    seed: int, queries: int, keys: int, scale: float
) -> None:
    torch.manual_seed(seed)
    mask = torch.rand(2, 1, queries, keys) < 0.5
    q, k = scale * torch.randn(2, 3, queries, 4), torch.randn(2, 3, keys, 4)
    weights = attention_weights(q, k, mask=mask)
    assert torch.all(weights >= 0) and torch.all(weights.masked_select(~mask) == 0)
    torch.testing.assert_close(weights.sum(dim=-1), mask.any(dim=-1).float().expand(2, 3, queries))


@kernels
@norms
def test_without_positions_an_encoder_block_does_not_know_the_order(attention: str, norm: str) -> None:
    torch.manual_seed(0)
    block = EncoderBlock(D, heads=H, mlp_dim=HIDDEN, norm=norm, attention=attention).double()
    x, order = torch.randn(B, N, D, dtype=torch.float64), torch.randperm(N)
    torch.testing.assert_close(block(x)[:, order], block(x[:, order]), rtol=1e-12, atol=1e-12)
    placed = PositionalEncoding(N, D).double()
    assert not torch.allclose(block(placed(x))[:, order], block(placed(x[:, order])), atol=1e-2)


@kernels
def test_under_a_causal_mask_later_tokens_have_no_influence(attention: str) -> None:
    torch.manual_seed(0)
    block = EncoderBlock(D, heads=H, mlp_dim=HIDDEN, attention=attention).double()
    x = torch.randn(B, N, D, dtype=torch.float64)
    other = torch.cat([x[:, :3], torch.randn(B, N - 3, D, dtype=torch.float64)], dim=1)
    mask = causal_mask(N, N)
    torch.testing.assert_close(block(x, mask=mask)[:, :3], block(other, mask=mask)[:, :3])
    assert not torch.allclose(block(x)[:, :3], block(other)[:, :3], atol=1e-2)


@kernels
def test_cached_attention_reads_what_it_reads_at_once(attention: str) -> None:
    torch.manual_seed(0)
    layer = MultiHeadAttention(D, heads=H, dim_head=6, attention=attention).double()
    x, memory = (torch.randn(B, n, D, dtype=torch.float64) for n in (N, M))
    cache, crossed = Cache(), Cache()
    parts = [x[:, :2], x[:, 2:3], x[:, 3:]]
    steps = [layer(x, mask=causal_mask(x.shape[1], cache.tokens + x.shape[1]), cache=cache) for x in parts]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x, mask=causal_mask(N, N)))
    assert cache.tokens == N
    steps = [layer(x, memory, cache=crossed) for x in parts]
    torch.testing.assert_close(torch.cat(steps, dim=1), layer(x, memory))
    assert crossed.tokens == M


@pytest.mark.slow
def test_dropout_on_weights_is_for_training_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, N, D)
    for attention in KERNELS:
        layer = MultiHeadAttention(D, heads=H, dropout=0.5, attention=attention)
        expected = layer.eval()(x)
        torch.testing.assert_close(layer(x), expected)
        many = layer.train()(x.expand(20_000, N, D))
        assert not torch.equal(many[0], many[1])
        torch.testing.assert_close(many.mean(dim=0, keepdim=True), expected, rtol=0, atol=0.05)


def test_maps_are_the_weights_of_every_attention_whichever_the_kernel() -> None:
    torch.manual_seed(0)
    block = DecoderBlock(D, heads=H, mlp_dim=HIDDEN, attention="fused")
    x, memory = torch.randn(B, N, D), torch.randn(B, M, D)
    with attention_maps(block) as maps:
        block(x, memory, mask=causal_mask(N, N))
    assert {name: tuple(map.shape) for name, map in maps.items()} == {
        "attention": (B, H, N, N),
        "cross_attention": (B, H, N, M),
    }
    torch.testing.assert_close(maps["attention"], block.attention.weights(x, mask=causal_mask(N, N)))
    before = copy.copy(maps)
    block(memory, x)
    assert maps == before, "outside the context nothing is recorded"


# --- Positions, sizes ---


@pytest.mark.parametrize("dim", [8, 7])
def test_sinusoids_are_those_of_section_3_5(dim: int) -> None:
    table = sinusoids(50, dim)
    for position in (0, 1, 49):
        for i in range(dim):
            angle = position / 10_000 ** (2 * (i // 2) / dim)
            assert table[position, i].item() == pytest.approx(
                (math.cos if i % 2 else math.sin)(angle), abs=1e-6
            )


@pytest.mark.parametrize(("kind", "params"), [("sinusoidal", 0), ("learned", 9 * D)])
def test_positions_are_added_from_where_the_tokens_start(kind: str, params: int) -> None:
    positions = PositionalEncoding(9, D, kind=kind)
    x = torch.randn(B, N, D)
    torch.testing.assert_close(positions(x, start=4) - x, positions.table[4:9].expand(B, N, D))
    assert sum(parameter.numel() for parameter in positions.parameters()) == params
    with pytest.raises(UserError, match="10 tokens, but there are positions for 9"):
        positions(x, start=5)


def test_heads_may_have_a_width_of_their_own() -> None:
    layer = MultiHeadAttention(D, heads=3, dim_head=5)
    assert layer(torch.randn(B, N, D)).shape == (B, N, D)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 4 * D * 15 + 3 * 15 + D


def test_what_does_not_fit_is_refused_with_what_does() -> None:
    with pytest.raises(UserError, match="heads=5 does not divide dim=16; use 1, 2, 4, 8"):
        MultiHeadAttention(D, heads=5)
    with pytest.raises(UserError, match="attention='fussed' is unknown, did you mean 'fused'"):
        MultiHeadAttention(D, heads=H, attention="fussed")
    with pytest.raises(UserError, match="norm='before' is unknown; use one of post, pre, rms"):
        EncoderBlock(D, heads=H, mlp_dim=HIDDEN, norm="before")
    with pytest.raises(UserError, match="positions='rotary' is unknown; use one of sinusoidal, learned"):
        PositionalEncoding(N, D, kind="rotary")


def test_projections_begin_as_xavier_says() -> None:
    torch.manual_seed(0)
    layer = linear(300, 500)
    bound = math.sqrt(6 / 800)
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert torch.all(layer.bias == 0)
