"""Results for other tools: CSV, a LaTeX table, an Optuna study, TensorBoard's event files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from attnsweep.answers import doubt, pareto
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
    rows = []
    for dataset in pareto.done(trials)["dataset"].unique():
        sure = doubt.doubt(trials[trials["dataset"] == dataset])
        names = pareto.labels(sure.settings, short=False)
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
    return counted(len(rows), "setting")


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
    settings, written = pareto.over_seeds(trials), []
    selects = pareto.selecting(settings)
    for dataset, part in settings.dropna(subset=[selects]).groupby("dataset", sort=False):
        for cost in ("latency_ms_p50", "params"):
            known = part.dropna(subset=[cost])
            if known.empty:
                continue
            pareto.refuse_mixtures(known, cost)
            name = f"{clean(dataset)} {cost}"
            try:
                study = optuna.create_study(
                    storage=f"sqlite:///{place}", study_name=name, directions=["minimize", "maximize"]
                )
            except optuna.exceptions.DuplicatedStudyError as error:
                raise UserError(f"{place} has a study {name!r} already; name another file") from error
            study.add_trials(frozen(known, cost, selects))
            written.append(name)
    return f"{counted(len(written), 'study').replace('studys', 'studies')}: {', '.join(written) or 'none'}"


def frozen(settings: pd.DataFrame, cost: str, selects: str) -> list[Any]:
    """Optuna's trials, one for each setting; its axes are categorical, with the values that there are."""
    import optuna

    axes = ["model", *pareto.varying(settings)]
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


def to_tensorboard(trials: pd.DataFrame, epochs: pd.DataFrame, place: Path) -> str:
    """A run for each done trial in the folder `place`: its learning curve, hyperparameters and results."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("this needs tensorboardX; install it: pip install tensorboardX") from error
    rows = pareto.done(trials)
    curves = dict(list(epochs.groupby("trial_id"))) if len(epochs) else {}
    axes = [name for name in (*pareto.SETTING, "seed") if name in rows and rows[name].nunique() > 1]
    results = [name for name in rows if name in (*pareto.JUDGED_BY, "val_acc", "latency_ms_p50", "params")]
    for _, row in rows.iterrows():
        with SummaryWriter(str(place / str(row["trial_id"]))) as writer:
            for epoch in curves.get(row["trial_id"], pd.DataFrame()).to_dict("records"):
                for name, value in epoch.items():
                    if isinstance(value, float) and not pd.isna(value):
                        writer.add_scalar(str(name), value, int(epoch["epoch"]))
            given = {name: plain(row[name]) for name in axes if not pd.isna(row[name])}
            found = {f"result/{name}": float(row[name]) for name in results if not pd.isna(row[name])}
            writer.add_hparams(given, found, name=".")
    return counted(len(rows), "run")


EXPORTS: Mapping[str, Export] = {
    "csv": to_csv, "latex": to_latex, "optuna": to_optuna, "tensorboard": to_tensorboard,
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
