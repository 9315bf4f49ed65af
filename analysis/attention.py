"""Draws what a finished trial attends to: see attnsweep/figures/attention.py."""

import sys

from attnsweep.figures.attention import main

if __name__ == "__main__":
    sys.exit(main())
