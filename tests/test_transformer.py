"""The transformer: its cost, its decoding against slower ways to the same end, how it begins and learns."""

import functools
import itertools
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnsweep.core.cost import Cost
from attnsweep.core.errors import UserError
from attnsweep.nn.kernels import KERNELS, padding_mask
from attnsweep.tasks.counting import count
from attnsweep.tasks.sequences.cost import encoder_decoder
from attnsweep.tasks.sequences.decoding import Written, beam, greedy
from attnsweep.tasks.sequences.problems import BEGIN, END, PAD
from attnsweep.tasks.sequences.space import positions_for
from attnsweep.tasks.sequences.transformer import Transformer, transformer

kernels = pytest.mark.parametrize("attention", KERNELS)
norms = pytest.mark.parametrize("norm", ["post", "pre"])
places = pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
LONGEST, VOCABULARY, STEPS = 9, 11, 150
CONFIG = dict(
    num_classes=VOCABULARY, dim=16, depth=2, heads=4, mlp_dim=24, dropout=0.1,
    norm="post", positions="sinusoidal", attention="fused", length=7,
)  # fmt: skip


def made(vocabulary: int = VOCABULARY, **words: str) -> Transformer:
    """A small transformer without dropout, in float64: rounding decides between no two tokens."""
    torch.manual_seed(0)
    sizes = dict(vocabulary=vocabulary, dim=32, depth=1, heads=4, mlp_dim=64, longest=20)
    return Transformer(**sizes, dropout=0.0, **words).double()


def sources(b: int = 12, n: int = 7, *, vocabulary: int = VOCABULARY, seed: int = 5) -> Tensor:
    """Token ids (b, n) of unequal lengths, from 1 to n, padded at the end."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, vocabulary, (b, n), generator=generator)
    lengths = torch.randint(1, n + 1, (b, 1), generator=generator)
    lengths[:2, 0] = torch.tensor([1, n])
    return tokens.masked_fill(torch.arange(n) >= lengths, PAD)


def backwards(source: Tensor) -> Tensor:
    """The source (b, n) from its last token to its first, with END behind it: (b, n + 1)."""
    lengths = (source != PAD).sum(dim=1, keepdim=True)
    places = lengths - 1 - torch.arange(source.shape[1])
    turned = source.gather(1, places.clamp_min(0)).masked_fill(places < 0, PAD)
    return F.pad(turned, (0, 1)).scatter(1, lengths, END)


@functools.cache
def trained(norm: str, positions: str) -> dict[str, Tensor]:
    """The weights of `made` when it has begun to learn to write sequences backwards."""
    model = made(norm=norm, positions=positions)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, betas=(0.9, 0.98))
    for step in range(STEPS):
        source = sources(64, seed=step)
        target = backwards(source)
        logits = model(source, F.pad(target[:, :-1], (1, 0), value=BEGIN))
        loss = F.cross_entropy(logits.mT, target, ignore_index=PAD, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


@torch.enable_grad()
def writer(*, norm: str = "post", positions: str = "sinusoidal", attention: str = "fused") -> Transformer:
    """A transformer in evaluation mode that writes targets of different lengths, many of them right."""
    model = made(norm=norm, positions=positions, attention=attention)
    model.load_state_dict(trained(norm, positions))
    return model.eval()


# --- Cost ---


class OfPairs(nn.Module):
    """A transformer of source and target in one row of token ids (b, n + n + 1)."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, pairs: Tensor) -> Tensor:
        n = pairs.shape[1] // 2
        return self.model(pairs[:, :n], pairs[:, n:])


def counted(config: dict) -> Cost:
    """What the built model has and does, by torch's own count."""
    with torch.device("meta"):
        pairs = torch.ones(1, 2 * config["length"] + 1, dtype=torch.long)
        return count(OfPairs(transformer(config)), pairs)


@pytest.mark.slow
@kernels
@norms
@places
@pytest.mark.parametrize("depth", [1, 3])
def test_the_closed_form_is_what_torch_counts(norm: str, positions: str, attention: str, depth: int) -> None:
    config = CONFIG | dict(norm=norm, positions=positions, attention=attention, depth=depth)
    assert encoder_decoder(config) == counted(config)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [3, 4, 6])
