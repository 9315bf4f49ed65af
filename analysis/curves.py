"""Learning curves with bands over seeds: see attnsweep/figures/curves.py."""

import sys

from attnsweep.figures.curves import main

if __name__ == "__main__":
    sys.exit(main())
