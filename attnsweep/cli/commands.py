"""The commands: each is a file, here or among the figures, whose `main(arguments)` gives the exit status."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Main = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Command:
    """A word of the command line: the module that holds its `main`, its arguments, and what it does."""

    module: str
    does: str
    arguments: str = ""

    @property
    def main(self) -> Main:
        """What runs it; imported only now, so that no command waits for the libraries of another."""
        main: Main = importlib.import_module(f"attnsweep.{self.module}").main
        return main


SWEEP = Command("cli.sweep", "runs the trials of a sweep that are not done yet", "SWEEP.py")
COMMANDS = {
    "new": Command("cli.new", "writes an example sweep file here; without a name lists them", "[NAME]"),
    "measure": Command("cli.measure", "latency of every architecture, on this hardware", "[RESULTS]"),
    "pick": Command("cli.pick", "the best architecture under a budget", "[RESULTS]"),
    "plot": Command("figures.front", "quality against cost, drawn, with the fronts", "[RESULTS]"),
    "table": Command("figures.table", "the results as a Markdown table", "[RESULTS]"),
    "report": Command(
        "figures.report.page", "one page of all that the results say, opened offline", "[RESULTS]"
    ),
    "effects": Command("figures.effects", "which axis matters, and whether that is real", "[RESULTS]"),
    "compare": Command("figures.compare", "two settings or two folders, paired example by example", "A B"),
    "curves": Command("figures.curves", "learning curves with bands over seeds", "[RESULTS]"),
    "attention": Command("figures.attention", "what a trial attends to, drawn", "ID"),
    "planning": Command("figures.planning", "how planners drive, drawn; a drive as a film", "[RESULTS]"),
    "show": Command("cli.show", "everything about one trial, and the line that reruns it", "ID"),
    "export": Command("cli.export", "the trained model as a file that runs without this package", "ID FILE"),
    "sample": Command("cli.sample", "text that a trained model writes after a prompt", "ID [PROMPT]"),
    "export-results": Command(
        "cli.export_results", "csv, latex, optuna, tensorboard or mlflow", "FORM PLACE"
    ),
    "columns": Command("cli.columns", "every column of every table: type, unit, meaning"),
    "doctor": Command("cli.doctor", "what this machine or cluster can run, and what is missing"),
}
EPILOG = (
    "other commands, each with --help; what stands in [ ] may be left out, and so may all options:\n"
    + "".join(
        f"  python -m attnsweep {f'{name} {command.arguments}':<26} {command.does}\n"
        for name, command in COMMANDS.items()
    )
)
