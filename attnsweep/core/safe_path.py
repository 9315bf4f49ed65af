"""Keeps `python -m attnsweep`, like the console script, from importing files of the working directory.

For `-m` Python puts that directory first on `sys.path`, so a `pandas.py` that somebody left in a folder of
results would run. It is removed before anything else is imported, unless the package itself is only found
there. A sweep file can import from it, but last.
"""

import sys


def named() -> str:
    """The module of `python -m MODULE`; empty for another command line."""
    for i, word in enumerate(sys.orig_argv[1:], 1):
        if word == "-m":
            return "".join(sys.orig_argv[i + 1 : i + 2])
        if not word.startswith("-"):
            break
    return ""


def drop_working_directory() -> None:
    """See the module. `sys.argv` begins with `-m` while Python looks for the module to run."""
    first, package = sys.path[:1], __file__.rpartition("/attnsweep/")[0]
    is_ours = sys.argv[:1] == ["-m"] and named().partition(".")[0] == "attnsweep"
    if is_ours and not sys.flags.safe_path and first != [package]:
        del sys.path[:1]


drop_working_directory()