@pytest.mark.parametrize("dim_head", [1, 4, 5])
def test_heads_may_have_a_width_of_their_own(heads: int, dim_head: int) -> None:
    config = CONFIG | dict(heads=heads, dim_head=dim_head)
    assert encoder_decoder(config) == counted(config)
    source = sources(n=7)
    assert transformer(config)(source, source).shape == (len(source), 7, VOCABULARY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dim", "mlp_dim", "heads", "millions"), [(512, 2048, 8, 65), (1024, 4096, 16, 213)], ids=["base", "big"]
)
def test_the_papers_models_have_the_papers_parameters(
    dim: int, mlp_dim: int, heads: int, millions: int
) -> None:
    config = CONFIG | dict(num_classes=37_000, dim=dim, mlp_dim=mlp_dim, heads=heads, depth=6)
    attention, linear, norm = 4 * (dim * dim + dim), 2 * dim * mlp_dim + mlp_dim + dim, 2 * dim
    by_hand = 37_000 * dim + 6 * (3 * attention + 2 * linear + 5 * norm)
    assert encoder_decoder(config) == counted(config)
    assert encoder_decoder(config).params == by_hand
    assert by_hand == pytest.approx(millions * 1e6, rel=0.04)


def test_there_are_positions_for_four_times_the_training_length_and_more() -> None:
    model = transformer(CONFIG)
    assert len(model.positions.table) == positions_for(7) == 36
    model(sources(n=36), sources(n=36))
    with pytest.raises(UserError, match="37 tokens, but there are positions for 36"):
        model.encode(sources(n=37))


# --- What goes in and comes out ---


@kernels
@norms
def test_padding_has_no_influence(norm: str, attention: str) -> None:
    model = made(norm=norm, attention=attention)
    source, target = sources(seed=1), sources(seed=2)
    wide = F.pad(source, (0, 4)), F.pad(target, (0, 2))
    torch.testing.assert_close(model(*wide)[:, :7], model(source, target), rtol=1e-5, atol=1e-5)


def test_nothing_attends_to_padding_wherever_it_stands() -> None:
    model, source, target = made(), sources(), sources(seed=2)
    source[1, 2] = target[1, 3] = PAD
    before = model(source, target)
    with torch.no_grad():
        model.embedding.weight[PAD] += 1
    after = model(source, target)
    torch.testing.assert_close(after[target != PAD][:, 1:], before[target != PAD][:, 1:])
    assert not torch.allclose(after[1, 3], before[1, 3], atol=1e-2), "it is read where it stands itself"


def test_embeddings_are_scaled_before_the_positions_are_added() -> None:
    model, tokens = made(), sources()
    scaled = math.sqrt(32) * model.embedding.weight[tokens]
    assert scaled.std().item() == pytest.approx(1, rel=0.1)
    torch.testing.assert_close(model.embed(tokens, start=2), scaled + model.positions.table[2:9])


@kernels
@norms
def test_a_source_without_tokens_gives_finite_logits_and_gradients(norm: str, attention: str) -> None:
    model, source = made(norm=norm, attention=attention), sources()
    source[3] = PAD
    logits = model(source, sources(seed=2))
    logits.square().mean().backward()
    assert logits.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.slow
@norms
def test_in_bf16_it_computes_nearly_the_same(norm: str) -> None:
    source, target = sources(), sources(seed=2)
    exact = writer(norm=norm)(source, target)
    for attention in KERNELS:
        model = writer(norm=norm, attention=attention).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(source, target)
        assert 1e-4 < (logits - exact).std() / exact.std() < 0.05


@kernels
def test_later_targets_have_no_influence_and_every_source_token_has(attention: str) -> None:
    model, source, target = made(attention=attention), sources(), sources(seed=6)
    source[:], target[:] = source[1], target[1]  # of full length
    before, target[:, 4:] = model(source, target), 3
    torch.testing.assert_close(model(source, target)[:, :4], before[:, :4])
    for i in range(7):
        other = source.clone()
        other[:, i] = 3 + (other[:, i] - 2) % (VOCABULARY - 3)
        assert (model(other, target)[:, 0] - before[:, 0]).abs().max() > 1e-3


def test_embedding_source_target_and_output_are_one_matrix() -> None:
    model = made()
    shapes = [name for name, weight in model.named_parameters() if VOCABULARY in weight.shape]
    assert shapes == ["embedding.weight"]
    model(sources(), sources())[..., 4].sum().backward()
    assert torch.all(model.embedding.weight.grad.abs().sum(dim=1)[3:] > 0)


