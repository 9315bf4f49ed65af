"""An option that commands share which show latencies."""

import argparse

from attnsweep.core.runtimes import RUNTIMES


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Adds the option that chooses what ran the models as their latency was measured."""
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="latency under this runtime; default: the first that each sweep measured",
    )
