"""An Optuna study, as optuna-dashboard opens it."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from attnsweep.answers import naming, pareto, selection
from attnsweep.answers.exports.places import database, plain
from attnsweep.core.clean import clean
from attnsweep.core.errors import UserError


def to_optuna(trials: pd.DataFrame, epochs: pd.DataFrame, path: Path) -> str:
    """A study for each data set and cost in the SQLite file `path`, a trial for each setting: its objectives
    are the cost and the quality on validation, so that `best_trials` is `attnsweep.front`.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("this needs Optuna; install it: pip install 'attnsweep[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    written, remarks = [], list[str]()
    with database(path) as url:
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
        if not written:
            raise UserError("no done trial has both a cost and a quality, so there is nothing to export")
    studies = "1 study" if len(written) == 1 else f"{len(written)} studies"
    return "; ".join([f"{studies}: {', '.join(written)}", *remarks])


def by_dataset(trials: pd.DataFrame, remarks: list[str]) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """For each data set its settings and the quality that selects; remarks on latencies that are left out."""
    done = selection.done(trials)
    for dataset, rows in done.groupby("dataset", sort=False):
        selection.refuse_other_data(rows)
        rows, left_out = selection.comparable(rows)
        remarks += [f"{clean(dataset)}: {one}" for one in left_out]
        selects = pareto.selecting(rows)
        yield str(dataset), pareto.over_seeds(rows.dropna(subset=[selects])), selects


def frozen(settings: pd.DataFrame, cost: str, selects: str) -> list[Any]:
    """Optuna's trials, one for each setting; its axes are categorical, with the values that there are."""
    import optuna

    axes = ["model", *naming.varying(settings)]
    kinds = {name: sorted({plain(value) for value in settings[name].dropna()}, key=str) for name in axes}
    choices = optuna.distributions.CategoricalDistribution
    spread = {name: choices(values) for name, values in kinds.items() if values}
    quality, trials = pareto.judged_by(settings), []
    for _, row in settings.iterrows():
        params = {name: plain(row[name]) for name in spread if not pd.isna(row[name])}
        attributes = {"trial_id": row["trial_id"], "seeds": int(row["seeds"])}
        if quality in row and not pd.isna(row[quality]):
            attributes[quality] = float(row[quality])
        trials.append(
            optuna.trial.create_trial(
                params=params, distributions={name: spread[name] for name in params},
                values=[float(row[cost]), float(row[selects])], user_attrs=attributes,
            )
        )  # fmt: skip
    return trials
