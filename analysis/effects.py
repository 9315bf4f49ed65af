"""Which axis matters, and whether that is real: see attnsweep/figures/effects.py."""

import sys

from attnsweep.figures.effects import main

if __name__ == "__main__":
    sys.exit(main())
