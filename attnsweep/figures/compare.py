"""Two settings or two folders of results, paired example by example.

python -m attnsweep compare results/ 85f272 1b9d0e      two trials' settings
python -m attnsweep compare before/ after/              the settings that both folders have
"""

import argparse
from collections.abc import Sequence

from attnsweep.answers import compare, selection
from attnsweep.core.clean import cleaned, lines
from attnsweep.core.errors import UserError
from attnsweep.core.terminal import exit_status
from attnsweep.figures.arguments import add_where, command_parser, narrowed
from attnsweep.results.loading import load


def run(options: argparse.Namespace) -> None:
    """Prints the comparison that the options ask for."""
    first, second, *third = options.what
    if len(third) > 1:
        raise UserError("name two folders of results, or one and two trials")
    frames = [load(first, status=None, all_columns=True)]
    if third:
        frame = selection.where(frames[0], options.where)
        found = compare.of_settings(cleaned(frame), second, third[0], options.quality)
    else:
        frames.append(load(second, status=None, all_columns=True))
        one, other = (cleaned(narrowed(frame, options)) for frame in frames)
        found = compare.of_folders(one, other, options.quality)
    print(lines(compare.in_words(found)))


def main(given: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = command_parser("compare", __doc__)
    text = "two folders; or a folder and the ids of two trials"
    parser.add_argument("what", nargs="+", metavar="A B", help=text)
    parser.add_argument("--quality", help="the column that is compared; default: that of the test")
    parser.add_argument("--dataset", help="the data set; needed where the folders have several")
    add_where(parser)
    options = parser.parse_args(given)
    if len(options.what) < 2:
        parser.error("name two folders of results, or one and two trials")
    return exit_status(lambda: run(options))
