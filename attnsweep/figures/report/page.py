"""`attnsweep report`: the page, and the command that writes it."""

import argparse
import json
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from attnsweep.answers import selection
from attnsweep.answers.overview import overview
from attnsweep.core import files
from attnsweep.core.clean import clean
from attnsweep.core.errors import UserError
from attnsweep.core.terminal import exit_status
from attnsweep.core.version import __version__, installed
from attnsweep.figures.arguments import add_results, add_where
from attnsweep.figures.canvas import LOOKS, SPARE
from attnsweep.results.loading import load
from attnsweep.results.store import Store
from attnsweep.space.rerun import rerun_line

EVERY_S = 5.0  # how often --watch looks for new rows
SCRIPTS = ("choice.js", "plots.js", "tables.js", "report.js")  # in order: the later ones call the earlier
SYMBOLS = {  # plotly's names of matplotlib's markers
    "s": "square", "o": "circle", "D": "diamond", "^": "triangle-up", "P": "cross",
    "v": "triangle-down", "X": "x",
}  # fmt: skip
Page = dict[str, Any]


def report(
    results: str | Path = "results", path: str | Path = "report.html", *, where: str | None = None
) -> Path:
    """Writes `results` as one HTML page to `path`; returns that. `where`: a pandas query that selects trials.

    Raises UserError for no results, `where` that holds for no row, no plotly, or a file not to be written.
    """
    return write(page_of(results, where=where), Path(path))


def write(page: Page, path: Path, *, live_s: float | None = None) -> Path:
    """Writes a page whole or not at all. Raises UserError where it cannot be written."""
    try:
        folder = files.make_folder(path.absolute().parent)
        files.replace(folder / path.name, html(page, live_s=live_s).encode())
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be written ({reason}); name another file with -o") from error
    return path


def page_of(results: str | Path, *, where: str | None = None) -> Page:
    """What the page shows, as plain values; see `answers.overview`."""
    trials = selection.where(load(results, status=None, all_columns=True), where)
    page = overview(trials, load(results, "epochs"), load(results, "latency"))
    page["trials"]["rerun"] = [rerun(row) for row in trials.to_dict("records")]
    made = datetime.now(UTC)
    return page | {
        "results": clean(results),
        "made": f"{made:%Y-%m-%d %H:%M:%S} UTC",
        "version": __version__,
        "looks": {name: [colour, SYMBOLS[marker]] for name, (colour, marker) in LOOKS.items()},
        "spare": [[colour, SYMBOLS[marker]] for colour, marker in SPARE],
    }


def rerun(row: Any) -> str | None:
    """The line that runs a trial again; None where the row does not say enough."""
    try:
        return clean(rerun_line(row))
    except UserError:  # of another version, or of somebody else
        return None


def html(page: Page, *, live_s: float | None = None) -> str:
    """The page as one file. `live_s`: it loads itself anew after so many seconds."""
    data = json.dumps(page | {"live_s": live_s}, allow_nan=False, separators=(",", ":"))
    parts = {
        "TITLE": escape(f"attnsweep: {page['results']}", quote=False),
        "STYLE": text_of("report.css"),
        "DATA": data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
        "PLOTLY": plotly_js(),
        "SCRIPT": "\n".join(map(text_of, SCRIPTS)),
    }
    return re.sub(r"{{(\w+)}}", lambda place: parts[place[1]], text_of("report.html"))


def text_of(name: str) -> str:
    """A file that lies beside this one."""
    return resources.files("attnsweep.figures.report").joinpath(name).read_text(encoding="utf-8")


def plotly_js() -> str:
    """plotly's bundle. Raises UserError where the package is not installed."""
    if installed("plotly") is None:
        raise UserError("the report needs plotly; install it: pip install plotly")
    bundle = resources.files("plotly").joinpath("package_data", "plotly.min.js")
    return bundle.read_text(encoding="utf-8").replace("</script", "<\\/script")


# --- Command line ---


def state_of(results: str) -> tuple[Any, ...]:
    """Something that changes whenever the results do."""
    store = Store(results)
    return tuple((table, tuple(store.paths(table))) for table in ("trials", "epochs", "latency"))


def watch(results: str, out: Path, where: str | None, every_s: float) -> None:
    """Writes the page again whenever the results have changed, until Ctrl-C."""
    known: tuple[Any, ...] | None = None
    print(f"keeping {out} current every {every_s:g} s; Ctrl-C ends it", flush=True)
    while True:
        now = state_of(results)
        if now != known:
            known = now
            try:
                write(page_of(results, where=where), out, live_s=every_s)
            except UserError as error:  # a sweep that has only begun has no rows yet
                print(error, flush=True)
        time.sleep(every_s)


def run(options: argparse.Namespace) -> None:
    """Writes the page, once or until Ctrl-C."""
    if options.watch:
        try:
            watch(options.results, options.out, options.where, options.every)
        except KeyboardInterrupt:
            report(options.results, options.out, where=options.where)  # one that does not wait for another
            print(f"wrote {options.out}")
        return
    path = report(options.results, options.out, where=options.where)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line, or of `given`."""
    parser = argparse.ArgumentParser(
        prog="python -m attnsweep report", description="One page that says what results say; opened offline."
    )
    add = parser.add_argument
    add_results(parser)
    add("-o", "--out", type=Path, default=Path("report.html"), help="the file; default report.html")
    add_where(parser)
    add("--watch", action="store_true", help="keep it current while a sweep runs; the open page follows")
    add("--every", type=float, default=EVERY_S, help=f"seconds between two looks; default {EVERY_S:g}")
    options = parser.parse_args(given)
    if not 0.1 <= options.every <= 86400:
        parser.error(f"--every {options.every:g} is out of range; use seconds from 0.1 to 86400")
    return options


def main(given: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return exit_status(lambda: run(arguments(given)))
