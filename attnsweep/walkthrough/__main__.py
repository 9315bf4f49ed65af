"""The command line of the walkthrough."""

import argparse
import sys
from collections.abc import Sequence

from attnsweep.core.errors import one_of
from attnsweep.core.terminal import exit_status
from attnsweep.walkthrough.paper import from_tokens_to_loss
from attnsweep.walkthrough.reader import Reader
from attnsweep.walkthrough.stations import STATIONS, around_attention, visit


def walk(names: Sequence[str] = (), say: Reader | None = None) -> None:
    """All of it, or the variants that are named. Raises UserError for an unknown one."""
    say = say or Reader()
    for name in names:
        one_of("variant", name, STATIONS)
    if not names:
        from_tokens_to_loss(say)
    for name in names or STATIONS:
        visit(name, say)
    if not names:
        around_attention(say)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m attnsweep.walkthrough", description=walk.__doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"some of {', '.join(STATIONS)}")
    parser.add_argument("--list", action="store_true", help="name them")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:<13} {one.what} ({one.source})" for name, one in STATIONS.items()))
        return
    walk(options.variants)


if __name__ == "__main__":
    sys.exit(exit_status(main))
