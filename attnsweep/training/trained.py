"""The model of a finished trial: from the weights that its sweep kept, or trained once more."""

import functools
import math
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.progress import Progress
from torch import nn

from attnsweep.core.clean import clean
from attnsweep.core.errors import UserError, reason
from attnsweep.core.terminal import screen
from attnsweep.core.text import counted
from attnsweep.core.trial import Trial
from attnsweep.results import storage
from attnsweep.tasks.registry import TASKS, build
from attnsweep.training import checkpoint, trial


def trained(
    row: "pd.Series[Any]", one: Trial, *, runs: str, data: Path, attention: str | None = None
) -> nn.Module:
    """The trial's model with the weights of its selected epoch, in evaluation mode; with another kernel of
    attention where one is named, which has the same parameters.

    Raises UserError where kept weights cannot be read, or where training again fails.
    """
    kernel = {"attention": attention} if attention else {}
    model = build({**one.config, **kernel}, one.source).eval()
    try:
        fill(model, trial.weights_path(runs, one.trial_id))
    except FileNotFoundError:
        train_again(model, row, one, data=data)
    return model


def with_kept_weights(one: Trial, runs: str) -> nn.Module | None:
    """The trial's model in evaluation mode; None where it has weights, and its sweep did not keep them.

    Raises UserError where they cannot be read.
    """
    model = build(one.config, one.source).eval()
    try:
        if list(model.parameters()):
            fill(model, trial.weights_path(runs, one.trial_id))
    except FileNotFoundError:
        return None
    return model


def fill(model: nn.Module, path: str) -> None:
    """Loads the weights in a file. Raises FileNotFoundError, and UserError where they cannot be read, or are
    another model's.
    """
    try:
        model.load_state_dict(checkpoint.read(storage.read(path), "cpu"))
    except FileNotFoundError:
        raise
    except Exception as error:  # torn, foreign or hostile: weights_only runs no code of it
        raise UserError(
            f"{path} cannot be read ({reason(error)}); delete it, and the trial can be trained again"
        ) from error


def train_again(model: nn.Module, row: "pd.Series[Any]", one: Trial, *, data: Path) -> None:
    """Trains the trial as a sweep would, with a bar on the screen, and loads the weights of its selected
    epoch. Says so where the outcome differs from the row's. Raises UserError where it fails.
    """
    console, epochs = screen(), one.config["epochs"]
    say = functools.partial(console.print, highlight=False, markup=False)
    say(
        f"No weights were kept of trial {one.trial_id}, so it is trained again ({counted(epochs, 'epoch')}, "
        f"{row['train_s']:.0f} s the first time); a sweep with keep_weights=True spares this"
    )
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        gpu = 0 if pd.isna(row["cuda"]) else 1
        options = trial.Options(data_dir=str(data), runs_dir=folder, keep_weights=True, gpu=gpu)
        task = progress.add_task(escape(clean(one.config["model"])), total=epochs)
        for event in trial.run(one, options):
            share = event.get("progress", event.get("epoch", epochs) / epochs)
            progress.update(task, completed=share * epochs)
        if event["status"] != "done":
            raise UserError(f"trained again, trial {one.trial_id} {event['status']}: {event['row']['error']}")
        fill(model, trial.weights_path(folder, one.trial_id))
    quality = f"test_{TASKS[one.config['task']].quality}"
    if not math.isclose(event["row"][quality], row[quality], abs_tol=1e-9):
        say(
            f"Here its {quality} is {event['row'][quality]:.4f}, where its row says {row[quality]:.4f}: "
            "it is not quite the same model"
        )
