"""What a checkpoint must be before a trial goes on from it.

Loading runs no code of its (`weights_only`), but a file that is damaged, made up or of another trial may hold
numbers that would end as a row.
"""

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from attnsweep.core.columns import FLOAT
from attnsweep.results.schema import EPOCHS, SCHEMAS

OF_OPTIMIZER = ("lr", "initial_lr", "params")  # what may differ from a new one: the rate is set in every step
FINITE = tuple(column.name for column in EPOCHS if column.type == FLOAT)


def read(content: bytes, device: str) -> dict[str, Any]:
    """What a checkpoint holds. Raises what zipfile and torch raise, and ValueError where a byte has changed:
    the checksums are there, but torch does not look at them.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} in it is damaged")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    return state


def check(
    state: Mapping[str, Any], *, trial_id: str, epochs: int, model: nn.Module, settings: list[dict[str, Any]]
) -> None:
    """Raises ValueError where a state is none that a trial of so many epochs can have left before its end;
    `model` is the freshly made one, `settings` are the parameter groups of its optimiser.
    """
    check_curve(state["curve"], trial_id=trial_id, epochs=epochs)
    best = state["best_weights"] or state["model"]
    if shapes(best) != shapes(state["model"]):
        raise ValueError("its best weights are those of another model")
    masks = {name for name, value in model.state_dict().items() if not is_finite(value)}  # of attention, say
    weights = [value for part in (state["model"], best) for name, value in part.items() if name not in masks]
    if not all(map(is_finite, [*weights, *tensors(state["optimizer"]["state"])])):
        raise ValueError("its weights are not finite")
    theirs = [group_of(group) for group in state["optimizer"]["param_groups"]]
    if theirs != [group_of(group) for group in settings]:
        raise ValueError("its optimiser has other settings")
    if not isinstance(state["train_s"], float) or not 0 <= state["train_s"] < math.inf:
        raise ValueError(f"its train_s is {state['train_s']!r}")


def check_curve(curve: list[dict[str, Any]], *, trial_id: str, epochs: int) -> None:
    """Raises ValueError where the learning curve is not that of the first epochs of the trial."""
    if not 0 < len(curve) < epochs or [epoch["epoch"] for epoch in curve] != [*range(1, len(curve) + 1)]:
        raise ValueError(f"its epochs are not the first of {epochs}")
    if any(epoch["trial_id"] != trial_id for epoch in curve):
        raise ValueError("it is that of another trial")
    schema = SCHEMAS["epochs"]
    for epoch in curve:
        if strange := epoch.keys() - set(schema.names):
            raise ValueError(f"its curve has a column {min(strange)}")
        numbers = {key: value for key, value in epoch.items() if key != "finished_at"}
        pa.Table.from_pylist([numbers], schema=pa.schema([schema.field(key) for key in numbers]))
        if not all(math.isfinite(numbers.get(key) or 0) for key in FINITE):
            raise ValueError("its curve has numbers that are not finite")


def group_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a parameter group that never change."""
    return {key: value for key, value in group.items() if key not in OF_OPTIMIZER}


def shapes(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of each weight; the type of what a model keeps beside them."""
    return {name: getattr(weight, "shape", type(weight)) for name, weight in weights.items()}


def is_finite(value: Any) -> bool:
    """Whether all numbers of a tensor are finite; what is no tensor has none that are not."""
    return not isinstance(value, torch.Tensor) or bool(torch.isfinite(value).all())


def tensors(part: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a nest of dicts."""
    if isinstance(part, torch.Tensor):
        yield part
    for value in part.values() if isinstance(part, Mapping) else ():
        yield from tensors(value)
