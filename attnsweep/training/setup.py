"""Sets a trial up: model, optimiser and data, by the procedure of its task."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attnsweep.core.containment import seed_all
from attnsweep.core.trial import Trial
from attnsweep.measuring.device import pick_device, placed, precision_of
from attnsweep.measuring.memory import PeakMemory
from attnsweep.nn.torch_private import spare_the_compiler
from attnsweep.tasks import own
from attnsweep.tasks.registry import TASKS, build, procedure
from attnsweep.tasks.task import Procedure, Tuning
from attnsweep.training import extra_state, kernels
from attnsweep.training.average import Average

CHECKPOINT_S = 1.0  # seconds of training since the last checkpoint, from which on the next is written


@dataclass(frozen=True)
class Options:
    """The folders of data and checkpoints (None: none are written), and the resources of a trial."""

    data_dir: str
    runs_dir: str | None = None
    cpu: float = 1
    gpu: float = 0
    keep_weights: bool = False  # of the selected epoch, beside the checkpoint
    checkpoint_s: float = CHECKPOINT_S


@dataclass(frozen=True)
class Setup:
    """The objects of a trial. They stay the same; model, optimiser and `order` change state as it is
    trained.
    """

    trial: Trial
    options: Options
    device: str
    task: Procedure
    data: Any
    memory: PeakMemory
    order: torch.Generator  # draws the order of examples
    model: nn.Module
    initial: extra_state.States  # attributes of the freshly initialised model
    params: int  # the number of trainable parameters
    optimizer: torch.optim.Optimizer | None  # None: a rule without parameters
    average: Average | None  # of the weights, judged instead of them; None: no average
    frozen: Sequence[nn.Module] = ()  # modules that stay in evaluation mode

    @property
    def config(self) -> Mapping[str, Any]:
        return self.trial.config

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.data.train_size / self.config["batch_size"])

    def layers(self) -> contextlib.AbstractContextManager[None]:
        """A context in which torch's layers run as fast as the device lets them."""
        return kernels.faster_layers() if self.device == "cpu" else contextlib.nullcontext()

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which the model computes in the trial's precision."""
        return precision_of(self.device, self.config["precision"])

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """A context in which the model has the weights that are judged and kept."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def train_mode(self) -> None:
        """Puts the model into training mode, except for frozen modules."""
        self.model.train()
        for part in self.frozen:
            part.eval()

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """A context without gradients, with the model in evaluation mode."""
        self.model.eval()
        # a user's own model may differentiate, or later train with what it computes here: no inference mode
        quick = torch.no_grad() if own.is_own(self.config["model"]) else torch.inference_mode()
        with quick, self.layers(), self.precision():
            yield


def prepare(trial: Trial, options: Options) -> Setup:
    """The setup of a trial, with a freshly initialised model; seeds the global generators.

    Raises UserError where its data or model are no longer available.
    """
    config = trial.config
    torch.set_num_threads(max(1, int(options.cpu)))
    device, task = pick_device(options.gpu), procedure(config["task"])
    data = task.load_for(config, options.data_dir, device, sha256=trial.data_sha256)
    memory = PeakMemory(device)
    seed_all(config["seed"])
    order = torch.Generator("cpu").manual_seed(config["seed"])
    model = placed(build(config, trial.source), config, device)
    params = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert params == trial.params or trial.source, (  # a user's own model may draw its shape
        f"the model has {params} parameters, its closed form {trial.params}"
    )
    decay = TASKS[config["task"]].averaging(config)
    tuning = (
        task.tune(model, config, trial.source) if task.tune else Tuning([(list(model.parameters()), 1.0)])
    )
    return Setup(
        trial=trial,
        options=options,
        device=device,
        task=task,
        data=data,
        memory=memory,
        order=order,
        model=model,
        initial=extra_state.attributes(model),
        params=params,
        optimizer=optimizer(tuning.groups, config, adam=task.ADAM) if params else None,
        average=Average(model, decay) if params and decay else None,
        frozen=tuning.frozen,
    )


def optimizer(
    groups: Sequence[tuple[Sequence[nn.Parameter], float]],
    config: Mapping[str, Any],
    *,
    adam: Mapping[str, Any],
) -> torch.optim.Optimizer:
    """The configuration's optimiser, fused where that supports all parameters. Each group has a factor on its
    learning rate; `adam` has the task's own settings.
    """
    spare_the_compiler()
    parameters = [parameter for some, _ in groups for parameter in some]
    described = [{"params": list(some), "lr_factor": factor} for some, factor in groups]
    recipe = {"lr": config["lr"], "weight_decay": config["weight_decay"]}
    recipe["fused"] = all(map(fuses, parameters))
    if config["optimizer"] == "sgd":
        return torch.optim.SGD(described, momentum=0.9, **recipe)
    kind = torch.optim.AdamW if config["optimizer"] == "adamw" else torch.optim.Adam
    return kind(described, **recipe, **adam)


def fuses(parameter: nn.Parameter) -> bool:
    """Whether the fused kernels support a parameter: real numbers, without gaps in memory. With gaps, as of
    every other column of a matrix, they overwrite what is in between (torch 2.14).
    """
    dense = parameter.layout is torch.strided and parameter.stride() == torch.empty_like(parameter).stride()
    return dense and parameter.is_floating_point()
