"""A language model on text: each token is predicted from those before it, and judged in bits per byte.

The text is seen through windows of `context` tokens, each of which begins anew, with a token of its own. What
judges is cut into windows without overlap, so that every byte counts once, however it is encoded.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnsweep.core.errors import UserError
from attnsweep.tasks.text import corpus
from attnsweep.tasks.text.decoder import Decoder
from attnsweep.tasks.text.encoding import Encoding, encoding_of

examine: Callable[..., dict[str, Any]] | None = None  # judged with each epoch
tune = None  # a model is trained as it is initialised
ADAM: Mapping[str, Any] = {"betas": (0.9, 0.95)}
NOTHING = -1  # in place of a token that is not predicted
JUDGED_TOKENS = 16_384  # at once
LAST_RATE = 0.1  # of the highest, in the last step
Batch = tuple[Tensor, Tensor]  # what the model sees (b, n), what it is to predict (b, n)


@dataclass(frozen=True)
class Data:
    """A text as tokens on the device: the training part's blocks one after another, and what judges, in
    windows (w, context), padded with NOTHING, with its bytes. An epoch's begin in `begins`..`latest`.
    """

    encoding: Encoding
    context: int
    tokens: Tensor  # of the training part, (n,)
    begins: Tensor  # of the windows of an epoch, (w,)
    latest: Tensor
    ends: Tensor  # of their blocks
    held_out: Mapping[str, tuple[Tensor, int]]

    @property
    def train_size(self) -> int:
        return len(self.begins)


def load_for(config: Mapping[str, Any], data_dir: str, device: str, *, sha256: str | None = None) -> Data:
    """The data of one trial. Raises UserError where the text is another one than that of the checksum."""
    name = config["dataset"]
    if sha256 is not None and corpus.checksum(name) != sha256:
        raise UserError(f"{name} has changed since the trial was planned; run the sweep again")
    return load(name, config["context"], config["encoding"], config["vocabulary"], device)


@functools.lru_cache(maxsize=8)
def load(name: str, context: int, encoding: str, vocabulary: int | None, device: str) -> Data:
    """See `load_for`."""
    coded, parts = encoding_of(encoding, name, vocabulary), corpus.parts(name)
    blocks = [coded.encode(block) for block in parts["train"]]
    places, first = [], 0
    for block in blocks:
        end = first + len(block)
        places += [(begin, max(first, end - context), end) for begin in range(first, end, context)]
        first = end
    flat = [token for block in blocks for token in block]
    held_out = {}
    for part in ("val", "test"):
        cut = windows([coded.encode(block) for block in parts[part]], context)
        held_out[part] = cut.to(device), sum(map(len, parts[part]))
    begins, latest, ends = torch.tensor(places, device=device).T
    return Data(coded, context, torch.tensor(flat, device=device), begins, latest, ends, held_out)


def windows(blocks: list[list[int]], context: int) -> Tensor:
    """Blocks of tokens cut into windows without overlap, (w, context), NOTHING behind the end of a block."""
    cut = [block[i : i + context] for block in blocks for i in range(0, len(block), context)]
    return torch.tensor([window + [NOTHING] * (context - len(window)) for window in cut])


def begun(answers: Tensor, begin: int) -> Tensor:
    """What the model sees of windows (b, n): what begins them, and all tokens but the last, (b, n)."""
    return F.pad(answers[:, :-1], (1, 0), value=begin).masked_fill(answers == NOTHING, begin)


def batches(data: Data, config: Mapping[str, Any], *, epoch: int, order: torch.Generator) -> Iterator[Batch]:
    """The windows of one epoch, shifted within their blocks and put in order by draws from `order`."""
    device, count = data.tokens.device, data.train_size
    shift = torch.randint(data.context, (count,), generator=order).to(device)
    index = torch.randperm(count, generator=order).to(device)
    begins = torch.minimum(data.begins + shift, data.latest)
    for chosen in index.split(config["batch_size"]):
        places = begins[chosen, None] + torch.arange(data.context, device=device)
        answers = data.tokens[places.clamp(max=len(data.tokens) - 1)]
        answers = answers.masked_fill(places >= data.ends[chosen, None], NOTHING)
        yield begun(answers, data.encoding.begin), answers


def loss(model: Decoder, batch: Batch, config: Mapping[str, Any]) -> Tensor:
    """Mean cross-entropy per token, a scalar in nats."""
    seen, answers = batch
    return F.cross_entropy(model(seen).mT, answers, ignore_index=NOTHING)


def learning_rate(config: Mapping[str, Any], step: int, steps_per_epoch: int) -> float:
    """Rises to `lr` over `warmup_steps`, then a cosine to a tenth (https://arxiv.org/abs/1608.03983)."""
    warmup, steps = config["warmup_steps"], config["epochs"] * steps_per_epoch
    if step < warmup:
        return float(config["lr"] * (step + 1) / warmup)
    share = (step - warmup) / max(1, steps - 1 - warmup)
    return float(config["lr"] * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * min(1.0, share))) / 2))


def judge(model: Decoder, data: Data, config: Mapping[str, Any]) -> dict[str, float]:
    """Bits per byte, the share of the bits that is saved (0..1), and nats per token on validation."""
    nats = {part: total_nats(model, answers, data) for part, (answers, _) in data.held_out.items()}
    bpb = {part: nats[part] / math.log(2) / data.held_out[part][1] for part in nats}
    tokens = int((data.held_out["val"][0] != NOTHING).sum())
    return {
        **{f"{part}_bpb": value for part, value in bpb.items()},
        **{f"{part}_saved": 1 - value / 8 for part, value in bpb.items()},
        "val_loss": nats["val"] / tokens,
    }


def total_nats(model: Decoder, answers: Tensor, data: Data) -> float:
    """What all tokens of windows (w, n) cost, each given those before it in its window."""
    total = 0.0
    for part in answers.split(max(1, JUDGED_TOKENS // data.context)):
        logits = model(begun(part, data.encoding.begin)).float()
        total += F.cross_entropy(logits.mT, part, ignore_index=NOTHING, reduction="sum").item()
    return total


def example(config: Mapping[str, Any], batch: int) -> tuple[Tensor]:
    """Windows of random tokens, (batch, context)."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(config["num_classes"], (batch, config["context"]), generator=generator),)


def answer(model: Decoder, inputs: tuple[Tensor, ...], config: Mapping[str, Any]) -> Callable[[], object]:
    """Writes a window token by token with cached keys and values; which tokens does not matter."""
    steps = inputs[0].split(1, dim=1)

    def write_all() -> None:
        caches = model.caches()
        for token in steps:
            model(token, caches)[:, -1].argmax(dim=-1)

    return write_all
