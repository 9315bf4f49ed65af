"""The command line: `python -m attnsweep SWEEP.py`, and the words measure, pick, show, columns and doctor."""

import argparse
import contextlib
import functools
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep import __version__
from attnsweep.core.errors import Interrupted, UserError
from attnsweep.core.text import print_anything

if TYPE_CHECKING:
    from attnsweep.space.plan import Folders
    from attnsweep.space.sweep import Sweep

EPILOG = """other commands:
  python -m attnsweep new NAME   writes an example sweep file here; without a name lists them
  python -m attnsweep measure    latency of every architecture in the results, on this hardware
  python -m attnsweep pick       the best architecture under a budget
  python -m attnsweep plot       quality against cost, drawn, with the fronts
  python -m attnsweep table      the results as a Markdown table
  python -m attnsweep attention ID   what a trial attends to, drawn
  python -m attnsweep planning   how planners drive, drawn; a drive as a film
  python -m attnsweep show ID    everything about one trial, and the line that reruns it
  python -m attnsweep columns    every column of every table: type, unit, meaning
  python -m attnsweep doctor     what this machine or cluster can run, and what is missing
"""


def sweep_parser() -> argparse.ArgumentParser:
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
    add_results(parser)
    parser.add_argument(
        "--data", metavar="DIR", help="data sets; default $ATTNSWEEP_DATA, else ~/.cache/attnsweep"
    )
    add_address(parser)
    add_serial(parser)
    parser.add_argument(
        "--cluster", metavar="YAML",
        help="run on the cluster that `ray up YAML` started; its output and rows come here",
    )  # fmt: skip
    parser.add_argument("--stop", action="store_true", help="with --cluster: end the sweep that runs there")
    parser.add_argument("--version", action="version", version=f"attnsweep {__version__}")
    return parser


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", metavar="DIR", default="results", help="a folder or a URI; default results/"
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Adds the option that chooses the cluster."""
    parser.add_argument(
        "--address",
        metavar="ADDR",
        help="a Ray cluster; default $RAY_ADDRESS, else one on this machine, else a new one",
    )


def add_serial(parser: argparse.ArgumentParser) -> None:
    """Adds the option that does without a cluster."""
    parser.add_argument(
        "--serial", action="store_true",
        help="one trial after another in this process, without Ray: for debuggers, or where Ray fails",
    )  # fmt: skip


def run_sweep(arguments: Sequence[str]) -> int:
    """Runs or plans a sweep; returns the exit status."""
    options = sweep_parser().parse_intermixed_args(arguments)
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
    sweep = sweep_of(options)  # also where it runs elsewhere: a mistake in it is told before anything is sent
    if options.cluster:
        return send(options, where)
    from attnsweep.engine import runner

    outcome = runner.execute(
        sweep, where,
        address=options.address, latency=not options.no_latency, in_process=options.serial,
    )  # fmt: skip
    return outcome.exit_status


def sweep_of(options: argparse.Namespace) -> "Sweep":
    """The sweep of a file, with its overrides."""
    from attnsweep.space.files import parse_overrides, read_sweep
    from attnsweep.space.sweep import SKIP_UNREADABLE

    skipping = SKIP_UNREADABLE if options.skip_unreadable else {}
    return read_sweep(options.sweep).override({**skipping, **parse_overrides(options.overrides)})


def check_home() -> None:
    """Raises UserError for a user without a home directory, for whom Ray cannot even be imported."""
    try:
        Path.home()
    except RuntimeError as error:
        raise UserError("this user has no home directory; set one, as HOME=/tmp/me") from error


def plan(options: argparse.Namespace) -> int:
    """Prints the plan; with --json nothing else on standard output, whatever the user's files print."""
    from attnsweep.cli.dryrun import dry_run
    from attnsweep.space.plan import folders_of

    where, out = folders_of(options.results, options.data), sys.stdout
    with contextlib.redirect_stdout(sys.stderr if options.json else out):
        return dry_run(sweep_of(options), where, as_json=options.json, out=out)


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
    errand = remote.Errand(
        Path(options.cluster), Path(options.sweep), (*options.overrides, *flags, *data), where
    )
    return remote.run(errand, stop=options.stop)


