"""Regression on noisy sines: data, loss and judgement."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ADAM: Mapping[str, Any] = {}
tune = None  # a model is trained as it is initialised
examine: Callable[..., dict[str, Any]] | None = None
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Data:
    train: Batch
    val: Batch
    test: Batch

    @property
    def train_size(self) -> int:
        return len(self.train[0])


def load_for(config: Mapping[str, Any], data_dir: str, device: str, *, sha256: str | None = None) -> Data:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> Batch:
        x = 2 * math.pi * torch.rand(count, 1, generator=generator)
        noise = config["noise"] * torch.randn(count, 1, generator=generator)
        return x.to(device), (x.sin() + noise).to(device)

    return Data(part(256), part(128), part(128))


def batches(data: Data, config: Mapping[str, Any], *, epoch: int, order: torch.Generator) -> Iterator[Batch]:
    for chosen in torch.randperm(data.train_size, generator=order).split(config["batch_size"]):
        yield data.train[0][chosen], data.train[1][chosen]


def loss(model: nn.Module, batch: Batch, config: Mapping[str, Any]) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def learning_rate(config: Mapping[str, Any], step: int, steps_per_epoch: int) -> float:
    return float(config["lr"])


def judge(model: nn.Module, data: Data, config: Mapping[str, Any]) -> dict[str, float]:
    def r2(batch: Batch) -> float:
        return 1 - (F.mse_loss(model(batch[0]), batch[1]) / batch[1].var(unbiased=False)).item()

    return {"val_r2": r2(data.val), "test_r2": r2(data.test)}


def example(config: Mapping[str, Any], batch: int) -> tuple[Tensor, ...]:
    return (torch.linspace(0, 6, batch)[:, None],)


def answer(model: nn.Module, inputs: tuple[Tensor, ...], config: Mapping[str, Any]) -> Callable[[], object]:
    return functools.partial(model, *inputs)
