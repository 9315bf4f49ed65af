"""Options that commands share which show results."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core.runtimes import RUNTIMES
from attnsweep.core.text import words

if TYPE_CHECKING:
    import pandas as pd


def command_parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """The parser of a command, which the first line of its module describes."""
    about = (about or "").splitlines()[0]
    return argparse.ArgumentParser(prog=f"python -m attnsweep {name}", description=about)


def add_runtime(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Adds the option of the runtime of latencies; with `several`, of a list of them between commas."""
    text = "latency under this runtime; default: the first of the sweep, or of the last `measure`"
    if several:
        text += "; of several, such as eager,onnxruntime, each has a front of its own beside the others"
        parser.add_argument(
            "--runtime", type=runtimes, action="extend", metavar="RUNTIME[,RUNTIME]", help=text
        )
    else:
        parser.add_argument("--runtime", choices=RUNTIMES, help=text)


def runtimes(text: str) -> list[str]:
    """The names of runtimes between commas. Raises argparse.ArgumentTypeError for one that is none."""
    names = words(text)
    for name in names or [text]:
        if name not in RUNTIMES:
            raise argparse.ArgumentTypeError(f"{name!r} is no runtime; those are {', '.join(RUNTIMES)}")
    return names


def add_results(parser: argparse.ArgumentParser) -> None:
    """Adds the argument that says where results are."""
    text = "the folder of trials/, or a URI of it; default results/"
    parser.add_argument("results", nargs="?", default="results", help=text)


def add_where(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says which trials are meant."""
    text = 'only rows for which this pandas query holds, such as "epochs == 15"; of several all must hold'
    parser.add_argument("--where", action=All, metavar="QUERY", help=text)


class All(argparse.Action):
    """A query that may be given several times: what comes out holds where all of them do."""

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, query: Any, flag: Any = None
    ) -> None:
        before = getattr(options, self.dest)
        setattr(options, self.dest, query if before is None else f"({before}) and ({query})")


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which trials of one data set are meant."""
    add_results(parser)
    parser.add_argument("--dataset", help="the data set; needed where the results have several")
    add_where(parser)


def add_out(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says where figures go."""
    text = "folder for the figure; default: figures/ beside the results"
    parser.add_argument("--out", type=Path, help=text)


def folder_of(options: argparse.Namespace) -> Path:
    """The folder that figures go to: `figures/` beside the results, or here where those lie behind a URI."""
    from attnsweep.space.plan import folders_of

    return options.out or folders_of(options.results).runs.parent / "figures"


def rows_of(options: argparse.Namespace) -> "pd.DataFrame":
    """The trials, of any status, that the options of `add_rows` ask for. Raises UserError where none are."""
    from attnsweep.results.loading import load

    return narrowed(load(options.results, status=None, all_columns=True), options)


def narrowed(frame: "pd.DataFrame", options: argparse.Namespace) -> "pd.DataFrame":
    """The rows that `--where` and `--dataset` choose. Raises UserError where they choose none."""
    from attnsweep.answers import selection

    frame = selection.where(frame, options.where)
    return selection.choose(frame, "dataset", options.dataset) if options.dataset else frame
