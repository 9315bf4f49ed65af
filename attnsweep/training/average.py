"""The running average of a model's weights over training (Polyak and Juditsky 1992), which is judged and kept
instead of them.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

State = dict[str, Any]


class Average:
    """The exponential moving average of a model's parameters and of the statistics of its batch norms.

    The decay at step t, counted from 0, is min(decay, (1 + t) / (10 + t)), so that a short training forgets
    its beginning, too (Tan and Le 2019, as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.live = learnt(model)
        self.mean = [tensor.detach().clone() for tensor in self.live]

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average after a step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self.mean, [tensor.detach() for tensor in self.live], self.steps)
        self.steps += 1

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """A context in which the model's weights are the average."""
        live = [tensor.detach().clone() for tensor in self.live]
        fill(self.live, self.mean)
        try:
            yield
        finally:
            fill(self.live, live)

    def state(self) -> State:
        """Tensors and plain values, for a checkpoint."""
        return {"steps": self.steps, "mean": self.mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned. Raises ValueError where it is not of this model."""
        mean = state["mean"]
        if [one.shape for one in mean] != [one.shape for one in self.mean]:
            raise ValueError("its average is that of another model")
        if not all(bool(torch.isfinite(one).all()) for one in mean):
            raise ValueError("its average is not finite")
        fill(self.mean, mean)
        self.steps = int(state["steps"])


def learnt(model: nn.Module) -> list[torch.Tensor]:
    """The trained parameters of a model, and the running statistics of its batch norms."""
    trained = [one for one in model.parameters() if one.requires_grad and one.is_floating_point()]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    known = (one for norm in norms for one in (norm.running_mean, norm.running_var))
    return [*trained, *(one for one in known if one is not None)]


@torch.no_grad()
def fill(tensors: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    """Copies values into tensors."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
