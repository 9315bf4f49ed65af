"""A process that measures the latency of one architecture, for `serial.FreshProcess`.

`python -m attnsweep.engine.measuring_process FILE` reads the arguments of `measure_once` from standard input,
and writes a `Measured` into the file.
"""

import pickle
import sys
from pathlib import Path

from attnsweep.engine.latency import measure_once

if __name__ == "__main__":
    measured = measure_once(*pickle.loads(sys.stdin.buffer.read()))
    Path(sys.argv[1]).write_bytes(pickle.dumps(measured))