def measure(arguments: Sequence[str]) -> int:
    """Latency of every architecture in the results, on this hardware."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep measure", description=measure.__doc__)
    add_results(parser)
    add_address(parser)
    add_serial(parser)
    parser.add_argument(
        "--highway-env", action="store_true",
        help="instead: drive highway-env's environments with every planner that has not; minutes for each",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.serial and options.address:
        raise UserError("--serial uses no cluster; leave --address out")
    if options.highway_env:
        from attnsweep.cli import highway_env

        return highway_env.measure(options.results)
    from attnsweep.engine import runner

    return runner.measure(options.results, address=options.address, in_process=options.serial)


def pick(arguments: Sequence[str]) -> int:
    """The architectures with the highest validation accuracy under a budget."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep pick", description=pick.__doc__)
    add_results(parser)
    parser.add_argument("--latency-ms", type=float, help="at most this median latency, in ms")
    parser.add_argument("--params", type=float, help="at most that many parameters, such as 2e6")
    parser.add_argument("--dataset", help="the data set; needed where the results have several")
    parser.add_argument("--measured-on", help="the device; needed where latency was measured on several")
    options = parser.parse_args(arguments)
    from attnsweep.cli import inspection

    return inspection.pick(**vars(options))


def show(arguments: Sequence[str]) -> int:
    """Everything about one trial, and the line that reruns it."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep show", description=show.__doc__)
    parser.add_argument("trial_id", metavar="TRIAL_ID", help="the id, or its first digits")
    add_results(parser)
    options = parser.parse_args(arguments)
    from attnsweep.cli import inspection

    return inspection.show(options.results, options.trial_id)


def columns(arguments: Sequence[str]) -> int:
    """Every column of every table: type, unit, meaning."""
    argparse.ArgumentParser(prog="python -m attnsweep columns", description=columns.__doc__).parse_args(
        arguments
    )
    from attnsweep.cli import inspection

    return inspection.columns()


def new(arguments: Sequence[str]) -> int:
    """Writes an example sweep file here."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep new", description=new.__doc__)
    parser.add_argument("name", nargs="?", help="such as depth; without it, the examples are listed")
    options = parser.parse_args(arguments)
    from attnsweep.cli import new as module

    return module.new(options.name, Path.cwd())


def doctor(arguments: Sequence[str]) -> int:
    """What this machine or cluster can run, and what is missing."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep doctor", description=doctor.__doc__)
    parser.add_argument(
        "--data", metavar="DIR", help="data sets; default $ATTNSWEEP_DATA, else ~/.cache/attnsweep"
    )
    add_results(parser)
    add_address(parser)
    options = parser.parse_args(arguments)
    from attnsweep.cli import doctor as check

    return check.doctor(data=options.data, address=options.address, results=options.results)


def figure(name: str) -> Callable[[Sequence[str]], int]:
    """The command that draws or prints results by the module of that name."""

    def run(arguments: Sequence[str]) -> int:
        module = importlib.import_module(f"attnsweep.figures.{name}")
        status: int = module.main(arguments)
        return status

    return run


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "measure": measure, "pick": pick, "show": show, "columns": columns, "doctor": doctor, "new": new,
    "plot": figure("front"), "table": figure("table"), "attention": figure("attention"),
    "planning": figure("planning"),
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit status.

    A user's mistake becomes a sentence on standard error and status 2.
    """
    print_anything()
    logging.basicConfig(format="attnsweep: %(message)s", level=logging.WARNING)
    hung_up: list[int] = []
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not where `nohup` has it ignored
        signal.signal(signal.SIGHUP, functools.partial(hang_up, hung_up))
    command, rest = (
        (COMMANDS[arguments[0]], arguments[1:])
        if arguments and arguments[0] in COMMANDS
        else (run_sweep, arguments)
    )
    try:
        status = command(rest)
        sys.stdout.flush()
        return 128 + signal.SIGHUP if hung_up else status
    except BrokenPipeError:
        leave_pipe(quiet="--dry-run" in rest or command is not run_sweep)
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"attnsweep: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(f"attnsweep: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("attnsweep: cut off", file=sys.stderr)
        return 128 + (signal.SIGHUP if hung_up else signal.SIGINT)


def leave_pipe(*, quiet: bool) -> None:
    """Writes no more to a pipe that nobody reads, as after `| head`; a sweep says so on standard error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not quiet:
        print(
            "attnsweep: cut off: nobody reads its output; finished rows are intact, the same command goes on",
            file=sys.stderr,
        )


def stop(number: int, frame: Any) -> None:
    """A polite kill ends a sweep as Ctrl-C does."""
    raise KeyboardInterrupt


def hang_up(received: list[int], number: int, frame: Any) -> None:
    """So does a terminal that is closed."""
    received.append(number)
    raise KeyboardInterrupt


def script() -> int:
    """The console script `attnsweep`."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(script())
