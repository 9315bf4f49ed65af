"""Draws what one value of an axis is worth over another, model by model: see attnsweep/figures/gains.py."""

import sys

from attnsweep.figures.gains import main

if __name__ == "__main__":
    sys.exit(main())
