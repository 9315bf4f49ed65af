"""A user's own model, or one of another library, before its training: it is tried on two images.

What a plan passes is to train: a model that returns a dict, five logits for ten classes, or NaN, that looks
up a pixel where a table has no place, or that keeps gradients from step to step, is refused before anything
starts, and the sentence says what it returned.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attnsweep.core.axes import Config
from attnsweep.core.errors import UserError, reason
from attnsweep.core.text import counted
from attnsweep.tasks import own
from attnsweep.tasks.images import datasets, libraries, space
from attnsweep.tasks.images.training import JUDGE_BATCH, normalisation, statistics

MOST_UNSEEN = 1 / 8  # of the side of an image that a library's model may leave out
TRIED = 2  # images: as few as batch normalisation can do with
STEPS = 2  # with each number of images: the second fails where a model keeps the gradients of the first


class Failed(Exception):
    """A model has failed on so many images; its cause is why."""


@dataclass(frozen=True)
class Rehearsal:
    """What is tried: a step's forward and backward pass with the images of a batch, and judging them."""

    model: str
    precision: str
    shape: tuple[int, int, int]  # of an image: channels, side, side
    num_classes: int
    labels: int  # classes that occur
    trained: tuple[int, ...]  # sizes of batches
    judged: tuple[int, ...]
    mean: tuple[float, ...]  # of the data, as it is normalised
    std: tuple[float, ...]
    whole: tuple[tuple[int, ...], tuple[int, ...]] = field(compare=False)  # batches as they will be

    def __call__(self, model: nn.Module, device: str) -> None:
        """See `tasks.task.Rehearsal`. A model that fails on few images is tried on as many as it will get."""
        try:
            self.attempt(model, device, self.trained, self.judged)
        except Failed as failure:
            try:
                self.attempt(model, device, *self.whole)
            except Failed:
                raise self.refusal(failure) from failure.__cause__

    def attempt(self, model: nn.Module, device: str, trained: Sequence[int], judged: Sequence[int]) -> None:
        """Judges and trains with batches of these sizes. Raises Failed where the model raises."""
        try:
            for number in judged:
                self.judge(model, number, device)
            for number in tuple(trained) * STEPS:
                self.step(model, number, device)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's own class raises
            raise Failed(number) from error

    def refusal(self, failure: Failed) -> UserError:
        """What is said of a model that fails."""
        error, number = failure.__cause__, failure.args[0]
        assert error is not None
        low, high = self.images(TRIED, "cpu").aminmax()
        remedy = f"mend it (pixels come as float32, normalised: from {low:.2f} to {high:.2f})"
        if not own.is_own(self.model):
            remedy = "give it other arguments, or another image_size or batch_size"
        return UserError(f"{self.model} fails on {counted(number, 'image')} ({reason(error)}); {remedy}")

    def judge(self, model: nn.Module, number: int, device: str) -> None:
        """A forward pass in evaluation mode."""
        model.eval()
        with torch.no_grad(), self.autocast(device), convolved(model) as sides:
            self.check_logits(model(self.images(number, device)), number, "")
        if sides and libraries.has(self.model):
            self.check_patches(*sides[0])

    def step(self, model: nn.Module, number: int, device: str) -> None:
        """A forward and a backward pass in training mode."""
        model.train()
        with self.autocast(device):
            logits = model(self.images(number, device))
            self.check_logits(logits, number, " in training")
            if not any(parameter.requires_grad for parameter in model.parameters()):
                return
            if not logits.requires_grad:
                raise UserError(
                    f"{self.model} returns logits without gradients, so it cannot learn; "
                    "take torch.no_grad and detach out of its forward pass"
                )
            loss = F.cross_entropy(logits, torch.arange(number, device=device) % self.labels)
        if device != "meta" and not loss.isfinite():
            raise UserError(f"{self.model} has a loss of {loss.item()} before it has learnt; mend its logits")
        loss.backward()

    def autocast(self, device: str) -> torch.autocast:
        """What a trial of this precision computes in."""
        half = self.precision == "bf16" and device != "meta"
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=half)

    def images(self, number: int, device: str) -> Float[Tensor, "number c s s"]:
        """Images of random pixels, as data of this range is normalised: every
        other pixel of the first is black or white, so that the ends of the range occur.
        """
        chance = torch.Generator("cpu").manual_seed(0)
        pixels = torch.randint(256, (number, *self.shape), generator=chance, device="cpu")
        pixels[0, ..., ::2] = 255 * (pixels[0, ..., ::2] > 127)
        factor, offset = normalisation(torch.tensor(self.mean), torch.tensor(self.std))
        return torch.addcmul(offset, pixels.float(), factor).to(device)

    def check_patches(self, layer: nn.Conv2d, side: int) -> None:
        """Raises UserError where patches leave out much at the margin: libraries round down."""
        size, padding = layer.kernel_size[0], layer.padding
        if layer.stride != layer.kernel_size or padding not in (0, (0, 0), "valid"):
            return
        if (lost := side % size) > MOST_UNSEEN * side:
            raise UserError(
                f"{self.model} sees {side - lost} of {side} pixels each way, in patches of {size}; use "
                f"image_size={side - lost} or {side - lost + size}, or patches that divide {side}"
            )

    def check_logits(self, answer: object, number: int, when: str) -> None:
        """Raises UserError where a model's answer is no tensor of logits (number, num_classes)."""
        wanted = (number, self.num_classes)
        if isinstance(answer, Tensor) and answer.shape == wanted and answer.is_floating_point():
            return
        raise UserError(
            f"{self.model} returns {described(answer)}{when}, for {counted(number, 'image')} of "
            f"{self.num_classes} classes; wanted is one tensor of logits of the shape {wanted}, of floating "
            "point"
        )


