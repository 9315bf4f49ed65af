"""`python -m attnsweep` runs no file of the working directory, as the console script does not.

Python puts that directory first for `-m`, so that a `pandas.py` which somebody has left in a folder of
results would be run by whoever looks at them. It is taken out before anything else is imported; where the
package itself lies there, it is not found otherwise and stays. A sweep file finds what lies there, but last.
"""

import sys


def named() -> str:
    """The module that `python -m` is to run; empty where it was not asked to."""
    for i, word in enumerate(sys.orig_argv[1:], 1):
        if word == "-m":
            return "".join(sys.orig_argv[i + 1 : i + 2])
        if not word.startswith("-"):
            break
    return ""


def drop_working_directory() -> None:
    """See the module; `sys.argv` begins with `-m` as long as the module that is to run is looked for."""
    first, package = sys.path[:1], __file__.rpartition("/attnsweep/")[0]
    is_ours = sys.argv[:1] == ["-m"] and named().partition(".")[0] == "attnsweep"
    if is_ours and not sys.flags.safe_path and first != [package]:
        del sys.path[:1]


drop_working_directory()
