"""Runs, as trackers of experiments have them: TensorBoard's event files, MLflow's store."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attnsweep.answers import pareto, selection
from attnsweep.answers.exports.places import database, folder, plain
from attnsweep.core.clean import clean
from attnsweep.core.errors import UserError
from attnsweep.core.text import counted

MANY = 200  # runs, from which on MLflow takes longer than a moment
LONGEST_NAME = 500  # of MLflow's experiments
log = logging.getLogger("attnsweep")


@dataclass(frozen=True)
class Run:
    """A trial for trackers: measures by epoch (`curve`), axes that differ (`given`), results (`found`)."""

    row: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]]
    given: Mapping[str, Any]
    found: Mapping[str, float]


def runs_of(trials: pd.DataFrame, epochs: pd.DataFrame) -> list[Run]:
    """A run for each of the trials."""
    curves = dict(list(epochs.groupby("trial_id"))) if len(epochs) else {}
    axes = [
        name
        for name in (*selection.SETTING, "seed")
        if name in trials and trials[name].nunique(dropna=False) > 1
    ]
    judged = {name.replace("test_", part, 1) for name in pareto.JUDGED_BY for part in ("test_", "val_")}
    results = [name for name in trials if name in judged or name in ("latency_ms_p50", "params", "macs")]
    return [
        Run(
            row,
            [measures(epoch) for epoch in curves.get(row["trial_id"], pd.DataFrame()).to_dict("records")],
            {name: plain(row[name]) for name in axes if not pd.isna(row[name])},
            {f"result/{name}": float(row[name]) for name in results if is_known(row[name])},
        )
        for row in trials.to_dict("records")
    ]


def is_known(value: Any) -> bool:
    """Whether a measure is a number: neither null nor infinite."""
    return not pd.isna(value) and math.isfinite(value)


def measures(epoch: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured in an epoch, and its number."""
    floats = {name: value for name, value in epoch.items() if isinstance(value, float) and is_known(value)}
    return {**floats, "epoch": int(epoch["epoch"])}


def to_tensorboard(trials: pd.DataFrame, epochs: pd.DataFrame, path: Path) -> str:
    """A run for each done trial in the folder `path`: its learning curve, hyperparameters and results."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("this needs tensorboardX; install it: pip install tensorboardX") from error
    runs = runs_of(selection.done(trials), epochs)
    with folder(path) as scratch:
        for run in runs:
            with SummaryWriter(str(scratch / run.row["trial_id"])) as writer:
                for epoch in run.curve:
                    for name in epoch.keys() - {"epoch"}:
                        writer.add_scalar(name, epoch[name], epoch["epoch"])
                writer.add_hparams(run.given, run.found, name=".")
    return counted(len(runs), "run")


def to_mlflow(trials: pd.DataFrame, epochs: pd.DataFrame, path: Path) -> str:
    """An experiment for each data set in the SQLite file `path` (`mlflow ui --backend-store-uri` opens it),
    with a run for each trial of any status: its learning curve, parameters, results, and why it failed.
    MLflow cuts texts of thousands of characters.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it asks the network when it is imported
    try:
        import alembic  # noqa: F401  what MLflow keeps a database with
        from mlflow import MlflowClient
    except ImportError as error:
        raise UserError("this needs MLflow; install it: pip install 'attnsweep[mlflow]'") from error
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it warns of each text that it cuts
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if len(trials) >= MANY:
        log.warning("writing %s; MLflow takes some 30 ms for each", counted(len(trials), "run"))
    artifacts = path.absolute().with_name("mlartifacts").as_uri()  # a folder that nothing is put into
    with database(path) as url:
        client = MlflowClient(url)
        for dataset, rows in selection.plain(trials).groupby("dataset", sort=False):
            experiment = experiment_of(client, clean(dataset)[:LONGEST_NAME] or "?", artifacts)
            for run in runs_of(rows, epochs):
                log_run(client, experiment, run)
    return counted(len(trials), "run")


def experiment_of(client: Any, name: str, artifacts: str) -> str:
    """The id of the experiment of a name, which is made where there is none; MLflow makes one itself."""
    there = client.get_experiment_by_name(name)
    return str(there.experiment_id if there else client.create_experiment(name, artifact_location=artifacts))


ENDED = {"done": "FINISHED", "stopped": "KILLED"}  # the rest is FAILED
AT_ONCE = 500  # measures; MLflow takes a thousand


def log_run(client: Any, experiment: str, run: Run) -> None:
    """Writes a run into an experiment of MLflow's."""
    from mlflow.entities import Metric, Param, RunTag

    begun, ended = (milliseconds(run.row.get(name)) for name in ("started_at", "finished_at"))
    made = client.create_run(experiment, start_time=begun, run_name=run.row["trial_id"])
    measured = [
        Metric(name, epoch[name], ended, epoch["epoch"])
        for epoch in run.curve
        for name in epoch.keys() - {"epoch"}
    ]
    measured += [Metric(name, value, ended, 0) for name, value in run.found.items()]
    params = [Param(name, str(value)) for name, value in run.given.items()]
    tags = [
        RunTag(name, str(run.row[name]))
        for name in ("model", "sweep", "status", "error")
        if not pd.isna(run.row.get(name))
    ]
    client.log_batch(made.info.run_id, params=params, tags=tags)
    for begin in range(0, len(measured), AT_ONCE):
        client.log_batch(made.info.run_id, measured[begin : begin + AT_ONCE])
    client.set_terminated(made.info.run_id, ENDED.get(run.row["status"], "FAILED"), ended)


def milliseconds(time: Any) -> int:
    """A time since 1970 as MLflow has it; 0, for which it takes now, where it is not known."""
    return 0 if time is None or pd.isna(time) else int(pd.Timestamp(time).timestamp() * 1000)
