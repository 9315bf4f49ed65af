"""How well a classifier answers: the usual measures, of the classes that it gives and the right ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

TOP = 5


@dataclass(frozen=True)
class Answers:
    """What a model gives for the images of one part: the loss, and for each image the most likely class, the
    right one, and whether that is among the TOP most likely ones (None where there are no more classes).
    """

    loss: float  # mean cross-entropy in nats
    given: Int64[Tensor, " n"]
    right: Int64[Tensor, " n"]
    in_top: Bool[Tensor, " n"] | None

    @property
    def hits(self) -> Bool[Tensor, " n"]:
        """For each image whether its class is the right one."""
        return self.given == self.right

    def measures(self, part: str) -> dict[str, float | None]:
        """The columns of quality of a part of the data, fractions 0..1."""
        return {
            f"{part}_acc": share(self.hits),
            f"{part}_balanced_acc": balanced_accuracy(self.given, self.right),
            f"{part}_macro_f1": macro_f1(self.given, self.right),
            f"{part}_top5_acc": None if self.in_top is None else share(self.in_top),
        }


def in_top(logits: Float[Tensor, "b k"], right: Int64[Tensor, " b"]) -> Bool[Tensor, " b"] | None:
    """Whether the right class is among the TOP most likely ones; None where there are no more than that."""
    if logits.shape[1] <= TOP:
        return None
    return (logits.topk(TOP, dim=1).indices == right[:, None]).any(dim=1)


def share(hits: Bool[Tensor, " n"]) -> float:
    """How many of all are hits."""
    return hits.sum().item() / len(hits)


def balanced_accuracy(given: Int64[Tensor, " n"], right: Int64[Tensor, " n"]) -> float:
    """The mean over the classes that occur of the share of their images that are recognised."""
    there, recognised, _ = counts(given, right)
    occurs = there > 0
    return (recognised[occurs] / there[occurs]).mean().item()


def macro_f1(given: Int64[Tensor, " n"], right: Int64[Tensor, " n"]) -> float:
    """The mean over classes that occur, or are given, of 2 tp / (2 tp + fp + fn)."""
    there, recognised, claimed = counts(given, right)
    occurs = there + claimed > 0
    return (2 * recognised[occurs] / (there + claimed)[occurs]).mean().item()


def counts(
    given: Int64[Tensor, " n"], right: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Of each class how many images there are, how many of them are recognised, how often it is given."""
    classes = int(torch.maximum(given.max(), right.max())) + 1
    there, recognised, claimed = (
        torch.bincount(some, minlength=classes).double() for some in (right, right[given == right], given)
    )
    return there, recognised, claimed
