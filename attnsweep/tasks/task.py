"""The tasks: how a model is fed, trained and judged. A task is a module; `Task` says what it offers."""

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor


class Task(Protocol):
    """What training and measuring ask of a task; `config` is a trial's configuration in full."""

    ADAM: Mapping[str, Any]  # arguments of Adam and AdamW besides lr and weight decay
    CLIP_NORM: float | None  # the greatest norm of a step's gradient; None: it is taken as it is
    examine: Callable[..., dict[str, Any]] | None  # like `judge`, once, of the selected epoch

    def load_for(self, config: Mapping[str, Any], data_dir: str, device: str) -> Any:
        """The data of a trial, with `train_size`: the examples of an epoch."""

    def batches(
        self, data: Any, config: Mapping[str, Any], *, epoch: int, order: torch.Generator
    ) -> Iterator[tuple[Tensor, ...]]:
        """The batches of one epoch, counted from 0."""

    def loss(self, model: Any, batch: Any, config: Mapping[str, Any]) -> Tensor:
        """The mean loss over a batch, a scalar."""

    def learning_rate(self, config: Mapping[str, Any], step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0 over the whole training."""

    def judge(self, model: Any, data: Any, config: Mapping[str, Any]) -> dict[str, float]:
        """The columns of quality after an epoch, of a model in evaluation mode."""

    def quality(self, epoch: Mapping[str, Any]) -> float:
        """What selects an epoch, of its columns: the more the better. Raises KeyError where they lack it."""

    def example(self, config: Mapping[str, Any], batch: int) -> tuple[Tensor, ...]:
        """Fixed inputs of one forward pass of `batch` examples."""

    def answer(
        self, model: Any, inputs: tuple[Tensor, ...], config: Mapping[str, Any]
    ) -> Callable[[], object]:
        """What is timed: a call that makes the model answer `inputs`, as whoever uses it would."""

    def tokens(self, config: Mapping[str, Any]) -> int | None:
        """The tokens that one answer is decoded into; None where it comes at once."""


@functools.cache
def task(name: str) -> Task:
    """The task of that name, imported when it is first wanted: driving alone takes a second."""
    return cast(Task, importlib.import_module(f"attnsweep.tasks.{name}.training"))
