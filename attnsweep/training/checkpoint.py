"""Checkpoints: where they lie, what they hold, and what they must be before a trial goes on from one.

Loading one runs no code of it (`weights_only`), but a file that is damaged, made up or of another trial may
hold numbers that would end as a row.
"""

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from attnsweep.core.columns import FLOAT
from attnsweep.core.trial import Trial
from attnsweep.results import storage
from attnsweep.results.schema import EPOCHS, OF_SELECTED, SCHEMAS
from attnsweep.training import extra_state
from attnsweep.training.history import History
from attnsweep.training.setup import Options, Setup

OF_OPTIMIZER = ("lr", "initial_lr", "params")  # what may differ from a new one: the rate is set in every step
FINITE = tuple(column.name for column in EPOCHS if column.type == FLOAT)


def checkpoint_path(trial: Trial, options: Options) -> str | None:
    """The path or URI of the trial's checkpoint; None where it leaves none."""
    return storage.below(options.runs_dir, f"{trial.trial_id}/checkpoint.pt") if options.runs_dir else None


def weights_path(runs_dir: str | Path, trial_id: str) -> str:
    """The path or URI of the weights of a trial's selected epoch, if they were kept: a state_dict on the
    CPU.
    """
    return storage.below(runs_dir, f"{trial_id}/weights.pt")


def write(state: Mapping[str, Any], path: str) -> None:
    """Writes plain values and tensors to a path or URI, whole or not at all. Raises OSError."""
    content = io.BytesIO()
    torch.save(state, content)
    storage.write(path, content.getvalue())


def read(content: bytes, device: str) -> dict[str, Any]:
    """What `write` has written, tensors on the device. Raises what zipfile and torch raise, and ValueError
    where a byte has changed: the checksums are there, but torch does not look at them.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} in it is damaged")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    return state


def state(setup: Setup, optimizer: torch.optim.Optimizer, history: History) -> dict[str, Any]:
    """All that the next attempt of a trial goes on from, in plain values and tensors."""
    return {
        "model": setup.model.state_dict(),
        "buffers": extra_state.nonpersistent_buffers(setup.model),
        "kept": extra_state.changed(setup.initial, extra_state.attributes(setup.model)),
        "optimizer": optimizer.state_dict(),
        "average": setup.average.state() if setup.average else None,
        "order": setup.order.get_state(),
        "rng": extra_state.generators(),
        "cuda_rng": torch.cuda.get_rng_state() if setup.device == "cuda" else None,
        **history.state(),
    }


def restore(setup: Setup, state: Mapping[str, Any]) -> History:
    """Sets model, optimiser and generators to what they were when `state` was taken; returns the history.

    Raises KeyError, RuntimeError, ValueError and the like where it does not fit.
    """
    assert setup.optimizer is not None, "what learns nothing leaves no checkpoint"
    settings = setup.optimizer.param_groups
    epochs = setup.config["epochs"]
    check(state, trial_id=setup.trial.trial_id, epochs=epochs, model=setup.model, settings=settings)
    setup.model.load_state_dict(state["model"])
    for name, buffer in state["buffers"].items():
        setup.model.get_buffer(name).copy_(buffer)
    extra_state.set_attributes(setup.model, state["kept"])
    setup.optimizer.load_state_dict(state["optimizer"])
    if setup.average:
        setup.average.restore(state["average"])
    setup.order.set_state(state["order"].cpu())
    extra_state.set_generators(state["rng"])
    if setup.device == "cuda":
        torch.cuda.set_rng_state(state["cuda_rng"].cpu())
    return History.from_state(state, setup.config["task"])


def check(
    state: Mapping[str, Any], *, trial_id: str, epochs: int, model: nn.Module, settings: list[dict[str, Any]]
) -> None:
    """Raises ValueError where a state is none that a trial of so many epochs can have left before its end;
    `model` is the freshly made one, `settings` are the parameter groups of its optimiser.
    """
    check_curve(state["curve"], trial_id=trial_id, epochs=epochs)
    check_kept(state.get("of_selected", {}))
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


def check_kept(kept: Mapping[str, Any]) -> None:
    """Raises ValueError where something else is kept of the selected epoch than its columns."""
    if strange := kept.keys() - {column.name for column in OF_SELECTED}:
        raise ValueError(f"it keeps a column {min(strange)}")
    schema = SCHEMAS["trials"]
    pa.Table.from_pylist([dict(kept)], schema=pa.schema([schema.field(key) for key in kept]))


def group_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a parameter group that never change."""
    return {key: value for key, value in group.items() if key not in OF_OPTIMIZER}


def shapes(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The shape of each weight; the type of what else a state_dict holds."""
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
