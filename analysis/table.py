"""Prints the results as a Markdown table: see attnsweep/figures/table.py."""

import sys

from attnsweep.figures.table import main

if __name__ == "__main__":
    sys.exit(main())
