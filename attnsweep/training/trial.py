"""One trial from start to finish: an ordinary generator without Ray, to be stepped through in a debugger.

    for event in run(trial, Options(data_dir="data")): ...

It yields a dict per epoch, with the epoch's row and the trial's row so far, and now and then one with its
progress. The last has `status`; whatever goes wrong inside the trial ends as a status, not as an exception.
"""

import contextlib
import copy
import io
import logging
import math
import statistics
import time
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnsweep.core.containment import contained, seed_all
from attnsweep.core.errors import reason
from attnsweep.core.trial import Trial
from attnsweep.measuring import measure
from attnsweep.results import provenance, storage
from attnsweep.results.schema import JUDGED
from attnsweep.results.store import Row
from attnsweep.tasks import own
from attnsweep.tasks.registry import TASKS, build, procedure
from attnsweep.training import beside_weights, checkpoint, kernels

PROGRESS_S = 2.0  # an event costs the worker some 10 ms of waiting for the driver
CHECKPOINT_S = 1.0  # an epoch is checkpointed if that much training would be lost
SAVES = 20.0  # ... or, where a checkpoint takes long to write, that many times as long: 5 % of the training
FINITE_CHECK_STEPS = 50  # looking at the loss makes a GPU wait
Event = dict[str, Any]
log = logging.getLogger("attnsweep")


@dataclass(frozen=True)
class Options:
    """Where a trial reads and checkpoints (None: nowhere), and what it may take."""

    data_dir: str
    runs_dir: str | None = None
    cpu: float = 1
    gpu: float = 0
    keep_weights: bool = False  # of the selected epoch, beside the checkpoint
    checkpoint_s: float = CHECKPOINT_S


class Diverged(Exception):
    """The loss is not finite."""


def run(trial: Trial, options: Options) -> Iterator[Event]:
    """Trains and judges one trial; see the module. Resumes from its checkpoint if there is one.

    What a user's own model changes in the process, such as torch's default dtype, holds for its trial only.
    """
    return contained(events(trial, options))


def events(trial: Trial, options: Options) -> Generator[Event]:
    """See `run`."""
    training = None
    try:
        training = start(trial, options)
        yield from training.epochs()
        training.examine()
        training.leave_weights()
        yield {"status": "done", "row": training.row(), "curve": training.unreported()}
    except Diverged as error:
        assert training is not None
        yield {
            "status": "diverged",
            "row": {**training.row(), "error": str(error)},
            "curve": training.unreported(),
        }
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a user's own model may end the program, too
        row = training.row() if training else trial.row()
        log.debug("trial %s failed\n%s", trial.trial_id, traceback.format_exc())
        yield {"status": "failed", "row": {**row, "error": f"{reason(error)} ({location_of(error)})"}}


def start(trial: Trial, options: Options) -> "Training":
    """The training of a trial, from its checkpoint where one can be read, else from the beginning."""
    path, training = checkpoint_path(trial, options), Training(trial, options)
    if path is None:
        return training
    try:
        training.restore(checkpoint.read(storage.read(path), training.device))
        return training
    except FileNotFoundError:
        return training
    except Exception as error:  # torn, foreign or hostile: weights_only runs no code of it
        log.warning("skipped the checkpoint %s, which cannot be read (%s)", path, reason(error))
        return Training(trial, options)


