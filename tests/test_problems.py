import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attnsweep.core.errors import UserError
from attnsweep.space.trials import arch_id_of, make_trial
from attnsweep.tasks.registry import TASKS, resolve
from attnsweep.tasks.sequences import problems
from attnsweep.tasks.sequences.problems import BEGIN, BRACKETS, END, FIRST, PAD, PROBLEMS, Problem

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


LENGTHS = [(problem, length) for problem in ALL for length in range(problem.shortest, 17)]


def questions_of(pair: problems.Pair) -> list[tuple[int, ...]]:
    return [tuple(read(question)) for question in pair[0]]


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "length"), LENGTHS, ids=lambda value: getattr(value, "name", value))
def test_at_every_length_no_question_that_judges_is_trained_on(problem: Problem, length: int) -> None:
    val, test = (questions_of(problems.held_out(problem, length, part)) for part in ("val", "test"))
    judging = {*val, *test}
    assert len(val) >= 9 <= len(test) and len(judging) == len(val) + len(test), "each question once"
    for number in range(3):
        asked = questions_of(problems.epoch(problem, length, number))
        assert len(asked) == problem.train_size and judging.isdisjoint(asked)
        longest = sum(len(question) == len(val[0]) for question in asked)
        assert longest > 0.5 * problem.train_size - 300, "half of them are still of the greatest length"


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "length"), LENGTHS, ids=lambda value: getattr(value, "name", value))
def test_what_judges_is_of_the_longest_and_of_twice_that(problem: Problem, length: int) -> None:
    odd = problem.name == "addition"  # two equal numbers and a plus
    for part, symbols in (("val", length), ("test", length), ("long", 2 * length), ("longer", 4 * length)):
        lengths = {len(question) for question in questions_of(problems.held_out(problem, length, part))}
        assert lengths == {symbols - (odd and symbols % 2 == 0)}


@pytest.mark.slow
@pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_questions_of_a_length_are_counted(problem: Problem, length: int) -> None:
    if (counted := problem.questions(length)) <= 1_024:  # more are not all drawn
        drawn = questions_of(problem.draw(np.full(100_000, length), np.random.default_rng(0)))
        at_length = 3 if problem.name == "addition" and length == 4 else length
        assert len({question for question in drawn if len(question) == at_length}) == counted


@pytest.mark.parametrize(
    ("name", "length", "questions", "least"),
    [("reverse", 1, 10, 2), ("sort", 1, 32, 2), ("addition", 2, 0, 3), ("dyck", 2, 20, 3)],
)
def test_a_length_with_too_few_questions_is_refused(
    name: str, length: int, questions: int, least: int
) -> None:
    expected = f"length={length} leaves {name} {questions} questions, too few .*; use {least} or more"
    for refusing in (
        lambda: problems.epoch(PROBLEMS[name], length, 0),
        lambda: problems.held_out(PROBLEMS[name], length, "test"),
        lambda: resolve({"model": "transformer", "dataset": name, "length": length}),
    ):
        with pytest.raises(UserError, match=expected):
            refusing()
    assert resolve({"model": "transformer", "dataset": name, "length": least})["length"] == least


def test_epochs_are_fresh_and_the_same_for_every_trial() -> None:
    problem = PROBLEMS["sort"]
    first, again, other = (problems.epoch(problem, 8, number)[0] for number in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.slow
def test_examples_are_the_same_in_another_process() -> None:
    """Finished trials had these: where they change, GENERATOR rises."""
    code = (
        "import hashlib\nfrom attnsweep.tasks.sequences.problems import *\n"
        "print(*[hashlib.sha256(b''.join(part.tobytes() for pair in (epoch(p, 16, 3), *(held_out(p, 16, one)"
        " for one in HELD_OUT)) for part in pair)).hexdigest()[:8] for p in PROBLEMS.values()])"
    )
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert printed == KNOWN


KNOWN = ["301e6cf1", "78ce1d1e", "aa0e5324", "310effb9"]


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


@pytest.mark.parametrize("length", [3, 15, 16, 17])
def test_trials_of_the_lengths_whose_examples_changed_run_again(length: int) -> None:
    """Below 16 symbols, what judges used to be trained on; from there on finished trials stay as they are."""
    config = resolve({"model": "transformer", "length": length})
    trial = make_trial(config, Path("nowhere"))
    assert trial.numerics == TASKS["sequences"].numerics + (length < 16)
    assert trial.arch_id == arch_id_of(config)
