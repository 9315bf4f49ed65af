"""A trial's history so far: with the weights, it is all that its next attempt goes on from."""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from attnsweep.results.schema import OF_SELECTED
from attnsweep.results.store import Row
from attnsweep.tasks.registry import TASKS

Weights = dict[str, Any]  # a state_dict


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


@dataclass
class History:
    """The epochs of a trial, those of earlier attempts included, and the time that they took."""

    task: str
    curve: list[Row] = field(default_factory=list)  # the rows of `epochs`, from the first on
    reported: int = 0  # how many of them were in an event
    best_weights: Weights | None = None  # of the selected epoch, if they are needed
    kept: Row = field(default_factory=dict)  # columns that are kept for the selected epoch only
    examined: Row = field(default_factory=dict)  # the columns of `Procedure.examine`
    started_at: datetime = field(default_factory=now)  # the first attempt
    earlier_s: float = 0.0  # of training, in earlier attempts
    clock: float = field(default_factory=time.perf_counter)  # at the beginning of this one

    @property
    def train_s(self) -> float:
        """Seconds of wall clock until now, over all attempts."""
        return self.earlier_s + time.perf_counter() - self.clock

    @property
    def selected(self) -> Row:
        """The epoch of the highest quality on validation; of several the one with the least of the task's tie
        breaker, else the first.
        """
        task = TASKS[self.task]
        return max(self.curve, key=lambda one: (task.selecting(one), -one.get(task.tie_breaker, 0.0)))

    def add(self, epoch: Row) -> None:
        """Adds an epoch, with all its columns."""
        of_selected = {column.name: epoch[column.name] for column in OF_SELECTED if column.name in epoch}
        self.curve.append({name: value for name, value in epoch.items() if name not in of_selected})
        if self.selected is self.curve[-1]:
            self.kept = of_selected

    def keep_if_best(self, model: nn.Module) -> None:
        """Copies the model's weights if the last epoch is the selected one."""
        if self.selected is self.curve[-1]:
            self.best_weights = {name: copied(value) for name, value in model.state_dict().items()}

    def unreported(self) -> list[Row]:
        """The epochs that were in no event yet, including those of earlier attempts; marks them as
        reported.
        """
        self.reported, epochs = len(self.curve), self.curve[self.reported :]
        return epochs

    def state(self) -> dict[str, Any]:
        """Plain values and tensors for a checkpoint; the inverse of `from_state`."""
        return {
            "curve": [{**epoch, "finished_at": epoch["finished_at"].isoformat()} for epoch in self.curve],
            "best_weights": self.best_weights,
            "of_selected": self.kept,
            "train_s": self.train_s,
            "started_at": self.started_at.isoformat(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], task: str) -> "History":
        """The history in a checkpoint. Raises KeyError, ValueError and the like where there is none."""
        times = (datetime.fromisoformat(epoch["finished_at"]) for epoch in state["curve"])
        return cls(
            task,
            curve=[{**epoch, "finished_at": at} for epoch, at in zip(state["curve"], times, strict=True)],
            best_weights=state["best_weights"],
            kept=state.get("of_selected", {}),  # of an earlier version: nothing was
            started_at=datetime.fromisoformat(state["started_at"]),
            earlier_s=state["train_s"],
        )


def copied(value: Any) -> Any:
    """A copy of a state_dict's value: of a tensor on the CPU, of anything else a deep copy."""
    return value.cpu().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
