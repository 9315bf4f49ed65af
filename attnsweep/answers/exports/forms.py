"""The forms of export, by name."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from attnsweep.answers.exports.runs import to_mlflow, to_tensorboard
from attnsweep.answers.exports.studies import to_optuna
from attnsweep.answers.exports.tables import to_csv, to_latex
from attnsweep.core import files
from attnsweep.core.clean import cleaned
from attnsweep.core.errors import UserError

Export = Callable[[pd.DataFrame, pd.DataFrame, Path], str]
EXPORTS: Mapping[str, Export] = {
    "csv": to_csv, "latex": to_latex, "optuna": to_optuna, "tensorboard": to_tensorboard, "mlflow": to_mlflow,
}  # fmt: skip


def export(form: str, trials: pd.DataFrame, epochs: pd.DataFrame, path: Path) -> str:
    """Writes results in a form of `EXPORTS`; returns what was written, in words. Raises UserError."""
    above = path.absolute().parent
    if form != "tensorboard" and not os.path.isdir(above):
        raise UserError(f"{path} lies in no folder that is there; make it, or name another place")
    if form != "tensorboard" and os.path.isdir(path):
        raise UserError(f"{path} is a folder; name a file in it")
    try:
        return EXPORTS[form](cleaned(trials), epochs, files.make_folder(above) / path.absolute().name)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); name another place"
        ) from error
