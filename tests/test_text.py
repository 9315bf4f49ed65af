"""The task `text`: its blocks, its baselines, its decoder, what it refuses, and what it writes."""

import itertools
import math
import os
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnsweep.__main__ import main
from attnsweep.core.errors import UserError
from attnsweep.nn.cost import FOLD_FROM
from attnsweep.space.trials import cost_of, make_trial
from attnsweep.tasks.counting import count
from attnsweep.tasks.registry import TASKS, build, dataset_of, resolve
from attnsweep.tasks.text import baselines, corpus, sampling, space, training
from attnsweep.tasks.text.baselines import KneserNey, bits_per_byte
from attnsweep.tasks.text.encoding import Bytes, encoding_of
from attnsweep.training.trial import Options, run

POINT = dict(model="decoder", depth=2, heads=4, dim=16, mlp_dim=24, context=12, dropout=0.0)
WORDS = "über den Dächern von Zürich zählt man 日本語 tokens naïvely".split()


@pytest.fixture(autouse=True)
def forgotten() -> None:
    corpus.forget()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of words with characters of one, two and three bytes."""
    draw = random.Random(0)
    path = tmp_path / "words.txt"
    path.write_text(" ".join(draw.choice(WORDS) for _ in range(1_500)), encoding="utf-8")
    return path


def made(**point: Any) -> Any:
    torch.manual_seed(0)
    return build(resolve({**POINT, **point})).eval()


def refusal(**point: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolve({**POINT, **point})
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Blocks ---


@pytest.mark.parametrize("name", ["text:python", "path"])
def test_every_byte_is_in_one_block_of_one_part(name: str, path: Path) -> None:
    name = f"text:{path}" if name == "path" else name
    found = corpus.find(name)
    assert found is not None
    parts, whole = corpus.parts(found.name), b"".join(corpus.read(found.name).values())
    blocks = list(corpus.blocks(whole, corpus.block_size(found.name)))
    assert b"".join(blocks) == whole and len(blocks) >= 40
    assert Counter(blocks) == Counter(itertools.chain(*parts.values()))
    assert [parts["val"][0], parts["test"][0]] == [blocks[4], blocks[9]]
    for block in blocks:
        block.decode()  # no character is cut
        assert len(block) <= 4096
    assert len(parts["train"]) >= 0.75 * len(blocks)


def test_a_paragraph_of_pythons_topics_comes_once() -> None:
    text = corpus.python_topics()
    paragraphs = text.split("\n\n")
    assert len(paragraphs) == len(set(paragraphs)) and 300_000 < len(text) < 466_117


def test_a_folder_is_its_files_by_name_without_hidden_ones(tmp_path: Path, path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.txt", "deep/a.md", ".hidden"):
        (folder / name).write_bytes(path.read_bytes())
    found = corpus.find(f"text:{folder}")
    assert found is not None and list(corpus.read(found.name)) == ["b.txt", "deep/a.md"]
    assert found.is_folder and found.train_size > 50


def test_a_text_is_known_by_its_contents(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(path.read_bytes())
    one, two = (make_trial(resolve({**POINT, "dataset": f"text:{one}"}), tmp_path) for one in (path, other))
    assert one.trial_id == two.trial_id and one.config["dataset"] == f"text:{path}"
    other.write_text("changed " * 2_000)
    corpus.forget()
    changed = make_trial(resolve({**POINT, "dataset": f"text:{other}"}), tmp_path)
    assert changed.trial_id != one.trial_id and changed.arch_id == one.arch_id
    with pytest.raises(UserError, match="has changed since the trial was planned"):
        training.load_for(changed.config, "", "cpu", sha256=one.data_sha256)


# --- Windows ---


@pytest.mark.parametrize("encoding", ["bytes", "bpe"])
def test_what_judges_is_every_byte_of_its_part_once(encoding: str, path: Path) -> None:
    config = resolve({**POINT, "dataset": f"text:{path}", "encoding": encoding})
    data = training.load_for(config, "", "cpu")
    for part in ("val", "test"):
        answers, size = data.held_out[part]
        text = b"".join(
            data.encoding.decode([token for token in window if token != training.NOTHING])
            if encoding == "bytes"
            else b""
            for window in answers.tolist()
        )
        expected = b"".join(corpus.parts(config["dataset"])[part])
        assert size == len(expected) and (encoding == "bpe" or text == expected)
        tokens = [token for token in answers.flatten().tolist() if token != training.NOTHING]
        assert data.encoding.decode(tokens) == expected
        assert max(tokens) < data.encoding.begin == config["num_classes"] - 1


def test_byte_pairs_are_fewer_than_bytes_and_lose_nothing(path: Path) -> None:
    name, text = f"text:{path}", "Zürich 日本 - what was never seen: ☃"
    pairs = encoding_of("bpe", name, 300)
    assert pairs.decode(pairs.encode(text.encode())).decode() == text
    known = path.read_bytes()
    assert len(pairs.encode(known)) < 0.7 * len(Bytes().encode(known))
    assert Bytes().decode(Bytes().encode(known)) == known


@pytest.mark.parametrize("context", [12, 75])
def test_an_epoch_has_windows_of_its_own_blocks_alone(context: int, path: Path) -> None:
    config = resolve({**POINT, "dataset": f"text:{path}", "context": context, "batch_size": 7})
    data, blocks = training.load_for(config, "", "cpu"), corpus.parts(f"text:{path}")["train"]
    epochs = []
    for epoch in range(2):
        order = torch.Generator().manual_seed(epoch)
        batches = list(training.batches(data, config, epoch=epoch, order=order))
        windows = [window for _, answers in batches for window in answers.tolist()]
        assert len(windows) == data.train_size == dataset_of(config).train_size
        for window in windows:
            text = bytes(token for token in window if token != training.NOTHING)
            assert any(text in block and len(text) == min(context, len(block)) for block in blocks)
        for seen, answers in batches:
            known = answers[:, 1:] != training.NOTHING
            assert (seen[:, 0] == 256).all() and torch.equal(seen[:, 1:][known], answers[:, :-1][known])
        epochs.append(Counter(map(tuple, windows)))
    assert epochs[0] != epochs[1], "windows are shifted from epoch to epoch"


# --- Judgement ---


class Always(nn.Module):
    """Says the same logits whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits.expand(*tokens.shape, -1)


