"""CSV, and a table for LaTeX."""

from pathlib import Path
from typing import Any

import pandas as pd

from attnsweep.answers import doubt, naming, phrases, selection
from attnsweep.core import files
from attnsweep.core.clean import clean
from attnsweep.core.errors import UserError
from attnsweep.core.text import counted

LATEX: dict[int, str] = str.maketrans({  # what LaTeX would read more into
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
})  # fmt: skip
HIDDEN = ("test_right",)  # bits, which no other tool reads


def to_csv(trials: pd.DataFrame, epochs: pd.DataFrame, path: Path) -> str:
    """All trials, of any status, as the file `path`; the columns of which none has a value are left out."""
    kept = trials.drop(columns=[name for name in HIDDEN if name in trials]).dropna(axis="columns", how="all")
    files.replace(path, kept.to_csv(index=False).encode())
    return f"{counted(len(kept), 'trial')}, {kept.shape[1]} columns"


def to_latex(trials: pd.DataFrame, epochs: pd.DataFrame, path: Path) -> str:
    """The settings of each data set as a table for `booktabs`: quality on test with its interval, costs."""
    trials, rows, remarks = selection.plain(trials), [], list[str]()
    for dataset in selection.done(trials)["dataset"].unique():
        here, left_out = selection.comparable(trials[trials["dataset"] == dataset])
        remarks += [f"{dataset}: {one}" for one in left_out]
        sure = doubt.doubt(here)
        names = naming.labels(sure.settings, short=False)
        for i, row in sure.settings.sort_values(sure.quality, ascending=False).iterrows():
            costs = (number(row.get("latency_ms_p50"), ".3g"), number(row.get("params"), ",.0f"))
            rows.append((dataset, names[i], phrases.written(row, sure.quality), *costs))
    if not rows:
        raise UserError("no trial is done, so there is nothing for a table")
    heads = ("Data", "Setting", "Quality on test", "Latency (ms)", "Parameters")
    lines = [" & ".join(clean(cell).translate(LATEX) for cell in row) + r" \\" for row in (heads, *rows)]
    begin = [r"% needs \usepackage{booktabs}", r"\begin{tabular}{lllrr}", r"\toprule", lines[0], r"\midrule"]
    text = "\n".join([*begin, *lines[1:], r"\bottomrule", r"\end{tabular}", ""])
    files.replace(path, text.encode())
    return "; ".join([counted(len(rows), "setting"), *remarks])


def number(value: Any, form: str) -> str:
    """A number, or a dash where it is not known."""
    return "--" if value is None or pd.isna(value) else format(value, form)
