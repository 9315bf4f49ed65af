"""Results for other tools: CSV, a LaTeX table, an Optuna study, TensorBoard's event files, MLflow's store."""

import contextlib
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attnsweep.answers import doubt, naming, pareto, selection
from attnsweep.core import files
from attnsweep.core.clean import clean, cleaned
from attnsweep.core.errors import UserError
from attnsweep.core.text import counted

LATEX = {  # what LaTeX would read more into
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
HIDDEN = ("test_right",)  # bits, which no other tool reads
Export = Callable[[pd.DataFrame, pd.DataFrame, Path], str]


def to_csv(trials: pd.DataFrame, epochs: pd.DataFrame, place: Path) -> str:
    """All trials, of any status, as the file `place`; the columns of which none has a value are left out."""
    kept = trials.drop(columns=[name for name in HIDDEN if name in trials]).dropna(axis="columns", how="all")
    kept.to_csv(place, index=False)
    return f"{counted(len(kept), 'trial')}, {kept.shape[1]} columns"


def to_latex(trials: pd.DataFrame, epochs: pd.DataFrame, place: Path) -> str:
    """The settings of each data set as a table for `booktabs`: quality on test with its interval, costs."""
    rows, remarks = [], list[str]()
    for dataset in selection.done(trials)["dataset"].unique():
        here, left_out = selection.comparable(trials[trials["dataset"] == dataset])
        remarks += [f"{dataset}: {one}" for one in left_out]
        sure = doubt.doubt(here)
        names = naming.labels(sure.settings, short=False)
        for i, row in sure.settings.sort_values(sure.quality, ascending=False).iterrows():
            costs = (number(row.get("latency_ms_p50"), ".3g"), number(row.get("params"), ",.0f"))
            rows.append((dataset, names[i], doubt.written(row, sure.quality), *costs))
    if not rows:
        raise UserError("no trial is done, so there is nothing for a table")
    heads = ("Data", "Setting", "Quality on test", "Latency (ms)", "Parameters")
    lines = [" & ".join(map(escaped, row)) + r" \\" for row in (heads, *rows)]
    begin = [r"% needs \usepackage{booktabs}", r"\begin{tabular}{lllrr}", r"\toprule", lines[0], r"\midrule"]
    text = "\n".join([*begin, *lines[1:], r"\bottomrule", r"\end{tabular}", ""])
    place.write_text(text, encoding="utf-8")
    return "; ".join([counted(len(rows), "setting"), *remarks])


def number(value: Any, form: str) -> str:
    """A number, or a dash where it is not known."""
    return "--" if value is None or pd.isna(value) else format(value, form)


def escaped(text: object) -> str:
    """Text as LaTeX shows it."""
    return "".join(LATEX.get(char, char) for char in clean(text))


def to_optuna(trials: pd.DataFrame, epochs: pd.DataFrame, place: Path) -> str:
    """A study for each data set and cost in the SQLite file `place`, a trial for each setting: its objectives
    are the cost and the quality on validation, so that `best_trials` is `attnsweep.front`.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("this needs Optuna; install it: pip install 'attnsweep[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    written, remarks = [], list[str]()
    with database(place) as url:
        for dataset, settings, selects in by_dataset(trials, remarks):
            for cost in ("latency_ms_p50", "params"):
                if (known := settings.dropna(subset=[cost])).empty:
                    continue
                name = f"{clean(dataset)} {cost}"
                study = optuna.create_study(storage=url, study_name=name, directions=["minimize", "maximize"])
                with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
                    study.set_metric_names([cost, selects])
                study.add_trials(frozen(known, cost, selects))
                written.append(name)
    studies = "1 study" if len(written) == 1 else f"{len(written)} studies"
    return "; ".join([f"{studies}: {', '.join(written)}", *remarks])


def by_dataset(trials: pd.DataFrame, remarks: list[str]) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """For each data set its settings and the quality that selects; remarks on latencies that are left out.
    Raises UserError where nothing is done.
    """
    done = selection.done(trials)
    for dataset, rows in done.groupby("dataset", sort=False):
        rows, left_out = selection.comparable(rows)
        remarks += [f"{clean(dataset)}: {one}" for one in left_out]
        selects = pareto.selecting(rows)
        yield str(dataset), pareto.over_seeds(rows.dropna(subset=[selects])), selects
    if done.empty:
        raise UserError("no trial is done, so there is nothing to export")


@contextlib.contextmanager
def database(place: Path) -> Iterator[str]:
    """The URL of an SQLite file that is made elsewhere, and stands at `place` once it is whole. Raises
    UserError where something stands there: others may have written into it.
    """
    refuse_existing(place)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder, "made.db")
        yield f"sqlite:///{scratch}"
        files.replace(place, scratch.read_bytes())


def refuse_existing(place: Path) -> None:
    """Raises UserError where there is something at `place`."""
    if os.path.lexists(place):
        raise UserError(f"{place} is there already; delete it, or name another place")


def frozen(settings: pd.DataFrame, cost: str, selects: str) -> list[Any]:
    """Optuna's trials, one for each setting; its axes are categorical, with the values that there are."""
    import optuna

    axes = ["model", *naming.varying(settings)]
    kinds = {name: sorted({plain(value) for value in settings[name].dropna()}, key=str) for name in axes}
    spread = {
        name: optuna.distributions.CategoricalDistribution(values) for name, values in kinds.items() if values
    }
    found = []
    for _, row in settings.iterrows():
        params = {name: plain(row[name]) for name in spread if not pd.isna(row[name])}
        attributes = {"trial_id": row["trial_id"], "seeds": int(row["seeds"])}
        quality = pareto.judged_by(settings)
        if quality in row and not pd.isna(row[quality]):
            attributes[quality] = float(row[quality])
        found.append(
            optuna.trial.create_trial(
                params=params, distributions={name: spread[name] for name in params},
                values=[float(row[cost]), float(row[selects])], user_attrs=attributes,
            )
        )  # fmt: skip
    return found


def plain(value: Any) -> Any:
    """A value as Python's own type: a whole number that pandas holds as a float is one again."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- Runs: a learning curve, what was given, what was found ---


@dataclass(frozen=True)
class Run:
    """A trial as trackers of experiments have it: `curve` is a row of measures per epoch, `given` the axes
    that differ between trials, `found` its results.
    """

    row: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]]
    given: Mapping[str, Any]
    found: Mapping[str, float]


def runs_of(trials: pd.DataFrame, epochs: pd.DataFrame) -> list[Run]:
    """A run for each of the trials."""
    curves = dict(list(epochs.groupby("trial_id"))) if len(epochs) else {}
    axes = [name for name in (*selection.SETTING, "seed") if name in trials and trials[name].nunique() > 1]
    judged = {name.replace("test_", part, 1) for name in pareto.JUDGED_BY for part in ("test_", "val_")}
    results = [name for name in trials if name in judged or name in ("latency_ms_p50", "params", "macs")]
    return [
        Run(
            row,
            [measures(epoch) for epoch in curves.get(row["trial_id"], pd.DataFrame()).to_dict("records")],
            {name: plain(row[name]) for name in axes if not pd.isna(row[name])},
            {f"result/{name}": float(row[name]) for name in results if not pd.isna(row[name])},
        )
        for row in trials.to_dict("records")
    ]


def measures(epoch: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured in an epoch, and its number."""
    floats = {name: value for name, value in epoch.items() if isinstance(value, float)}
    known = {name: value for name, value in floats.items() if math.isfinite(value)}
    return {**known, "epoch": int(epoch["epoch"])}


def to_tensorboard(trials: pd.DataFrame, epochs: pd.DataFrame, place: Path) -> str:
    """A run for each done trial in the folder `place`: its learning curve, hyperparameters and results."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("this needs tensorboardX; install it: pip install tensorboardX") from error
    refuse_existing(place)  # TensorBoard would draw both curves of a trial as one
    runs = runs_of(selection.done(trials), epochs)
    for run in runs:
        with SummaryWriter(str(place / run.row["trial_id"])) as writer:
            for epoch in run.curve:
                for name in epoch.keys() - {"epoch"}:
                    writer.add_scalar(name, epoch[name], epoch["epoch"])
            writer.add_hparams(run.given, run.found, name=".")
    return counted(len(runs), "run")


def to_mlflow(trials: pd.DataFrame, epochs: pd.DataFrame, place: Path) -> str:
    """An experiment for each data set in the SQLite file `place` (`mlflow ui --backend-store-uri` opens it),
    with a run for each trial of any status: its learning curve, parameters, results, and why it failed.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it asks the network when it is imported
    try:
        import alembic  # noqa: F401  what MLflow keeps a database with
        from mlflow import MlflowClient
    except ImportError as error:
        raise UserError("this needs MLflow; install it: pip install 'attnsweep[mlflow]'") from error
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    artifacts = place.absolute().with_name("mlartifacts").as_uri()  # a folder that nothing is put into
    with database(place) as url:
        client = MlflowClient(url)
        for dataset, rows in trials.groupby("dataset", sort=False):
            experiment = client.create_experiment(clean(dataset), artifact_location=artifacts)
            for run in runs_of(rows, epochs):
                log_run(client, experiment, run)
    return counted(len(trials), "run")


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
    """A time since 1970 as MLflow has it; 0 where it is not known."""
    return 0 if time is None or pd.isna(time) else int(pd.Timestamp(time).timestamp() * 1000)


EXPORTS: Mapping[str, Export] = {
    "csv": to_csv, "latex": to_latex, "optuna": to_optuna, "tensorboard": to_tensorboard, "mlflow": to_mlflow,
}  # fmt: skip


def export(form: str, trials: pd.DataFrame, epochs: pd.DataFrame, place: Path) -> str:
    """Writes results in one of the forms of `EXPORTS`; returns in words what was written. Raises UserError
    where that cannot be.
    """
    if form != "tensorboard" and not place.absolute().parent.is_dir():
        raise UserError(f"{place} lies in no folder that is there; make it, or name another place")
    try:
        return EXPORTS[form](cleaned(trials), epochs, place)
    except OSError as error:
        raise UserError(
            f"{place} cannot be written ({error.strerror or error}); name another place"
        ) from error