def test_one_that_knows_nothing_takes_the_logarithm_of_the_vocabulary(path: Path) -> None:
    config = resolve({**POINT, "dataset": f"text:{path}"})
    judged = training.judge(Always(torch.zeros(257)), training.load_for(config, "", "cpu"), config)  # type: ignore[arg-type]
    assert [judged["val_bpb"], judged["test_bpb"]] == pytest.approx([math.log2(257)] * 2)
    assert judged["test_saved"] == pytest.approx(1 - math.log2(257) / 8, abs=1e-6)
    assert judged["val_loss"] == pytest.approx(math.log(257))


@pytest.mark.slow
def test_one_that_counts_bytes_is_the_unigram_baseline(path: Path) -> None:
    config = resolve({**POINT, "dataset": f"text:{path}"})
    parts = corpus.parts(config["dataset"])
    counts = Counter(b"".join(parts["train"]))
    total = sum(counts.values())
    logits = torch.tensor([math.log(counts[byte] / total) if counts[byte] else -30.0 for byte in range(256)])
    logits = torch.cat([logits, torch.tensor([-100.0])])
    judged = training.judge(Always(logits), training.load_for(config, "", "cpu"), config)  # type: ignore[arg-type]
    assert judged["test_bpb"] == pytest.approx(bits_per_byte(config["dataset"])["unigram"], abs=0.01)


@pytest.mark.slow
@torch.no_grad()
def test_bits_per_byte_are_those_of_one_token_after_another(path: Path) -> None:
    config = resolve({**POINT, "dataset": f"text:{path}", "encoding": "bpe", "vocabulary": 300})
    model, data = made(encoding="bpe", vocabulary=300, dataset=f"text:{path}"), None
    data = training.load_for(config, "", "cpu")
    pairs, nats = encoding_of("bpe", config["dataset"], 300), 0.0
    for block in corpus.parts(config["dataset"])["test"]:
        tokens = pairs.encode(block)
        for begin in range(0, len(tokens), 12):
            window = tokens[begin : begin + 12]
            for i, token in enumerate(window):
                if begin < 24:  # of each block two windows step by step
                    seen = torch.tensor([[300, *window[:i]]])
                    nats -= float(model(seen)[0, -1].log_softmax(0)[token])
    part = [pairs.encode(block)[:24] for block in corpus.parts(config["dataset"])["test"]]
    assert training.total_nats(model, training.windows(part, 12), data) == pytest.approx(nats, rel=1e-4)


