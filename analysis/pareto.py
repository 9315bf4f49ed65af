"""Draws quality against cost, and prints the fronts: see attnsweep/figures/front.py."""

import sys

from attnsweep.figures.front import main

if __name__ == "__main__":
    sys.exit(main())
