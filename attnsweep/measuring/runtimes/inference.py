"""One forward pass that a runtime is to take over."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attnsweep.tasks.registry import TASKS, procedure

Call = Callable[[], object]


@dataclass(frozen=True)
class Inference:
    """A model in evaluation mode, the fixed inputs that it answers, both on the device, and how it is run.

    For int8, `calibration` are the training images (n, c, s, s), normalised, whose activations set its
    scales; None: those of `inputs`, which will do for a latency.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    config: Mapping[str, Any]
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    calibration: Tensor | None = None

    @property
    def tokens(self) -> int | None:
        """The tokens that the answer is decoded into; None where it is one forward pass."""
        return TASKS[self.config["task"]].decoded(self.config)

    def answer(self, model: nn.Module | None = None) -> Call:
        """What is timed: a call that has the model, or another one in its place, answer the inputs."""
        answering = self.model if model is None else model
        return procedure(self.config["task"]).answer(answering, self.inputs, self.config)

    def cast(self) -> "Inference":
        """In its precision. In bf16 with a copy of the model whose weights are cast once, not in every call
        as autocast does; integers stay as they are.
        """
        if self.precision == "fp32":
            return self
        half = torch.bfloat16
        inputs = tuple(one.to(half) if one.is_floating_point() else one for one in self.inputs)
        return replace(self, model=copy.deepcopy(self.model).to(half), inputs=inputs)
