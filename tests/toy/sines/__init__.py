"""Regression on noisy sines: the smallest task that is one, to show what a task must say of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep.core.axes import SHARED, Axis, Config, by_name, filled
from attnsweep.core.columns import FLOAT, Column
from attnsweep.core.cost import Cost
from attnsweep.core.source import Source
from attnsweep.nn.cost import linear
from attnsweep.tasks.task import Procedure, Ready, Task

if TYPE_CHECKING:
    from torch import nn

AXES = (Axis("noise", float, 0.1, "standard deviation of the noise on the sines", "", 0, 10),)
COLUMNS = tuple(
    Column(
        f"{part}_r2", FLOAT, "", f"sines: explained variance on the {part} part", "higher",
        per_epoch=True, over_seeds="mean", objective=part == "val", shown=("closing", "pick", "curve"),
    )
    for part in ("val", "test")
)  # fmt: skip
RECIPE = ("optimizer", "lr", "weight_decay", "batch_size", "epochs", "precision", "seed")


@dataclass(frozen=True)
class Sines(Ready):
    """Points of a sine, drawn by each worker."""

    name: str
    train_size: int = 256
    is_folder: bool = False

    def checksum(self, data_dir: Path) -> str:
        return f"sines {self.train_size}"


def complete(point: Mapping[str, object], model: str) -> Config:
    return filled(by_name(SHARED.values(), AXES), ("dim", "noise", *RECIPE), point) | {"dataset": "sines"}


def cost(config: Config) -> Cost:
    return linear(1, config["dim"]) + linear(config["dim"], 1)


def build(config: Config, source: Source | None) -> "nn.Module":
    from torch import nn

    return nn.Sequential(nn.Linear(1, config["dim"]), nn.Tanh(), nn.Linear(config["dim"], 1))


def procedure() -> Procedure:
    from attnsweep.tasks.sines import training

    return training


TASK = Task(
    name="sines",
    numerics=1,
    axes=AXES,
    columns=COLUMNS,
    models={"mlp": ("dim", "noise")},
    recipe=RECIPE,
    quality="r2",
    quality_name="explained variance",
    default_dataset="sines",
    dataset_names=("sines",),
    find={"sines": Sines("sines")}.get,
    complete=complete,
    cost=cost,
    build=build,
    procedure=procedure,
)