@pytest.mark.slow
@norms
@places
def test_activations_and_gradients_keep_their_size_through_twelve_blocks(norm: str, positions: str) -> None:
    torch.manual_seed(0)
    sizes = dict(vocabulary=50, dim=64, depth=12, heads=4, mlp_dim=256, dropout=0.0)
    model = Transformer(**sizes, norm=norm, positions=positions)
    stds: list[float] = []
    for block in [*model.encoder, *model.decoder]:
        block.register_forward_hook(lambda _, __, output: stds.append(output.std().item()))
    source, target = (sources(32, 16, vocabulary=50, seed=seed) for seed in (1, 2))
    logits = model(source, target)
    F.cross_entropy(logits.flatten(0, 1), target.roll(-1, 1).flatten(), ignore_index=PAD).backward()
    assert len(stds) == 24 and all(0.7 < std < 10 for std in stds), stds
    assert 0.5 < logits.std().item() < 2
    ends = [
        block.feed_forward[0].weight.grad.norm().item() for block in (model.encoder[0], model.decoder[-1])
    ]
    assert 1 / 30 < ends[0] / ends[1] < 30, ends


# --- Decoding ---


def ends(written: Written) -> set[int]:
    """At how many tokens targets have ended."""
    return {tokens.index(END) for tokens in written.tokens.tolist() if END in tokens}