@contextlib.contextmanager
def convolved(model: nn.Module) -> Iterator[list[tuple[nn.Conv2d, int]]]:
    """A list that a forward pass fills with convolutions in their order, and the sides of what each reads."""
    found: list[tuple[nn.Conv2d, int]] = []

    def note(layer: Any, read: tuple[Tensor, ...]) -> None:
        found.append((layer, read[0].shape[-1]))

    with contextlib.ExitStack() as hooks:
        for part in model.modules():
            if isinstance(part, nn.Conv2d):  # a scripted module takes no hook
                hooks.enter_context(part.register_forward_pre_hook(note))
        yield found


def rehearsal_of(config: Config) -> Rehearsal:
    """The rehearsal of a configuration of one's own model, or of another library's."""
    dataset, side = space.image_set(config), config["image_size"]
    mean, std = dataset.mean, dataset.std
    if mean is None or std is None:  # of one's own: by a few images
        few = datasets.sample(dataset.name, side, config["unreadable"] == "skip")
        mean, std = (tuple(one.tolist()) for one in statistics(few))
    trained = sizes(dataset.trained_size, config["batch_size"])
    judged = sizes(dataset.val_size, JUDGE_BATCH) | sizes(dataset.test_size, JUDGE_BATCH)
    return Rehearsal(
        model=config["model"],
        precision=config["precision"],
        shape=(config["channels"], side, side),
        num_classes=config["num_classes"],
        labels=dataset.num_classes,
        trained=tried(trained),
        judged=tried(judged),
        mean=mean,
        std=std,
        whole=(tuple(sorted(trained)), tuple(sorted(judged))),
    )


def sizes(images: int, batch_size: int) -> set[int]:
    """The sizes of batches that so many images are cut into."""
    return {min(batch_size, images), images % batch_size or batch_size}


def tried(occurring: Iterable[int]) -> tuple[int, ...]:
    """The sizes of batches to try where these occur: two images; and one, where a batch of one occurs."""
    return tuple(sorted({min(TRIED, size) for size in occurring}, reverse=True))


def described(answer: object) -> str:
    """What a forward pass returned, in words: `a tuple of a tensor (2, 10) of float32 and nothing`."""
    if isinstance(answer, Tensor):
        return f"a tensor {tuple(answer.shape)} of {str(answer.dtype).removeprefix('torch.')}"
    if isinstance(answer, Mapping):
        parts = [f"{key!r}: {described(value)}" for key, value in answer.items()]
        return f"a {type(answer).__name__} of {', '.join(parts) or 'nothing'}"
    if isinstance(answer, list | tuple):
        return f"a {type(answer).__name__} of {' and '.join(map(described, answer)) or 'nothing'}"
    return "nothing" if answer is None else f"a {type(answer).__name__}"