# --- Baselines ---


def slow_kneser_ney(train: list[bytes], block: bytes, order: int) -> list[float]:
    """As the paper defines it, by dictionaries."""
    seen: dict[int, Counter[bytes]] = {
        n: Counter(one[i : i + n] for one in train for i in range(len(one) - n + 1))
        for n in range(1, order + 1)
    }
    counts: dict[int, Counter[bytes]] = {order: seen[order]}
    for n in range(1, order):
        counts[n] = Counter(gram[1:] for gram in seen[n + 1])
    likely = []
    for i in range(len(block)):
        p = 1 / 256
        for n in range(1, min(order, i + 1) + 1):
            gram = block[i + 1 - n : i + 1]
            of_context = {one: c for one, c in counts[n].items() if one[:-1] == gram[:-1]}
            once, twice = (sum(c == k for c in counts[n].values()) for k in (1, 2))
            discount = max(once, 1) / (max(once, 1) + 2 * twice)
            if total := sum(of_context.values()):
                p = (
                    max(of_context.get(gram, 0) - discount, 0) / total
                    + discount * len(of_context) / total * p
                )
        likely.append(p)
    return likely


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_kneser_ney_is_its_definition(order: int) -> None:
    draw = random.Random(0)
    train = [bytes(draw.choices(b"abcd", [8, 4, 2, 1], k=60)) for _ in range(4)]
    block = b"abracadabra dabc"
    model = KneserNey(train, order)
    assert model.probabilities(block).tolist() == pytest.approx(slow_kneser_ney(train, block, order))
    sums: dict[int, float] = defaultdict(float)
    for byte in range(256):
        for i in range(8):
            sums[i] += model.probabilities(block[:i] + bytes([byte]))[i]
    assert list(sums.values()) == pytest.approx([1.0] * 8)


@pytest.mark.parametrize("train", [[b"abab" * 30], [b"ab", b"ba"], [b"a"]], ids=str)
def test_what_never_came_has_a_share_and_shares_sum_to_one(train: list[bytes]) -> None:
    model = KneserNey(train, 5)
    likely = np.array([model.probabilities(b"ababab" + bytes([byte]))[-1] for byte in range(256)])
    assert likely.min() > 0 and likely.sum() == pytest.approx(1)


@pytest.mark.slow
def test_baselines_improve_from_line_to_line_on_pythons_topics() -> None:
    found = bits_per_byte("text:python")
    order = ["uniform", "unigram", "gzip, test part alone", "gzip", "5-gram, Kneser-Ney"]
    values = [found[name] for name in order]
    assert values == sorted(values, reverse=True) and values[0] == 8 and 1 < found["xz"] < found["gzip"]