@pytest.mark.slow
@kernels
@norms
@places
@torch.no_grad()
def test_decoding_with_a_cache_is_decoding_without(norm: str, positions: str, attention: str) -> None:
    model = writer(norm=norm, positions=positions, attention=attention)
    source = sources(40)
    written = greedy(model, source, longest=LONGEST)
    assert len(ends(written)) > 4, "the targets end at different places"
    for decode in (greedy, functools.partial(beam, width=3)):
        one, other = (decode(model, source, longest=LONGEST, cached=cached) for cached in (True, False))
        assert torch.equal(one.tokens, other.tokens)
        torch.testing.assert_close(one.log_p, other.log_p, rtol=1e-5, atol=1e-5)
    target = torch.cat([torch.full((40, 1), BEGIN), written.tokens], dim=1)
    memory, mask, caches = model.encode(source), padding_mask(source), model.caches()
    steps = [
        model.decode(target[:, : end + 1], memory, memory_mask=mask, caches=caches)
        for end in range(target.shape[1])
    ]
    assert all(logits.shape == (40, 1, VOCABULARY) for logits in steps)
    torch.testing.assert_close(torch.cat(steps, dim=1), model(source, target), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def next_log_p(model: Transformer, source: Tensor, prefix: tuple[int, ...]) -> list[float]:
    """Log-probabilities of the next token of one source (n,), by a forward pass over all of the prefix."""
    logits = model(source[None], torch.tensor([[BEGIN, *prefix]]))[0, -1]
    logits[[PAD, BEGIN]] = -torch.inf
    return logits.log_softmax(dim=-1).tolist()


def written_tokens(written: Written, row: int) -> tuple[int, ...]:
    """Without the padding at the end."""
    return tuple(token for token in written.tokens[row].tolist() if token != PAD)


@pytest.mark.slow
@norms
def test_greedy_takes_the_most_probable_token_until_the_end(norm: str) -> None:
    model, source = writer(norm=norm), sources()
    written = greedy(model, source, longest=LONGEST)
    for row in range(len(source)):
        tokens = written_tokens(written, row)
        assert END not in tokens[:-1] and (tokens[-1] == END or len(tokens) == LONGEST)
        steps = [next_log_p(model, source[row], tokens[:i]) for i in range(len(tokens))]
        most = [max(log_p) for log_p in steps]
        assert [log_p[token] for log_p, token in zip(steps, tokens, strict=True)] == pytest.approx(
            most, abs=1e-5
        )
        assert written.log_p[row].item() == pytest.approx(sum(most), abs=1e-4)


@pytest.mark.slow
@kernels
@norms
def test_a_beam_of_width_one_is_greedy(norm: str, attention: str) -> None:
    model, source = writer(norm=norm, attention=attention), sources(40)
    one, other = beam(model, source, longest=LONGEST, width=1), greedy(model, source, longest=LONGEST)
    assert torch.equal(one.tokens, other.tokens)
    torch.testing.assert_close(one.log_p, other.log_p)


def penalised(log_p: float, length: int, alpha: float) -> float:
    return log_p / ((5 + length) / 6) ** alpha


def every_target(model: Transformer, source: Tensor, longest: int) -> dict[tuple[int, ...], float]:
    """The log-probability of every target that has ended or has `longest` tokens, by enumeration."""
    found: dict[tuple[int, ...], float] = {}
    vocabulary = model.embedding.num_embeddings
    steps = {prefix: next_log_p(model, source, prefix) for prefix in prefixes(vocabulary, longest)}
    for prefix, log_p in steps.items():
        before = sum(steps[prefix[:i]][token] for i, token in enumerate(prefix))
        for token in range(END, vocabulary):
            if token == END or len(prefix) == longest - 1:
                found[(*prefix, token)] = before + log_p[token]
    return found


def prefixes(vocabulary: int, longest: int) -> list[tuple[int, ...]]:
    """Every beginning of fewer than `longest` tokens that has not ended."""
    words = range(END + 1, vocabulary)
    return [prefix for n in range(longest) for prefix in itertools.product(words, repeat=n)]


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("cached", [True, False])
def test_a_beam_that_holds_all_finds_the_best_of_all_targets(alpha: float, cached: bool) -> None:
    model = made(vocabulary=6)
    source = sources(6, 4, vocabulary=6)
    written = beam(model, source, longest=4, width=200, alpha=alpha, cached=cached)
    for row in range(len(source)):
        targets = every_target(model, source[row], 4)
        assert sum(map(math.exp, targets.values())) == pytest.approx(1, abs=1e-4)
        best = max(penalised(log_p, len(tokens), alpha) for tokens, log_p in targets.items())
        found = written_tokens(written, row)
        assert penalised(targets[found], len(found), alpha) == pytest.approx(best, abs=1e-5)
        assert written.log_p[row].item() == pytest.approx(targets[found], abs=1e-4)


def slow_beam(model: "ByPrefix", source: int, width: int, alpha: float) -> tuple[int, ...]:
    """The beam search of one source over lists. Raises AssertionError where rounding would decide."""
    pool: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for _ in range(LONGEST):
        grown = [(tokens, total) for tokens, total in pool if END in tokens]
        for tokens, total in pool:
            if END not in tokens:
                log_p = model.log_p(source, tokens)
                grown += [((*tokens, token), total + log_p[token]) for token in range(END, len(log_p))]
        scores = {tokens: penalised(total, len(tokens), alpha) for tokens, total in grown}
        grown.sort(key=lambda one: -scores[one[0]])
        for better, worse in itertools.pairwise(grown[: width + 1]):
            assert scores[better[0]] - scores[worse[0]] > 1e-5, "float32 cannot tell them apart"
        pool = grown[:width]
    return pool[0][0]


class ByPrefix(nn.Module):
    """Stands in for a transformer: logits are drawn from the source and all tokens before, by numpy's
    generator, so that they are the same on every CPU.
    """

    def logits(self, source: int, prefix: tuple[int, ...]) -> np.ndarray:
        drawn = 3 * np.random.default_rng([source, *prefix]).random(VOCABULARY)
        drawn[END] += 0.3 * len(prefix)  # so that targets end at different places
        return drawn

    def log_p(self, source: int, prefix: tuple[int, ...]) -> list[float]:
        """Log-probabilities of the next token after BEGIN and a prefix."""
        logits = self.logits(source, prefix)
        logits[[PAD, BEGIN]] = -np.inf
        return list(logits - np.log(np.exp(logits).sum()))

    def encode(self, source: Tensor) -> Tensor:
        return source[..., None].double()

    def caches(self) -> None:
        return None

    def decode(self, target: Tensor, memory: Tensor, *, memory_mask: Tensor, caches: None) -> Tensor:
        """The logits behind the last token: nobody reads the others."""
        sources, rows = memory[:, 0, 0].int().tolist(), target[:, 1:].tolist()
        last = [self.logits(source, tuple(row)) for source, row in zip(sources, rows, strict=True)]
        return torch.from_numpy(np.stack(last))[:, None]


@pytest.mark.parametrize(("width", "alpha"), [(2, 0.0), (3, 0.6), (4, 2.0)])
def test_the_beams_of_a_batch_are_those_of_a_search_over_lists(width: int, alpha: float) -> None:
    model, source = ByPrefix(), torch.arange(3, 33)[:, None]
    written = beam(model, source, longest=LONGEST, width=width, alpha=alpha)  # type: ignore[arg-type]
    expected = [slow_beam(model, int(number), width, alpha) for number in source]
    assert [written_tokens(written, row) for row in range(len(source))] == expected
    assert len(set(map(len, expected))) > 3, "they end at different places"


class Table(nn.Module):
    """Stands in for a transformer: the next token's logits are read off the last one, in a table (v, v)."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def encode(self, source: Tensor) -> Tensor:
        return torch.zeros(*source.shape, 1)

    def caches(self) -> None:
        return None

    def decode(self, target: Tensor, memory: Tensor, *, memory_mask: Tensor, caches: None) -> Tensor:
        return self.logits[target]


NEXT = {
    BEGIN: {3: 0.6, 4: 0.4},
    3: {5: 0.5, END: 0.5 - 1e-3},  # the more probable first step leads to where nothing is certain
    4: {END: 0.99},
    5: {END: 0.5},
}


def of_probabilities(following: dict[int, dict[int, float]]) -> Table:
    """A table of six tokens, each of which may be followed by any other."""
    rows = [[following.get(token, {}).get(next, 1e-6) for next in range(6)] for token in range(6)]
    return Table(torch.tensor(rows).log())


def test_a_beam_finds_the_likelier_target_that_greedy_passes_by() -> None:
    model, source = of_probabilities(NEXT), torch.full((2, 1), 3)
    first, best = greedy(model, source, longest=4), beam(model, source, longest=4, width=2, alpha=0.0)
    assert first.tokens.tolist() == [[3, 5, END]] * 2
    assert [written_tokens(best, row) for row in range(2)] == [(4, END)] * 2
    assert (best.log_p > first.log_p).all()
    torch.testing.assert_close(best.log_p, torch.full((2,), 0.4 * 0.99).log(), atol=0.02, rtol=0)


CHOICES = 4


def of_equals(seed: int, vocabulary: int = 24) -> list[list[int]]:
    """For each token CHOICES tokens that may follow, all with the same probability, ascending."""
    draw = random.Random(seed)
    return [sorted(draw.sample(range(END, vocabulary), CHOICES)) for _ in range(vocabulary)]


def first_of_equals(following: list[list[int]], width: int) -> tuple[int, ...]:
    """The beam search over lists, where targets of one length are equally good, and shorter ones better."""
    pool: list[tuple[int, ...]] = [(BEGIN,)]
    for _ in range(LONGEST):
        grown = [
            (*tokens, token)
            for tokens in pool
            for token in (following[tokens[-1]] if tokens[-1] != END else [END])
        ]
        grown = [tokens[:-1] if tokens[-2:] == (END, END) else tokens for tokens in grown]
        pool = sorted(grown, key=len)[:width]  # stable: the first of equals stays the first
    return pool[0][1:]


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(10))
def test_of_equally_good_choices_the_first_is_taken(width: int, seed: int) -> None:
    following = of_equals(seed)
    logits = torch.full((24, 24), -torch.inf)
    for token, others in enumerate(following):
        logits[token, others] = 0
    model, source = Table(logits), torch.full((2, 1), 3)
    written = beam(model, source, longest=LONGEST, width=width, alpha=0.0)
    assert [written_tokens(written, row) for row in range(2)] == [first_of_equals(following, width)] * 2
    if width == 1:
        assert torch.equal(written.tokens, greedy(model, source, longest=LONGEST).tokens)


def test_a_beam_of_width_one_is_greedy_where_the_best_differ_by_less_than_their_sums_can_hold() -> None:
    logits = 1e-6 * torch.randn(500, 500, generator=torch.Generator().manual_seed(0))
    model, source = Table(logits), torch.full((1, 1), 3)
    one, other = beam(model, source, longest=LONGEST, width=1), greedy(model, source, longest=LONGEST)
    assert torch.equal(one.tokens, other.tokens) and torch.equal(one.log_p, other.log_p)


# --- Learning ---


@pytest.mark.slow
@norms
@places
def test_it_learns_to_write_backwards(norm: str, positions: str) -> None:
    source = sources(300, seed=STEPS + 1)
    written = greedy(writer(norm=norm, positions=positions), source, longest=8).tokens
    right = (F.pad(written, (0, 8 - written.shape[1])) == backwards(source)).all(dim=1)
    assert right.float().mean() > 0.3, "where guessing would give less than 0.15"
