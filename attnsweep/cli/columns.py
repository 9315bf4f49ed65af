"""`attnsweep columns`: every column of every table."""

import argparse
from collections.abc import Sequence

from rich.table import Table

from attnsweep.core.terminal import Screen, is_terminal
from attnsweep.results.schema import TABLES


def main(arguments: Sequence[str]) -> int:
    """Prints every column of every table with its type, unit and meaning."""
    argparse.ArgumentParser(prog="python -m attnsweep columns", description=main.__doc__).parse_args(
        arguments
    )
    screen = Screen(force_terminal=is_terminal(), width=None if is_terminal() else 120)
    for name, described in TABLES.items():
        table = Table(
            title=f"{name} ({len(described)} columns)", box=None, title_justify="left", header_style="dim"
        )
        for title in ("column", "type", "unit", "meaning"):
            table.add_column(title, no_wrap=title == "column")
        for column in described:
            table.add_row(column.name, str(column.type), column.unit, column.meaning)
        screen.print(table, end="\n\n")
    return 0
