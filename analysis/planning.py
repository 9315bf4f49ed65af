"""Draws how planners drive, and renders a drive as a film: see attnsweep/figures/planning.py."""

import sys

from attnsweep.figures.planning import main

if __name__ == "__main__":
    sys.exit(main())