class Training:
    """The state of one trial's training: everything that a checkpoint holds."""

    def __init__(self, trial: Trial, options: Options) -> None:
        self.clock, self.train_s, self.started_at = time.perf_counter(), 0.0, now()
        self.trial, self.options, self.config = trial, options, trial.config
        self.curve: list[Row] = []
        self.best_weights: dict[str, torch.Tensor] | None = None  # kept only where they are wanted
        self.examined: Row = {}
        self.reported = 0
        self.warning: dict[str, str] = {}  # travels with the next events
        torch.set_num_threads(max(1, int(options.cpu)))
        self.device = measure.pick_device(options.gpu)
        self.task = procedure(self.config["task"])
        self.data = self.task.load_for(self.config, options.data_dir, self.device, sha256=trial.data_sha256)
        self.memory = measure.PeakMemory(self.device)
        seed_all(self.config["seed"])
        self.order = torch.Generator("cpu").manual_seed(self.config["seed"])
        self.model = measure.placed(build(self.config, trial.source), self.config, self.device)
        self.layers = kernels.faster_layers if self.device == "cpu" else contextlib.nullcontext
        self.params = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        assert self.params == trial.params or trial.source, (  # a user's own model may draw its shape
            f"the model has {self.params} parameters, its closed form {trial.params}"
        )
        self.kept = beside_weights.kept(self.model)
        self.learns = self.params > 0
        if self.learns:
            self.optimizer = optimizer(self.model, self.config, adam=self.task.ADAM)
            self.steps = math.ceil(self.data.train_size / self.config["batch_size"])  # of an epoch

    def epochs(self) -> Iterator[Event]:
        """Trains the epochs that are left. Raises Diverged."""
        saved_at, wait = time.perf_counter(), self.options.checkpoint_s
        while len(self.curve) < self.config["epochs"]:
            effort: Row = {}  # a rule that learns nothing is judged as it is
            if self.learns:
                effort = yield from self._train()
            self.curve.append(self._judge(effort))
            self._keep_best()
            if len(self.curve) == self.config["epochs"]:
                return  # the last epoch travels with the final event
            if time.perf_counter() - saved_at > wait:
                wait = self.options.checkpoint_s * max(1, SAVES * self._save())
                saved_at = time.perf_counter()
            quality = self.task.quality(self.curve[-1])
            yield {
                **{
                    "epoch": len(self.curve),
                    "quality": quality,
                    "row": self.row(),
                    "curve": self.unreported(),
                },
                **self.warning,
            }

    def unreported(self) -> list[Row]:
        """The epochs that were not reported yet, and count as reported from now on; the first time also
        those of earlier attempts.
        """
        self.reported, epochs = len(self.curve), self.curve[self.reported :]
        return epochs

    def _train(self) -> Generator[Event, None, Row]:
        """One epoch's steps; returns the columns of the epoch that tell of them."""
        self.model.train()
        done, config = len(self.curve), self.config
        total, began = torch.zeros((), device=self.device), time.perf_counter()
        reported_at = began
        batches = self.task.batches(self.data, config, epoch=done, order=self.order)
        for step, batch in enumerate(batches, 1):
            self._set_rate(done * self.steps + step - 1)
            total += self._step(batch) * len(batch[-1])
            if step % FINITE_CHECK_STEPS == 0:
                self._check_finite(total)
            if time.perf_counter() - reported_at > PROGRESS_S:
                yield {"progress": (done + step / self.steps) / config["epochs"]}
                reported_at = time.perf_counter()
        self._check_finite(total)
        epoch_s = time.perf_counter() - began
        return {
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": total.item() / self.data.train_size,
            "epoch_s": epoch_s,
            "samples_per_s": self.data.train_size / epoch_s,
        }

    def _step(self, batch: Any) -> torch.Tensor:
        """One step on a batch; returns its mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.layers():  # backwards too: what is checkpointed runs forwards once more
            with measure.precision_of(self.device, self.config["precision"]):
                loss = self.task.loss(self.model, batch, self.config)
            loss.backward()
        for group in self.optimizer.param_groups:
            densify(group["params"])
        if self.task.CLIP_NORM:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.task.CLIP_NORM)
        self.optimizer.step()
        return loss.detach()

    def _set_rate(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.task.learning_rate(self.config, step, self.steps)

    def _check_finite(self, total: torch.Tensor) -> None:
        if not math.isfinite(value := total.item()):
            raise Diverged(f"the loss was {value} in epoch {len(self.curve) + 1}; a lower lr may help")

    def _judge(self, effort: Row) -> Row:
        """The row of the epoch whose training took this effort."""
        began = time.perf_counter()
        with self._judging():
            quality = self.task.judge(self.model, self.data, self.config)
        return {
            "trial_id": self.trial.trial_id,
            "epoch": len(self.curve) + 1,
            **effort,
            **quality,
            "eval_s": time.perf_counter() - began,
            "finished_at": now(),
        }

    @contextlib.contextmanager
    def _judging(self) -> Iterator[None]:
        """The model in evaluation mode, as it is judged."""
        self.model.eval()
        # a user's own model may train with what it computes here, or differentiate: no inference mode for it
        quick = torch.no_grad() if own.is_own(self.config["model"]) else torch.inference_mode()
        with quick, self.layers(), measure.precision_of(self.device, self.config["precision"]):
            yield

    @property
    def selected(self) -> Row:
        """The epoch of the highest quality on validation; of several the one that its task's tie breaker
        prefers, else the first.
        """
        tie_breaker = TASKS[self.config["task"]].tie_breaker
        return max(self.curve, key=lambda row: (self.task.quality(row), -row.get(tie_breaker, 0.0)))

    def _keep_best(self) -> None:
        wanted = self.options.keep_weights or self.task.examine is not None
        if wanted and self.selected is self.curve[-1]:
            self.best_weights = {name: copied(value) for name, value in self.model.state_dict().items()}

    def examine(self) -> None:
        """Judges what is judged once: the model of the selected epoch."""
        if self.task.examine is None:
            return
        self.model.load_state_dict(self.best_weights or {})
        with self._judging():
            self.examined = self.task.examine(self.model, self.data, self.config)

    def leave_weights(self) -> None:
        """Writes the weights of the selected epoch where they are wanted."""
        if self.options.keep_weights and self.best_weights and self.options.runs_dir:
            write_whole(self.best_weights, weights_path(self.options.runs_dir, self.trial.trial_id))

    def row(self) -> Row:
        """The trial's row, as far as it has come."""
        row = self.trial.row() | {"params": self.params}
        row |= provenance.worker(self.device, threads=torch.get_num_threads())
        row |= {"started_at": self.started_at, "finished_at": now(), "peak_mem_mb": self.memory.mb()}
        row["train_s"] = self.train_s + time.perf_counter() - self.clock
        if not self.curve:
            return row
        best = self.selected
        row |= {column.name: best[column.name] for column in JUDGED if column.name in best} | self.examined
        if "test_acc" in best:
            row["test_acc_best"] = max(epoch["test_acc"] for epoch in self.curve)
        row["best_epoch"] = best["epoch"]
        if self.learns:
            row["train_loss"] = self.curve[-1]["train_loss"]
            for name in ("epoch_s", "samples_per_s"):
                row[name] = statistics.median(epoch[name] for epoch in self.curve)
        return row

    def _save(self) -> float:
        """Writes the checkpoint, plain values and tensors only; returns the seconds that it took. One that
        cannot be written is a warning: it only spares time.
        """
        path, began = checkpoint_path(self.trial, self.options), time.perf_counter()
        if path is None or not self.learns:
            return 0.0
        state = {
            "model": self.model.state_dict(),
            "buffers": beside_weights.passing_buffers(self.model),
            "kept": beside_weights.changes(self.kept, beside_weights.kept(self.model)),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "rng": beside_weights.global_generators(),
            "cuda_rng": torch.cuda.get_rng_state() if self.device == "cuda" else None,
            "curve": [{**epoch, "finished_at": epoch["finished_at"].isoformat()} for epoch in self.curve],
            "train_s": self.train_s + time.perf_counter() - self.clock,
            "started_at": self.started_at.isoformat(),
            "best_weights": self.best_weights,
        }
        try:
            write_whole(state, path)
            self.warning = {}
        except OSError as error:
            self.warning = {"warning": f"checkpoints cannot be written ({storage.short(error)})"}
        return time.perf_counter() - began

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to where a checkpoint was written.

        Raises KeyError, RuntimeError and the like where it does not fit.
        """
        checkpoint.check(
            state,
            trial_id=self.trial.trial_id,
            epochs=self.config["epochs"],
            model=self.model,
            settings=self.optimizer.param_groups,
        )
        self.model.load_state_dict(state["model"])
        for name, buffer in state["buffers"].items():
            self.model.get_buffer(name).copy_(buffer)
        beside_weights.put_back(self.model, state["kept"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["order"].cpu())
        beside_weights.set_global_generators(state["rng"])
        if self.device == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu())
        self.curve = [
            {**epoch, "finished_at": datetime.fromisoformat(epoch["finished_at"])} for epoch in state["curve"]
        ]
        self.best_weights = state["best_weights"]
        self.train_s = state["train_s"]
        self.started_at = datetime.fromisoformat(state["started_at"])
        self.row()  # raises where the state cannot be summed up


def optimizer(
    model: nn.Module, config: Mapping[str, Any], *, adam: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """torch.optim's optimiser of the configuration, in its fused form where that takes all parameters; `adam`
    are the task's own settings.
    """
    parameters = list(model.parameters())
    recipe = {"lr": config["lr"], "weight_decay": config["weight_decay"]}
    recipe["fused"] = all(map(fuses, parameters))
    if config["optimizer"] == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, **recipe)
    kind = torch.optim.AdamW if config["optimizer"] == "adamw" else torch.optim.Adam
    return kind(parameters, **recipe, **adam)


def fuses(parameter: nn.Parameter) -> bool:
    """Whether the fused kernels take a parameter: real numbers, without gaps in memory. With gaps, as in
    every other column of a matrix, they write what is in between (torch 2.14).
    """
    dense = parameter.layout is torch.strided and parameter.stride() == torch.empty_like(parameter).stride()
    return dense and parameter.is_floating_point()


def densify(parameters: Sequence[nn.Parameter]) -> None:
    """Makes sparse gradients, as of `nn.Embedding(sparse=True)`, dense ones: Adam and the fused kernels take
    no others.
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.layout is not torch.strided:
            parameter.grad = torch.zeros_like(parameter).add_(parameter.grad)


def copied(value: Any) -> Any:
    """A copy of a weight on the CPU; what else a state_dict holds as it is."""
    return value.cpu().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)


def checkpoint_path(trial: Trial, options: Options) -> str | None:
    """Where the trial's checkpoint lies: a path or a URI."""
    return storage.below(options.runs_dir, f"{trial.trial_id}/checkpoint.pt") if options.runs_dir else None


def weights_path(runs_dir: str | Path, trial_id: str) -> str:
    """The path or URI of the weights of a trial's selected epoch, if they were kept: a state_dict on the
    CPU.
    """
    return storage.below(runs_dir, f"{trial_id}/weights.pt")


def write_whole(state: Mapping[str, Any], path: str) -> None:
    """Writes a file whole or not at all. Raises OSError."""
    content = io.BytesIO()
    torch.save(state, content)
    storage.write(path, content.getvalue())


def location_of(error: BaseException) -> str:
    """File and line where the error arose."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)
