"""What computes, and how a model lies on it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from attnsweep.tasks import own
from attnsweep.tasks.registry import AXES


def pick_device(gpu: float = 0) -> str:
    """`cuda` for who has a share of a GPU, else `mps` where there is one, else `cpu`."""
    if gpu > 0 and torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def placed(model: nn.Module, config: Mapping[str, Any], device: str) -> nn.Module:
    """The model on the device, in the memory format that serves built-in models; one of the user's own stays
    in its own: a `view` in its forward pass may not be compatible with another.
    """
    if own.is_own(config["model"]):
        model.to(device)
        return model
    return model.to(device).to(memory_format=torch.channels_last)


def precision_of(device: str, precision: str) -> torch.autocast:
    """The context that computes in `bf16` by autocast, or in `fp32`. Raises UserError for anything else."""
    half = AXES["precision"].check(precision) == "bf16"
    return torch.autocast(device, dtype=torch.bfloat16, enabled=half)


@contextlib.contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """torch computes with so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synchronise_of(device: str) -> Callable[[], object]:
    """What waits until the device has done its work."""
    call: Callable[[], object] = torch.get_device_module(device).synchronize
    return call
