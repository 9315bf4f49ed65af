"""`attnsweep sample`: text that a trained model writes after a prompt."""

import argparse
from collections.abc import Sequence

from attnsweep.cli.options import add_data, add_results
from attnsweep.core.clean import lines
from attnsweep.core.errors import UserError
from attnsweep.space import plan
from attnsweep.space.rerun import find_trial, refuse_unfinished, trial_of
from attnsweep.tasks.registry import TASKS

MOST_TOKENS = 100_000


def main(arguments: Sequence[str]) -> int:
    """Prints what the model of a trial on text writes after a prompt.

    It has the weights of the selected epoch, those that the sweep kept (keep_weights=True) or the trial is
    trained again.
    """
    parser = argparse.ArgumentParser(prog="python -m attnsweep sample", description=main.__doc__)
    add = parser.add_argument
    add("trial_id", metavar="TRIAL_ID", help="the id, or its first digits")
    add("prompt", nargs="?", default="", help="what the text begins with; default nothing")
    add("--tokens", type=int, default=300, help="how many are written; default 300")
    add("--temperature", type=float, default=0.8, help="0: always the likeliest; default 0.8")
    add("--top", type=int, default=0, metavar="N", help="one of the N likeliest; default any")
    add("--seed", type=int, default=0)
    add_results(parser)
    add_data(parser)
    options = parser.parse_args(arguments)
    check(options)
    print(sampled(options))
    return 0


def check(options: argparse.Namespace) -> None:
    """Raises UserError where a number is out of range."""
    if not 1 <= options.tokens <= MOST_TOKENS:
        raise UserError(f"--tokens {options.tokens} is out of range; use 1 to {MOST_TOKENS:,}")
    if not 0 <= options.temperature < float("inf"):
        raise UserError(f"--temperature {options.temperature:g} is out of range; use 0 or more")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed {options.seed} is out of range; use 0 to {2**63 - 1}")
    if options.top < 0:
        raise UserError(f"--top {options.top} is out of range; use 1 or more, or 0 for any")


def sampled(options: argparse.Namespace) -> str:
    """The prompt and what follows it. Raises UserError where the trial writes no text, or is not done."""
    row = find_trial(options.results, options.trial_id)
    continued = TASKS[row["task"]].continued
    if continued is None:
        writers = ", ".join(name for name, task in TASKS.items() if task.continued)
        raise UserError(
            f"trial {row['trial_id']} is of {row['task']}, which writes no text; choose one of {writers}"
        )
    refuse_unfinished(row)
    folders = plan.folders_of(options.results, options.data)
    one = trial_of(row, folders.data)
    from attnsweep.training.trained import trained  # here: torch takes seconds to import

    model = trained(row, one, runs=folders.checkpoints, data=folders.data)
    text = continued(
        model, dict(one.config), options.prompt,
        tokens=options.tokens, temperature=options.temperature, top=options.top, seed=options.seed,
    )  # fmt: skip
    return lines(text)
