"""One epoch: the steps on all batches, then the judgement on validation and test."""

import math
import time
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import nn

from attnsweep.nn import torch_private
from attnsweep.results.store import Row
from attnsweep.tasks.registry import TASKS
from attnsweep.training.history import now
from attnsweep.training.setup import Setup

PROGRESS_S = 2.0  # between two events of progress: each makes the worker wait some 10 ms for the driver
FINITE_CHECK_STEPS = 50  # between two looks at the loss, which synchronise a GPU
Event = dict[str, Any]


class Diverged(Exception):
    """The loss is not finite."""


def train(setup: Setup, optimizer: torch.optim.Optimizer, *, epoch: int) -> Generator[Event, None, Row]:
    """Trains an epoch, counted from 0. Yields the trial's progress (0..1) from time to time; returns the
    columns of `epochs` that describe training. Raises Diverged.
    """
    setup.train_mode()
    config, size = setup.config, setup.data.train_size
    total, began = torch.zeros((), device=setup.device), time.perf_counter()
    reported_at = began
    for done, batch in enumerate(setup.task.batches(setup.data, config, epoch=epoch, order=setup.order), 1):
        set_rate(setup, optimizer, epoch * setup.steps_per_epoch + done - 1)
        total += step(setup, optimizer, batch) * len(batch[-1])
        if done % FINITE_CHECK_STEPS == 0:
            refuse_infinite(total, epoch)
        if time.perf_counter() - reported_at > PROGRESS_S:
            yield {"progress": (epoch + done / setup.steps_per_epoch) / config["epochs"]}
            reported_at = time.perf_counter()
    refuse_infinite(total, epoch)
    epoch_s = time.perf_counter() - began
    return {
        "lr": optimizer.param_groups[0]["lr"],
        "train_loss": total.item() / size,
        "epoch_s": epoch_s,
        "samples_per_s": size / epoch_s,
    }


def step(setup: Setup, optimizer: torch.optim.Optimizer, batch: Any) -> torch.Tensor:
    """One step on a batch; returns its mean loss, a scalar."""
    optimizer.zero_grad(set_to_none=True)
    with setup.layers():  # for the backward pass too: gradient checkpointing runs the forward pass again
        with setup.precision():
            loss = setup.task.loss(setup.model, batch, setup.config)
        loss.backward()
    for group in optimizer.param_groups:
        densify(group["params"])
    if norm := TASKS[setup.config["task"]].clip_norm(setup.config):
        nn.utils.clip_grad_norm_(setup.model.parameters(), norm)
    torch_private.step(optimizer)
    if setup.average:
        setup.average.update()
    return loss.detach()


def set_rate(setup: Setup, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Sets the learning rate of a step, counted from 0 over the whole training."""
    rate = setup.task.learning_rate(setup.config, step, setup.steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)  # without: of a checkpoint before there were groups


def refuse_infinite(total: torch.Tensor, epoch: int) -> None:
    """Raises Diverged where the sum of an epoch's losses is not finite."""
    if not math.isfinite(value := total.item()):
        raise Diverged(f"the loss was {value} in epoch {epoch + 1}; a lower lr may help")


def densify(parameters: Sequence[nn.Parameter]) -> None:
    """Makes sparse gradients, as of `nn.Embedding(sparse=True)`, dense, as Adam and the fused kernels
    need them.
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.layout is not torch.strided:
            parameter.grad = torch.zeros_like(parameter).add_(parameter.grad)


def judge(setup: Setup, *, epoch: int, effort: Row) -> Row:
    """The row of `epochs` for an epoch, counted from 0; `effort` has its columns that describe training."""
    began = time.perf_counter()
    with setup.judging():
        quality = setup.task.judge(setup.model, setup.data, setup.config)
    return {
        "trial_id": setup.trial.trial_id,
        "epoch": epoch + 1,
        **effort,
        **quality,
        "eval_s": time.perf_counter() - began,
        "finished_at": now(),
    }