@pytest.mark.slow
def test_baselines_are_printed_as_a_table(path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.argv", ["baselines", f"text:{path}"])
    baselines.main()
    table = capsys.readouterr().out.splitlines()
    assert table[0] == f"| bits per byte | text:{path} |" and "| uniform | 8.000 |" in table
    with pytest.raises(UserError, match="'mnist' is no text; use text:PATH, or text:python"):
        bits_per_byte("mnist")


# --- The decoder ---

DESIGNS: dict[str, dict[str, Any]] = {
    "default": {},
    "learned": dict(positions="learned", norm="post", mlp="relu"),
    "window": dict(window=4, sinks=1, kv_heads=1, norm="rms", mlp="swiglu"),
    "linear": dict(attention="linear", kv_heads=2, positions="none"),
    "differential": dict(attention="differential", positions="alibi", qk_norm="rms"),
    "gated": dict(attention="gated", positions="sinusoidal"),
    "sigmoid": dict(attention="sigmoid", encoding="bpe", vocabulary=300),
}
designs = pytest.mark.parametrize("design", DESIGNS)


@designs
@torch.no_grad()
def test_writing_with_a_cache_is_writing_without(design: str) -> None:
    model: Any = made(**DESIGNS[design]).double()
    tokens = torch.randint(250, (3, 12), generator=torch.Generator().manual_seed(0))
    whole = model(tokens)
    for sizes in ([1] * 12, [4, 1, 7]):
        caches = model.caches()
        steps = [model(part, caches) for part in tokens.split(sizes, dim=1)]
        torch.testing.assert_close(torch.cat(steps, dim=1), whole)


@pytest.mark.slow
@designs
def test_the_closed_form_is_what_is_counted_at_every_length(design: str, tmp_path: Path) -> None:
    config = resolve({**POINT, **DESIGNS[design]})
    row = make_trial(config, tmp_path).row()
    assert count(build(config), *training.example(config, 1)) == cost_of(config)
    for name, times in (("macs_2x", 2), ("macs_4x", 4)):
        longer = {**config, "context": 12 * times}
        assert count(build(longer), *training.example(longer, 1)).macs == row[name]
    caches, model = build(config).caches(), None  # type: ignore[operator]
    model = build(config)
    model(training.example(config, 1)[0], caches)
    assert sum(cache.bytes for cache in caches) == row["cache_bytes"]


def test_only_trials_whose_biases_are_folded_in_run_again() -> None:
    config = {**resolve({**POINT, "positions": "alibi"}), "attention": "fused"}
    revisions = [
        space.revision({**config, "context": context}) for context in (256, FOLD_FROM - 1, FOLD_FROM)
    ]
    assert revisions == [0, 0, 1]
    assert not any(
        space.revision({**config, "context": FOLD_FROM, **other})
        for other in (dict(attention="explicit"), dict(positions="rope"))
    )


def test_the_rate_rises_and_falls_to_a_tenth() -> None:
    config = {"lr": 1.0, "warmup_steps": 10, "epochs": 2}
    rates = [training.learning_rate(config, step, 50) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] == pytest.approx(0.1)
    assert rates[10 + 45] == pytest.approx(0.55, abs=0.02)


# --- What is refused ---


def test_what_is_no_text_is_named_by_file_and_byte(tmp_path: Path) -> None:
    bad = {
        "empty.txt": (b" \n", "is empty; delete it, or leave it out"),
        "binary.bin": (b"text\0more", "is binary (byte 4 is 0); leave it out, text is UTF-8"),
        "wide.txt": ("text".encode("utf-16"), "is UTF-16; convert it, as by iconv -f utf-16 -t utf-8"),
        "latin.txt": ("naïve ".encode("latin-1") * 99, "UTF-8: byte 2 is 0xef (invalid continuation byte)"),
        "cut.txt": (("x" * 999 + "é").encode()[:-1], "byte 999 is 0xc3 (unexpected end of data)"),
    }  # fmt: skip
    for name, (content, sentence) in bad.items():
        (tmp_path / name).write_bytes(content)
        assert f"{tmp_path / name} " in refusal(dataset=f"text:{tmp_path / name}")
        assert sentence in refusal(dataset=f"text:{tmp_path / name}")
    (tmp_path / "good.txt").write_text("a text " * 200)
    assert f"{tmp_path / 'binary.bin'} is binary" in refusal(dataset=f"text:{tmp_path}")
    (tmp_path / "none").mkdir()
    assert "none has no files; name a file of text" in refusal(dataset=f"text:{tmp_path / 'none'}")
    assert "cannot be read (No such file or directory); name a file" in refusal(dataset="text:nowhere.txt")
    assert refusal(dataset="text:").startswith("dataset='text:' names no file; write text:PATH")


def test_a_file_is_read_once_whatever_links_lead_to_it(tmp_path: Path, path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_bytes(path.read_bytes())
    (folder / "b.txt").symlink_to(folder / "a.txt")
    (folder / "loop").symlink_to(folder)
    name = f"text:{folder}"
    assert list(corpus.read(name)) == ["a.txt"]
    (folder / "gone").symlink_to(folder / "nowhere")
    corpus.forget()
    assert f"{folder / 'nowhere'} cannot be read (No such file or directory)" in refusal(dataset=name)


def test_odd_names_are_read_or_refused(tmp_path: Path, path: Path) -> None:
    for name in (b"a.txt", b"\xff.txt"):
        (tmp_path / os.fsdecode(name)).write_bytes(path.read_bytes())
    assert len(corpus.checksum(f"text:{tmp_path}")) == 64
    assert refusal(dataset="text:/tmp/\0x").startswith(
        "dataset='text:/tmp/\\x00x' names no file; write text:"
    )
    assert "~nobody_ cannot be read (No such file" in refusal(dataset="text:~nobody_/x")


def test_a_text_shorter_than_its_blocks_need_is_refused(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("word " * 200)
    assert refusal(dataset=f"text:{short}", context=100) == (
        f"context=100 is longer than a block of text:{short}: its 1,000 bytes are cut into blocks of 25; "
        "use 25 or less, or more text"
    )
    short.write_text("few words")
    corpus.forget()
    trial = resolve({**POINT, "dataset": f"text:{short}", "context": 4})
    for content, size in (("few words", 9), ("few words " * 9, 90)):
        short.write_text(content)
        corpus.forget()
        with pytest.raises(
            UserError, match=f"has {size} bytes, too few to train on some and test .*; use 400"
        ):
            training.load_for(trial, "", "cpu")


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        (dict(window=12), "window=12 closes nothing, as context=12 has 12 tokens; use 1 to 11"),
        (
            dict(window=4, sinks=8),
            "4 with sinks=8 closes nothing, as context=12 has 12 tokens; use sinks of 7",
        ),
        (dict(vocabulary=500), "vocabulary=500 is for encoding='bpe'; of bytes there are 256, leave it out"),
        (dict(kv_heads=3), "kv_heads=3 does not divide heads=4; use 1, 2, 4"),
        (dict(heads=3), "heads=3 does not divide dim=16; use 1, 2, 4, 8"),
        (dict(dim_head=5), "dim_head=5 is no multiple of 2, as positions='rope' turns its pairs; use 4, 6"),
        (dict(context=5000), "bytes are cut into blocks of 4,096; use 4096 or less"),
        (dict(encoding="bpee"), "encoding='bpee' is unknown, did you mean 'bpe'?"),
        (dict(dataset="mnist"), "dataset='mnist' is for images and model='decoder' for text; use "),
        (dict(dataset="txt:python"), "dataset='txt:python' is unknown, did you mean 'text:python'?"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_with_what_does(point: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(**point)


# --- Writing ---


def test_what_is_written_is_the_likeliest_at_temperature_zero() -> None:
    model, config = made(), resolve(POINT)
    written = sampling.continued(model, config, "ab", tokens=6, temperature=0)
    held = [256, *b"ab"]
    for _ in range(6):
        logits = model(torch.tensor([held]))[0, -1]
        logits[256] = -torch.inf
        held.append(int(logits.argmax()))
    assert written == bytes(held[1:]).decode(errors="replace")


def test_every_temperature_draws_what_is_known(path: Path) -> None:
    point = dict(encoding="bpe", vocabulary=2000, dataset=f"text:{path}")
    model, config = made(**point), resolve({**POINT, **point})
    pairs = encoding_of("bpe", config["dataset"], 2000)
    assert pairs.known < 1000, "the text is short"
    greedy, cold, hot = (
        sampling.continued(model, config, "Zürich", tokens=9, temperature=heat) for heat in (0, 1e-310, 1e300)
    )
    assert greedy == cold != hot
    draw = torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match="no numbers, as its training diverged"):
        sampling.drawn(torch.full((3,), math.nan), temperature=1, top=0, draw=draw)
    with pytest.raises(UserError, match="the prompt is not UTF-8 from character 2 on"):
        sampling.continued(model, config, "a\udcff")


@pytest.mark.slow
def test_a_full_context_goes_on_from_its_second_half() -> None:
    model, config = made(positions="learned"), resolve({**POINT, "positions": "learned"})
    written = sampling.continued(model, config, "a prompt", tokens=60, temperature=0)
    held = [256, *b"a prompt"]
    text = list(b"a prompt")
    for _ in range(60):
        logits = model(torch.tensor([held]))[0, -1].detach()
        logits[256] = -torch.inf
        token = int(logits.argmax())
        text.append(token)
        held = [256, *held[-6:]] if len(held) == 12 else held
        held.append(token)
    assert written == bytes(text).decode(errors="replace")


@pytest.mark.slow
def test_drawing_is_by_seed_temperature_and_the_top() -> None:
    logits = torch.tensor([0.0, math.log(2), math.log(4), -torch.inf])
    draw = torch.Generator().manual_seed(0)
    drawn = Counter(sampling.drawn(logits, temperature=1, top=0, draw=draw) for _ in range(7_000))
    assert [drawn[i] / 7_000 for i in range(4)] == pytest.approx([1 / 7, 2 / 7, 4 / 7, 0], abs=0.02)
    hot = Counter(sampling.drawn(logits, temperature=0.5, top=2, draw=draw) for _ in range(5_000))
    assert [hot[i] / 5_000 for i in range(3)] == pytest.approx([0, 1 / 5, 4 / 5], abs=0.02)
    model, config = made(), resolve(POINT)
    texts = [sampling.continued(model, config, "", tokens=9, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        sampling.continued(made(), resolve(POINT), "twelve signs")
    assert str(caught.value) == "the prompt has 12 tokens, and context=12 leaves room for 11; shorten it"


def test_only_text_is_written() -> None:
    assert [name for name, task in TASKS.items() if task.continued] == ["text"]


# --- Whole trials ---


@pytest.mark.slow
def test_a_trial_learns_more_than_how_often_bytes_come(path: Path, tmp_path: Path) -> None:
    config = resolve({**POINT, "dataset": f"text:{path}", "dim": 32, "epochs": 4, "lr": 1e-2})
    event = list(run(make_trial(config, tmp_path), Options(data_dir="nowhere")))[-1]
    row = event["row"]
    assert event["status"] == "done", row.get("error")
    assert row["test_bpb"] < 0.8 * bits_per_byte(config["dataset"])["unigram"]
    assert row["val_saved"] == pytest.approx(1 - row["val_bpb"] / 8)


@pytest.mark.slow
def test_a_sweep_over_text_is_run_shown_and_sampled(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.py").write_text(
        "from attnsweep import Sweep\n"
        "sweep = Sweep(model='decoder', dataset='text:words.txt', context=24, dim=16, depth=1, heads=2,\n"
        "              mlp_dim=16, epochs=2, keep_weights=True,\n"
        "              positions={'grid_search': ['rope', 'alibi']})\n"
    )
    assert main(["sweep.py", "--serial", "--no-latency"]) == 0
    shown = capsys.readouterr()
    shown = shown.out + shown.err
    assert "bytes to train on" in shown and "2 done" in shown
    rows = pd.read_parquet("results/trials")
    assert rows["test_bpb"].between(1, 9).all() and rows["cache_bytes_per_token"].eq(2 * 16 * 4).all()
    assert main(["sample", rows["trial_id"][0], "über den ", "--tokens", "20"]) == 0
    assert capsys.readouterr().out.startswith("über den ")
    assert main(["sample", rows["trial_id"][0], "über den " * 9]) == 2
    assert "the prompt has 90 tokens, and context=24 leaves room for 23" in capsys.readouterr().err
    assert main(["sample", rows["trial_id"][0], "--tokens", "0"]) == 2
    assert "--tokens 0 is out of range" in capsys.readouterr().err
    assert main(["sample", "abc", "--seed", str(2**64)]) == 2
    assert f"--seed {2**64} is out of range" in capsys.readouterr().err
    assert (
        main(["measure", "--serial", "--length", "8,24", "--batch", "1", "--where", "positions == 'rope'"])
        == 0
    )
    measured = pd.read_parquet("results/latency").set_index("context")
    assert sorted(measured.index) == [8, 24] and set(measured["positions"]) == {"rope"}
    per_token = measured["latency_ms_p50"] / measured.index
    assert measured["latency_ms_per_token"].to_numpy() == pytest.approx(per_token.to_numpy())
    own = rows.set_index("positions").loc["rope"]
    assert measured.loc[24, ["arch_id", "macs"]].tolist() == own[["arch_id", "macs"]].tolist()
    assert measured.loc[8, "macs"] < own["macs"] and measured.loc[8, "params"] == own["params"]
    assert main(["measure", "--serial", "--length", ""]) == 2
    assert "--length names no value; name one, or leave it out" in capsys.readouterr().err
    assert main(["measure", "--serial", "--length", "0"]) == 2
    assert "--length 0 is out of range; use whole numbers from 1 to 65,536" in capsys.readouterr().err
    assert main(["pick", "--params", "1e6"]) == 0
    assert "test_bpb" in capsys.readouterr().out


def test_cross_entropy_in_nats_is_bits_times_the_logarithm_of_two() -> None:
    logits, answers = torch.randn(2, 5, 257), torch.randint(256, (2, 5))
    nats = F.cross_entropy(logits.mT, answers, reduction="sum").item()
    likely = logits.softmax(-1).gather(-1, answers[..., None])
    assert nats / math.log(2) == pytest.approx(-likely.log2().sum().item(), rel=1e-5)
