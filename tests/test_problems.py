import subprocess
import sys

import numpy as np
import pytest

from attnsweep.tasks.sequences import problems
from attnsweep.tasks.sequences.problems import BEGIN, BRACKETS, END, FIRST, HELD_OUT, PAD, PROBLEMS, Problem

ALL = list(PROBLEMS.values())


def read(tokens: np.ndarray) -> list[int]:
    """A row without its padding."""
    return [int(token) for token in tokens if token != PAD]


def answer_by_hand(name: str, question: list[int]) -> list[int]:
    """The answer as a person would find it, without its end."""
    if name == "reverse":
        return question[::-1]
    if name == "sort":
        return sorted(question)
    if name == "addition":
        plus = question.index(FIRST + 10)
        numbers = [
            "".join(str(token - FIRST) for token in part) for part in (question[:plus], question[plus + 1 :])
        ]
        total = str(int(numbers[0]) + int(numbers[1])).zfill(plus + 1)
        return [FIRST + int(digit) for digit in total]
    stack: list[int] = []
    for token in question:
        kind = token - FIRST
        if kind < BRACKETS:
            stack.append(kind)
        else:
            assert stack.pop() == kind - BRACKETS, "a bracket closes the one that was opened last"
    return [FIRST + BRACKETS + kind for kind in reversed(stack)]


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
def test_every_answer_is_the_one_that_is_found_by_hand(problem: Problem) -> None:
    lengths = np.random.default_rng(0).integers(1, 20, 300)
    for question, answer in zip(*problem.draw(lengths, np.random.default_rng(1)), strict=True):
        assert read(answer) == [*answer_by_hand(problem.name, read(question)), END]


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
def test_padding_stands_only_behind_and_all_tokens_are_words_of_the_vocabulary(problem: Problem) -> None:
    for tokens in problems.epoch(problem, 9, 0):
        held = tokens != PAD
        assert (np.diff(held.astype(int), axis=1) <= 0).all(), "no token after padding"
        assert tokens.dtype == np.int64 and 0 <= tokens.min() and tokens.max() < problem.num_classes
        assert not (tokens == BEGIN).any()


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
def test_a_question_is_as_long_as_was_asked_and_an_answer_at_most_a_token_longer(problem: Problem) -> None:
    lengths = np.array([3, 5, 11, 16, 17])
    questions, answers = problem.draw(lengths, np.random.default_rng(0))
    for length, question, answer in zip(lengths, questions, answers, strict=True):
        even = problem.name == "addition" and length % 2 == 0  # two equal numbers and a plus are odd
        assert len(read(question)) == length - even
        assert len(read(answer)) <= length + 1


def test_every_length_up_to_the_longest_is_trained_on() -> None:
    questions, _ = problems.epoch(PROBLEMS["reverse"], 16, 0)
    assert set((questions != PAD).sum(axis=1).tolist()) == set(range(1, 17))


@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
def test_what_judges_is_of_the_longest_and_of_twice_that_and_shares_no_question(problem: Problem) -> None:
    parts = {part: problems.held_out(problem, 16, part)[0] for part in HELD_OUT}
    longest = {part: int((questions != PAD).sum(axis=1).max()) for part, questions in parts.items()}
    assert longest["val"] == longest["test"] >= 15 and longest["long"] >= 31
    seen = {tuple(read(question)) for question in problems.epoch(problem, 16, 0)[0]}
    val, test = ({tuple(read(question)) for question in parts[part]} for part in ("val", "test"))
    assert not val & test and not (val | test) & seen


def test_epochs_are_fresh_and_the_same_for_every_trial() -> None:
    problem = PROBLEMS["sort"]
    first, again, other = (problems.epoch(problem, 8, number)[0] for number in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_examples_are_the_same_in_another_process() -> None:
    """Finished trials had these: where they change, GENERATOR rises."""
    code = (
        "import hashlib\nfrom attnsweep.tasks.sequences.problems import *\n"
        "print(*[hashlib.sha256(b''.join(part.tobytes() for part in epoch(p, 16, 3))).hexdigest()[:8]"
        " for p in PROBLEMS.values()])"
    )
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert printed == KNOWN


KNOWN = ["dc3a33fd", "9cab32d8", "742b38ca", "43c31987"]


def test_half_of_all_additions_carry_and_half_of_all_brackets_are_left_open() -> None:
    """Problems that could be solved without what they are about would teach nothing."""
    questions, _ = problems.held_out(PROBLEMS["addition"], 15, "test")
    digits = questions[:, :7] + questions[:, 8:] - 2 * FIRST
    assert ((digits >= 10).any(axis=1)).mean() > 0.5
    _, closing = problems.held_out(PROBLEMS["dyck"], 16, "test")
    assert 2 < (closing != PAD).sum(axis=1).mean() < 12


def test_another_problem_or_size_is_other_data() -> None:
    assert len({problem.sha256 for problem in ALL}) == len(ALL)
    larger = Problem("sort", 64, problems.sort)
    assert larger.sha256 != PROBLEMS["sort"].sha256
