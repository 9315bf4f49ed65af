"""Sequence to sequence: problems with exact answers, taught with label smoothing, judged by decoding.

An epoch is made of fresh examples, the same for every trial. An answer counts if all of it is right: decoded
token by token, greedily or with a beam, without a look at the right one.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from attnsweep.core.bits import packed
from attnsweep.tasks.sequences import problems
from attnsweep.tasks.sequences.decoding import Writer, beam
from attnsweep.tasks.sequences.problems import BEGIN, FIRST, PAD, PROBLEMS, Problem
from attnsweep.tasks.sequences.transformer import Transformer

tune = None  # a model is trained as it is initialised
ADAM: Mapping[str, Any] = {"betas": (0.9, 0.98), "eps": 1e-9}  # section 5.3
JUDGE_BATCH = 250
Examples = tuple[Tensor, Tensor]  # questions (n, s) and answers (n, t), int64


@dataclass(frozen=True)
class Data:
    """A problem at one length, and the examples that judge, on the device."""

    problem: Problem
    length: int
    device: str
    held_out: Mapping[str, Examples]  # val, test, long, longer

    @property
    def train_size(self) -> int:
        return self.problem.train_size

    def epoch(self, number: int) -> Examples:
        """The training examples of an epoch, counted from 0."""
        return on_device(problems.epoch(self.problem, self.length, number), self.device)


def on_device(pair: problems.Pair, device: str) -> Examples:
    """numpy's arrays as tensors."""
    questions, answers = (torch.from_numpy(array).to(device) for array in pair)
    return questions, answers


@functools.lru_cache(maxsize=8)
def load(dataset_name: str, length: int, device: str) -> Data:
    """The problem of that name; its examples are drawn on the first call in a process."""
    problem = PROBLEMS[dataset_name]
    parts = {part: problems.held_out(problem, length, part) for part in problems.PARTS}
    return Data(problem, length, device, {part: on_device(pair, device) for part, pair in parts.items()})


def load_for(config: Mapping[str, Any], data_dir: str, device: str, *, sha256: str | None = None) -> Data:
    """The data of one trial. Nothing is read: the checksum, which names the generator, always fits."""
    return load(config["dataset"], config["length"], device)


def batches(
    data: Data, config: Mapping[str, Any], *, epoch: int, order: torch.Generator
) -> Iterator[Examples]:
    """Fresh questions and answers, in an order drawn from `order`; the last batch may be smaller."""
    questions, answers = data.epoch(epoch)
    index = torch.randperm(len(questions), generator=order).to(questions.device)
    for chosen in index.split(config["batch_size"]):
        yield trimmed(questions[chosen]), trimmed(answers[chosen])


def trimmed(tokens: Tensor) -> Tensor:
    """Without the columns in which there is only padding."""
    return tokens[:, : int((tokens != PAD).sum(dim=1).max())]


def begun(answers: Tensor) -> Tensor:
    """What the decoder sees of answers (b, t): BEGIN, and all tokens but the last, (b, t)."""
    return F.pad(answers[:, :-1], (1, 0), value=BEGIN)


def loss(model: Transformer, batch: Examples, config: Mapping[str, Any]) -> Tensor:
    """Mean cross-entropy per token, a scalar in nats, against smoothed labels (section 5.4)."""
    questions, answers = batch
    logits = model(questions, begun(answers))  # (b, t, v)
    smoothing = config["label_smoothing"]
    return F.cross_entropy(logits.mT, answers, ignore_index=PAD, label_smoothing=smoothing)


def learning_rate(config: Mapping[str, Any], step: int, steps_per_epoch: int) -> float:
    """Rises to `lr` over `warmup_steps`, then falls with the square root of the step (equation 3).

    The paper's own height is `lr` = (dim * warmup_steps)^-1/2.
    """
    share = (step + 1) / config["warmup_steps"]
    return float(config["lr"] * min(share, share**-0.5))


def judge(model: Transformer, data: Data, config: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy of whole answers and of their tokens (0..1), the loss per token (nats) without smoothing, and
    which test questions are answered right as a whole.

    `val` and `test` are of the greatest length in training, `long` of twice that.
    """
    accuracy = {part: judge_part(model, data.held_out[part], config) for part in problems.HELD_OUT}
    return {
        "val_acc": accuracy["val"][0],
        "val_token_acc": accuracy["val"][1],
        "val_loss": mean_loss(model, data.held_out["val"], config),
        "test_acc": accuracy["test"][0],
        "test_token_acc": accuracy["test"][1],
        "test_acc_long": accuracy["long"][0],
        "test_examples": len(accuracy["test"][2]),
        "test_right": packed(accuracy["test"][2].cpu().numpy()),
    }


def examine(model: Transformer, data: Data, config: Mapping[str, Any]) -> dict[str, float]:
    """What the model of the selected epoch makes of two and four times the length of its training (0..1)."""
    _, long, _ = judge_part(model, data.held_out["long"], config)
    longer, longer_tokens, _ = judge_part(model, data.held_out["longer"], config)
    return {"test_token_acc_long": long, "test_acc_longer": longer, "test_token_acc_longer": longer_tokens}


def judge_part(
    model: Transformer, examples: Examples, config: Mapping[str, Any]
) -> tuple[float, float, Tensor]:
    """The share of answers, and of their tokens with each END, that are decoded right; for each answer
    whether all of it is (n,).
    """
    right = known = 0
    whole = []
    for questions, answers in zip(*(part.split(JUDGE_BATCH) for part in examples), strict=True):
        written = decode(model, questions, config, longest=answers.shape[1])
        hits = (written == answers) & (answers != PAD)
        whole.append((written == answers).all(dim=1))
        right, known = right + int(hits.sum()), known + int((answers != PAD).sum())
    hits = torch.cat(whole)
    return int(hits.sum()) / len(hits), right / known, hits


def decode(model: Transformer, questions: Tensor, config: Mapping[str, Any], *, longest: int) -> Tensor:
    """The model's answers (b, longest), each with its END and then padding."""
    written = beam(model, questions, longest=longest, width=config["beam"])
    return F.pad(written.tokens, (0, longest - written.tokens.shape[1]), value=PAD)


def mean_loss(model: Transformer, examples: Examples, config: Mapping[str, Any]) -> float:
    """Cross-entropy per token in nats, each token given those before it."""
    total, known = 0.0, int((examples[1] != PAD).sum())
    for questions, answers in zip(*(part.split(JUDGE_BATCH) for part in examples), strict=True):
        logits = model(questions, begun(answers)).float()
        total += F.cross_entropy(logits.mT, answers, ignore_index=PAD, reduction="sum").item()
    return total / known


def example(config: Mapping[str, Any], batch: int) -> Examples:
    """A question of `length` random symbols and what the decoder sees of an answer with one token more."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 2 * config["length"] + 1)
    tokens = torch.randint(FIRST, config["num_classes"], shape, generator=generator)
    return tokens[:, : config["length"]], begun(tokens[:, config["length"] :])


def answer(model: Transformer, inputs: tuple[Tensor, ...], config: Mapping[str, Any]) -> Callable[[], object]:
    """Decodes an answer of `length` + 1 tokens with cached keys and values; which tokens does not matter."""
    questions, seen = inputs
    tokens = repeat(seen, "b t -> t (b w)", w=config["beam"])

    def decode_all() -> None:
        writer = Writer(model, questions, width=config["beam"])
        for token in tokens:
            writer.log_p()
            writer.write(token)

    return decode_all
