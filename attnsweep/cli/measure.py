"""`attnsweep measure`: the latency of every architecture on this hardware."""

import argparse
from collections.abc import Sequence

from attnsweep.cli.options import add_address, add_results, add_serial
from attnsweep.core import collection
from attnsweep.core.deployment import PRECISIONS, Deployments
from attnsweep.core.errors import UserError
from attnsweep.core.runtimes import RUNTIMES
from attnsweep.core.text import words
from attnsweep.figures.arguments import add_where
from attnsweep.tasks.registry import TASKS
from attnsweep.tasks.task import ExternalTest, Task


def measure_parser() -> argparse.ArgumentParser:
    """The parser of `python -m attnsweep measure`."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep measure", description=main.__doc__)
    add_results(parser, positional=True)
    add_address(parser)
    add_serial(parser)
    add = parser.add_argument
    for name, values, many, text in (
        ("--runtime", words, "NAMES", f"some of {','.join(RUNTIMES)}; default eager"),
        ("--batch", numbers, "N,N", f"batch sizes; default {','.join(map(str, Deployments().batch))}"),
        ("--threads", numbers, "N,N", "numbers of CPU threads; default 1"),
        ("--precision", words, "NAMES", f"some of {','.join(PRECISIONS)}; default as trained"),
        ("--length", numbers, "N,N", "instead: of models of sequences, as they would be for so many tokens"),
    ):
        add(name, type=values, action="extend", metavar=many, help=text)
    add_where(parser)
    add("--again", action="store_true", help="measure what is known, too")
    for task, test in external_tests():
        add(f"--{test.name}", dest="external", action="store_const", const=(task, test),
            help=f"instead: {test.does}")  # fmt: skip
    return parser


@collection.paused()
def main(arguments: Sequence[str]) -> int:
    """Latency of every architecture in the results, on this hardware: what is not known yet."""
    options = measure_parser().parse_args(arguments)
    if options.serial and options.address:
        raise UserError("--serial uses no cluster; leave --address out")
    if options.external:
        from attnsweep.cli import external

        task, test = options.external
        refuse_others(options, test)
        return external.measure(task, test, options.results, where=options.where, again=options.again)
    from attnsweep.engine import runner

    return runner.measure(
        options.results,
        asked_by(options),
        where=options.where,
        lengths=options.length,
        again=options.again,
        address=options.address,
        in_process=options.serial,
    )


def external_tests() -> list[tuple[Task, ExternalTest]]:
    """Those of all tasks."""
    return [(task, test) for task in TASKS.values() for test in task.external]


def refuse_others(options: argparse.Namespace, test: ExternalTest) -> None:
    """Raises UserError where an option is given that means nothing to an external test."""
    for name in ("runtime", "batch", "threads", "precision", "length", "address"):
        if getattr(options, name) is not None:
            raise UserError(f"--{test.name} runs here and measures no latency; leave --{name} out")


def asked_by(options: argparse.Namespace) -> Deployments:
    """What the options ask for. Raises UserError where a value is unknown or out of range."""
    keys = ("runtime", "batch", "threads", "precision")
    given = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
    return Deployments.of(given, where="measure")


def numbers(text: str) -> list[int | str]:
    """The whole numbers between commas; what is none stays as it is, to be refused by name."""
    return [int(word) if word.isdecimal() else word for word in words(text)]
