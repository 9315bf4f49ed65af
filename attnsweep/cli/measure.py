"""`attnsweep measure`."""

import argparse
from collections.abc import Sequence

from attnsweep.cli.options import add_address, add_results, add_serial
from attnsweep.core.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Latency of every architecture in the results, on this hardware."""
    parser = argparse.ArgumentParser(prog="python -m attnsweep measure", description=main.__doc__)
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
