"""`attnsweep SWEEP.py`: runs a sweep, or plans it."""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnsweep import __version__
from attnsweep.cli.commands import COMMANDS, EPILOG
from attnsweep.cli.options import add_address, add_data, add_results, add_serial
from attnsweep.core import collection, terminal
from attnsweep.core.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from attnsweep.space.plan import Folders
    from attnsweep.space.sweep import Sweep


def parser_of_sweeps() -> argparse.ArgumentParser:
    """The parser of `python -m attnsweep SWEEP.py`."""
    parser = argparse.ArgumentParser(
        prog="python -m attnsweep", description="Runs the trials of a sweep that are not done yet.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("sweep", metavar="SWEEP.py", help="a Python file with a variable `sweep`")
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        help="such as epochs=2 or seed=0,1,2 (a comma makes a grid)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan; train nothing")
    parser.add_argument(
        "--json", action="store_true", help="with --dry-run: one JSON object per trial, nothing else"
    )
    parser.add_argument("--no-latency", action="store_true", help="skip the latency phase")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images of a folder that cannot be read"
    )
    parser.add_argument(
        "--hours", type=float, metavar="N",
        help="end in an orderly way after that time; the same command goes on with what has not run",
    )  # fmt: skip
    add_results(parser)
    add_data(parser)
    add_address(parser)
    add_serial(parser)
    parser.add_argument(
        "--cluster", metavar="YAML",
        help="run on the cluster that `ray up YAML` started; its output and rows come here",
    )  # fmt: skip
    parser.add_argument("--stop", action="store_true", help="with --cluster: end the sweep that runs there")
    parser.add_argument("--version", action="version", version=f"attnsweep {__version__}")
    return parser


@collection.paused()
def main(arguments: Sequence[str]) -> int:
    """Runs or plans a sweep; returns the exit status. Without arguments, lists the commands."""
    if not arguments:
        parser_of_sweeps().print_help()
        return 0
    refuse_misspelt(arguments[0])
    refuse_dashes(arguments)
    options = parser_of_sweeps().parse_intermixed_args(arguments)
    if options.json and not options.dry_run:
        raise UserError("--json goes with --dry-run")
    if options.stop and not options.cluster:
        raise UserError("--stop goes with --cluster")
    if options.address and options.cluster:
        raise UserError("--address and --cluster name two clusters; use one")
    if options.serial and (options.address or options.cluster):
        raise UserError("--serial uses no cluster; leave --address and --cluster out")
    check_home()
    if options.dry_run:
        return plan(options)
    from attnsweep.space.plan import folders_of

    where = folders_of(options.results, options.data)
    with workers_ahead(options):
        sweep = sweep_of(options)  # also where it runs elsewhere: before anything is sent a mistake is told
        if options.cluster:
            return send(options, where)
        from attnsweep.engine import runner

        outcome = runner.execute(
            sweep, where,
            address=options.address, latency=not options.no_latency, in_process=options.serial,
            hours=options.hours,
        )  # fmt: skip
        return outcome.exit_status


def workers_ahead(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Workers of a cluster of this machine import torch while the sweep is read; elsewhere nothing."""
    elsewhere = options.serial or options.cluster or os.environ.get("RAY_ADDRESS")
    if elsewhere or options.address not in (None, "local"):
        return contextlib.nullcontext()
    from attnsweep.engine.fork_server import fork_server

    return fork_server()


def refuse_misspelt(word: str) -> None:
    """Raises UserError for a word that is no file, no option and no command."""
    if word.startswith("-") or word.endswith(".py") or os.path.exists(word):
        return
    here = [str(one) for one in Path(word).parent.glob("*.py")] if word.isprintable() else []
    hint = did_you_mean(word, COMMANDS) or did_you_mean(f"{word}.py", here)
    hint = hint or "; --help lists the commands, and a sweep is run by naming its file"
    raise UserError(f"there is no command or sweep file {word!r}{hint}")


def refuse_dashes(arguments: Sequence[str]) -> None:
    """Raises UserError for an override that is written as an option, `--epochs=2`."""
    from attnsweep.tasks.registry import AXES  # here: --help and --version do without

    for word in arguments:
        if word.startswith("--") and (key := word[2:].partition("=")[0]) in AXES:
            raise UserError(f"{word} is no option; write {key}=VALUE, without dashes")


def sweep_of(options: argparse.Namespace) -> "Sweep":
    """The sweep of a file, with its overrides."""
    from attnsweep.space.files import parse_overrides, read_sweep
    from attnsweep.space.sweep import SKIP_UNREADABLE, refuse_unmeasured

    skipping = SKIP_UNREADABLE if options.skip_unreadable else {}
    sweep = read_sweep(options.sweep).override({**skipping, **parse_overrides(options.overrides)})
    refuse_unmeasured(sweep, latency=not options.no_latency)
    return sweep


def check_home() -> None:
    """Raises UserError for a user without a home directory, for whom Ray cannot even be imported."""
    try:
        Path.home()
    except RuntimeError as error:
        raise UserError("this user has no home directory; set one, as HOME=/tmp/me") from error


def plan(options: argparse.Namespace) -> int:
    """Prints the plan; with --json nothing else on standard output, whatever the user's files print, or the
    programs that they start.
    """
    from attnsweep.cli.dry_run import dry_run
    from attnsweep.space.plan import folders_of

    where = folders_of(options.results, options.data)
    with terminal.output_to_errors() if options.json else contextlib.nullcontext(sys.stdout) as out:
        return dry_run(
            sweep_of(options), where, as_json=options.json, out=out, latency=not options.no_latency
        )


def send(options: argparse.Namespace, where: "Folders") -> int:
    """Runs a sweep on the cluster of --cluster, overrides and flags included; returns the exit status."""
    from attnsweep.core.clean import without_secrets
    from attnsweep.engine import remote

    if without_secrets(where.results) != where.results:
        raise UserError(
            f"--results {where.results} names a key, which Ray would keep and tell with --cluster; leave it "
            "out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on the nodes"
        )
    given = {"--no-latency": options.no_latency, "--skip-unreadable": options.skip_unreadable}
    flags = [flag for flag, is_given in given.items() if is_given]
    data = ["--data", options.data] if options.data else []
    hours = ["--hours", str(options.hours)] if options.hours is not None else []
    sweep = remote.RemoteSweep(
        Path(options.cluster), Path(options.sweep), (*options.overrides, *flags, *data, *hours), where
    )
    collection.go_on()
    return remote.run(sweep, stop=options.stop)
