"""Two settings or two folders of results, paired example by example: see attnsweep/figures/compare.py."""

import sys

from attnsweep.figures.compare import main

if __name__ == "__main__":
    sys.exit(main())
