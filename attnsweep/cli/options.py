"""Options that several commands share."""

import argparse


def add_results(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """Adds the option that says where results are; `positional`, where a command has no other argument, also
    as an argument without its name.
    """
    parser.add_argument(
        "--results", metavar="DIR", default="results", help="a folder or a URI; default results/"
    )
    if positional:
        parser.add_argument(
            "results", metavar="RESULTS", nargs="?", default=argparse.SUPPRESS, help="the same"
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


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says where data sets are."""
    parser.add_argument(
        "--data", metavar="DIR", help="data sets; default $ATTNSWEEP_DATA, else ~/.cache/attnsweep"
    )
