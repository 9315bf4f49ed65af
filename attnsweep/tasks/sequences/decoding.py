"""How a transformer writes: greedily, or with the beam search of "Attention Is All You Need" (section 6.1).

A target begins with BEGIN and ends with END. What is written leaves out BEGIN, has END, then padding. Neither
padding nor BEGIN is ever chosen. Of equally good choices the first is taken: the hypothesis that was better
before, then the lower token id. `cached=False` computes all earlier tokens anew for each, with the same
result. Shapes: b examples, n source tokens, t written tokens, w hypotheses in a beam, v the vocabulary.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from attnsweep.nn.kernels import padding_mask
from attnsweep.tasks.sequences.problems import BEGIN, END, PAD
from attnsweep.tasks.sequences.transformer import Transformer


@dataclass(frozen=True)
class Written:
    """Token ids (b, t), and the sum (b,) of their log-probabilities in nats, up to and with END."""

    tokens: Int[Tensor, "b t"]
    log_p: Float[Tensor, " b"]


class Writer:
    """Targets in the making: token ids (rows, 1 + t) after BEGIN, and what is needed to choose the next."""

    def __init__(self, model: Transformer, source: Tensor, *, width: int = 1, cached: bool = True) -> None:
        """Each source (b, n) gives `width` rows, one after another."""
        self.model, self.caches = model, model.caches() if cached else None
        self.memory = repeat(model.encode(source), "b n d -> (b w) n d", w=width)
        self.memory_mask = repeat(padding_mask(source, padding=PAD), "b 1 n -> (b w) 1 n", w=width)
        self.tokens = source.new_full((len(self.memory), 1), BEGIN)

    @property
    def ended(self) -> Tensor:
        """Which rows are finished (rows,)."""
        return (self.tokens == END).any(dim=1)

    def log_p(self) -> Tensor:
        """Log-probabilities (rows, v) of the next token. After the end they are 0 for padding, else -inf."""
        logits = self.model.decode(
            self.tokens, self.memory, memory_mask=self.memory_mask, caches=self.caches
        )[:, -1].float()
        logits[:, [PAD, BEGIN]] = -torch.inf
        after_end = torch.full_like(logits[0], -torch.inf).index_fill(0, self.tokens.new_tensor([PAD]), 0)
        return torch.where(self.ended[:, None], after_end, logits.log_softmax(dim=-1))

    def write(self, tokens: Tensor) -> None:
        """Appends one token (rows,) to each row."""
        self.tokens = torch.cat([self.tokens, tokens[:, None]], dim=1)

    def choose(self, rows: Tensor) -> None:
        """Goes on with these rows; a row may only take the place of one with the same source."""
        self.tokens = self.tokens[rows]
        for own, _ in self.caches or ():  # of the encoder's output all rows of a source hold the same
            own.reorder(rows)


@torch.inference_mode()
def greedy(model: Transformer, source: Int[Tensor, "b n"], *, longest: int, cached: bool = True) -> Written:
    """Takes the most probable token each time, until each target has ended or has `longest` tokens.

    `source` (b, n); the model is best in evaluation mode.
    """
    writer = Writer(model, source, cached=cached)
    total = torch.zeros(len(source), device=source.device)
    while writer.tokens.shape[1] <= longest and not writer.ended.all():
        log_p, token = writer.log_p().max(dim=-1)
        writer.write(token)
        total += log_p
    return Written(writer.tokens[:, 1:], total)


@torch.inference_mode()
def beam(
    model: Transformer,
    source: Int[Tensor, "b n"],
    *,
    longest: int,
    width: int = 4,
    alpha: float = 0.6,
    cached: bool = True,
) -> Written:
    """Keeps the `width` best hypotheses, finished or not, until all are finished or have `longest` tokens;
    returns the best. Width 1 is `greedy`.

    Best is the log-probability divided by ((5 + l) / 6)^alpha, l being the number of tokens with END
    (https://arxiv.org/abs/1609.08144, section 7, without coverage).
    """
    if width == 1:  # by sums, rounding would make equal what differs by little
        return greedy(model, source, longest=longest, cached=cached)
    writer = Writer(model, source, width=width, cached=cached)
    first = torch.arange(len(source), device=source.device)[:, None] * width
    total = torch.full((len(source), width), -torch.inf, device=source.device)
    total[:, 0] = 0  # at the start all hypotheses are the same one
    while writer.tokens.shape[1] <= longest and not writer.ended.all():
        log_p = rearrange(writer.log_p(), "(b w) v -> b w v", w=width)
        lengths = (writer.tokens != PAD).sum(dim=1) - writer.ended.int()  # with the next token
        penalty = rearrange(((5 + lengths) / 6) ** alpha, "(b w) -> b w 1", w=width)
        totals = rearrange(total[..., None] + log_p, "b w v -> b (w v)")
        scores = rearrange((total[..., None] + log_p) / penalty, "b w v -> b (w v)")
        chosen = scores.argsort(dim=-1, descending=True, stable=True)[:, :width]  # topk takes any of a tie
        total = totals.gather(1, chosen)
        writer.choose((first + chosen // log_p.shape[-1]).flatten())
        writer.write((chosen % log_p.shape[-1]).flatten())
    best = rearrange(writer.tokens[:, 1:], "(b w) t -> b w t", w=width)[:, 0]
    return Written(best, total[:, 0])
