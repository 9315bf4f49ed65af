"""A planner of one's own before its training: it plans for one scene, then learns from two.

What a plan passes is to train: a planner that looks up a command where its table has no place, or whose plan
has no gradient or is NaN, is refused before anything starts.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnsweep.core.axes import Config
from attnsweep.core.errors import UserError, reason
from attnsweep.core.text import counted
from attnsweep.tasks.driving.records.batches import inputs_of
from attnsweep.tasks.driving.training import example

TRIED = 3  # scenes, one for each command
STEPS = 2  # of training: the second fails where a planner keeps the gradients of the first


@dataclass(frozen=True)
class Rehearsal:
    """What is tried, of a planner that sees by this sensor (None: the scanner)."""

    model: str
    sensor: str | None
    precision: str
    batch: int  # scenes in the step

    def __call__(self, model: nn.Module, device: str) -> None:
        """See `tasks.task.Rehearsal`. The step is tried where there are values."""
        model.eval()
        with self.refusals(1), torch.no_grad():
            model(*(one.to(device) for one in self.scenes(1)))
        if device == "meta" or not any(parameter.requires_grad for parameter in model.parameters()):
            return
        with self.refusals(self.batch):
            for _ in range(STEPS):
                self.step(model)

    @contextlib.contextmanager
    def refusals(self, number: int) -> Iterator[None]:
        """Raises UserError for whatever a planner raises on so many scenes."""
        try:
            yield
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's own class raises
            advice = "mend it"
            if isinstance(error, KeyError):
                advice = f"a sample holds {', '.join(inputs_of({'sensor': self.sensor}))}"
            scenes = counted(number, "scene")
            raise UserError(f"{self.model} fails on {scenes} ({reason(error)}); {advice}") from error

    def step(self, model: nn.Module) -> None:
        """A forward and a backward pass in training mode."""
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            plan = model(*self.scenes(self.batch)).plan
        if not plan.requires_grad:
            raise UserError(
                f"{self.model} returns plans without gradients, so it cannot learn; "
                "take torch.no_grad and detach out of its forward pass"
            )
        if not plan.isfinite().all():
            raise UserError(f"{self.model} plans NaN or infinities before it has learnt; mend it")
        plan.square().mean().backward()

    def scenes(self, number: int) -> tuple[Tensor, ...]:
        """What is sensed in scenes of different commands and speeds, the last with all values of a byte."""
        seen, route, command, ego_state = example({"sensor": self.sensor}, number)
        if number > 1:
            seen[-1] = torch.arange(seen[-1].numel()).remainder(256).to(seen.dtype).view_as(seen[-1])
        speeds = torch.arange(number, dtype=torch.float32)[:, None] * torch.tensor([5.0, 1.0, -1.0, 0.1, 0.0])
        return seen, route, (torch.arange(number) % 3).to(command.dtype), ego_state + speeds


def rehearsal_of(config: Config) -> Rehearsal:
    """The rehearsal of a configuration of one's own planner."""
    batch = min(TRIED, config["batch_size"])
    return Rehearsal(config["model"], config["sensor"], config["precision"], batch)
