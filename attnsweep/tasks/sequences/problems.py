"""Sequence problems with exact answers: drawn, never stored, the same for every trial.

A token is a number: 0 pads, 1 begins an answer, 2 ends it, the symbols of a problem follow.

No question of validation is one of test, and no question of either is in a training epoch, which draws
another in its place. Where a length has few questions, validation and test have a tenth of them each; a
length with fewer than LEAST_QUESTIONS is refused.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attnsweep.core.errors import UserError
from attnsweep.tasks.task import Ready

PAD, BEGIN, END, FIRST = 0, 1, 2, 3
BRACKETS = 4  # kinds of bracket in `dyck`
HELD_OUT = ("val", "test", "long")
PARTS = (*HELD_OUT, "longer")  # all that judge, in the order of their draws
TIMES = {"long": 2, "longer": 4}  # the length of training
SIGNS = {"addition": "0123456789+", "dyck": "([{<)]}>"}  # of the symbols; those of the others are numbers
GENERATOR = 1  # raised when a change to this file changes what is drawn: finished trials then run again
LEAST_QUESTIONS = 50  # of a length that can be trained on and judged
HELD_OUT_ONE_IN = 10  # validation, and test, have at most one in so many of the questions of their length
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Problem(Ready):
    """One problem; `draw(lengths, rng)` gives as many questions (n, s) and their answers (n, t), int64.

    A question has as many symbols as its length says. Both are padded on the right. An answer ends with END,
    and has at most one token more than its question. `count(length)` is the number of questions of a
    length, where not every sequence of symbols is one.
    """

    name: str
    symbols: int
    draw: Callable[[np.ndarray, np.random.Generator], Pair]
    count: Callable[[int], int] | None = None
    train_size: int = 20_000  # fresh examples in each epoch
    val_size: int = 500
    test_size: int = 1_000
    is_folder: bool = False

    @property
    def num_classes(self) -> int:
        """The words of the vocabulary."""
        return FIRST + self.symbols

    def questions(self, length: int) -> int:
        """The number of different questions of a length."""
        return self.count(length) if self.count else self.symbols**length

    @property
    def shortest(self) -> int:
        """The least length with LEAST_QUESTIONS questions."""
        return next(n for n in itertools.count(1) if self.questions(n) >= LEAST_QUESTIONS)

    @property
    def sha256(self) -> str:
        """What stands for the checksum of files: names the generator, the problem and its sizes."""
        sizes = (self.symbols, self.train_size, self.val_size, self.test_size)
        return hashlib.sha256(f"{GENERATOR} {self.name} {sizes}".encode()).hexdigest()

    def checksum(self, data_dir: Path) -> str:
        """`sha256`, wherever data lie: nothing is read."""
        return self.sha256


def padded(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`values` (n, s) with PAD from each row's length on."""
    return np.where(np.arange(values.shape[1]) < lengths[:, None], values, PAD)


def ended(answers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`answers` (n, t) as (n, t + 1): each row with END after its `lengths` tokens, then PAD."""
    longer = np.pad(padded(answers, lengths), ((0, 0), (0, 1)))
    longer[np.arange(len(longer)), lengths] = END
    return longer


def symbols(lengths: np.ndarray, kinds: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform symbols (n, longest), padded."""
    return padded(rng.integers(FIRST, FIRST + kinds, (len(lengths), lengths.max())), lengths)


def reverse(lengths: np.ndarray, rng: np.random.Generator) -> Pair:
    """Digits; the answer is the same digits from the last to the first."""
    question = symbols(lengths, 10, rng)
    source = (lengths[:, None] - 1 - np.arange(question.shape[1])).clip(0)
    return question, ended(np.take_along_axis(question, source, axis=1), lengths)


def sort(lengths: np.ndarray, rng: np.random.Generator) -> Pair:
    """Numbers below 32; the answer is the same numbers from the least to the greatest."""
    question = symbols(lengths, 32, rng)
    last = np.iinfo(question.dtype).max
    return question, ended(np.sort(np.where(question == PAD, last, question), axis=1), lengths)


def addition(lengths: np.ndarray, rng: np.random.Generator) -> Pair:
    """Two numbers of as many decimal digits with a plus between; the answer is their sum, a digit longer.

    A question of 16 symbols would have no room for equal numbers: it has 15. The most significant digit comes
    first, so the answer's first token may hang on all of the question.
    """
    digits = np.maximum(1, (lengths - 1) // 2)
    longest, plus = int(digits.max()), FIRST + 10
    first, second = rng.integers(0, 10, (2, len(digits), longest))
    question = np.full((len(digits), 2 * longest + 1), PAD)
    answer = np.zeros((len(digits), longest + 1), dtype=np.int64)
    for count in np.unique(digits):
        chosen = digits == count
        a, b = first[chosen, :count], second[chosen, :count]
        question[chosen, : 2 * count + 1] = np.hstack([a + FIRST, np.full((len(a), 1), plus), b + FIRST])
        answer[chosen, : count + 1] = digits_of_sum(a, b) + FIRST
    return question, ended(answer, digits + 1)


def digits_of_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The digits (n, l + 1) of a + b, each (n, l), the most significant first."""
    total = np.pad(a + b, ((0, 0), (1, 0)))
    for digit in range(total.shape[1] - 1, 0, -1):
        total[:, digit - 1] += total[:, digit] // 10
    return total % 10


def dyck(lengths: np.ndarray, rng: np.random.Generator) -> Pair:
    """The beginning of a string of nested brackets of four kinds; the answer closes what is open.

    Each symbol opens with probability 0.6, and always where nothing is open.
    """
    n, longest = len(lengths), int(lengths.max())
    question, stack = np.full((n, longest), PAD), np.zeros((n, longest + 1), dtype=np.int64)
    kinds, opens, rows = rng.integers(0, BRACKETS, (n, longest)), rng.random((n, longest)) < 0.6, np.arange(n)
    height = np.zeros(n, dtype=np.int64)
    for i in range(longest):
        more, opening = i < lengths, opens[:, i] | (height == 0)
        top = stack[rows, np.maximum(height - 1, 0)]
        question[:, i] = np.where(opening, FIRST + kinds[:, i], FIRST + BRACKETS + top)
        stack[rows, height] = np.where(more & opening, kinds[:, i], stack[rows, height])
        height += np.where(more, np.where(opening, 1, -1), 0)
    order = (height[:, None] - 1 - np.arange(longest)).clip(0)
    closing = FIRST + BRACKETS + np.take_along_axis(stack, order, axis=1)
    return padded(question, lengths), ended(closing, height)


@functools.cache
def bracket_strings(length: int) -> int:
    """The number of questions of `dyck`: a bracket of any kind opens, only the one opened last closes."""
    strings = [1]  # by how many brackets are open: 0, 1, ...
    for _ in range(length):
        opening, closing = [0, *(BRACKETS * number for number in strings)], [*strings[1:], 0, 0]
        strings = [one + other for one, other in zip(opening, closing, strict=True)]
    return sum(strings)


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("reverse", 10, reverse),
        Problem("sort", 32, sort),
        Problem("addition", 11, addition, lambda length: 100 ** ((length - 1) // 2) if length >= 3 else 0),
        Problem("dyck", 2 * BRACKETS, dyck, bracket_strings),
    )
}


def sign(problem: Problem, token: int) -> str:
    """A token as people write it: `7`, `+`, `(`, or `end`; padding and the beginning are nothing."""
    if token < FIRST:
        return "end" if token == END else ""
    return SIGNS[problem.name][token - FIRST] if problem.name in SIGNS else str(token - FIRST)


def epoch(problem: Problem, length: int, number: int) -> Pair:
    """The training examples of one epoch: half of them of `length` symbols, half of 1 to `length`.

    None of the questions is one of `val` or `test` at this length. A batch is as wide as its longest example,
    so the long ones cost nothing.
    """
    rng, size = np.random.default_rng((GENERATOR, number)), problem.train_size
    lengths = np.where(rng.random(size) < 0.5, length, rng.integers(1, length + 1, size))
    questions, answers = problem.draw(lengths, rng)
    rows = held_out_rows(problem, length, questions)
    while rows.size:  # all of the greatest length, so that what is drawn for them is as wide
        questions[rows], answers[rows] = problem.draw(lengths[rows], rng)
        rows = rows[held_out_rows(problem, length, questions[rows])]
    return questions, answers


def held_out_rows(problem: Problem, length: int, questions: np.ndarray) -> np.ndarray:
    """Which of the questions (n, s) are held out, ascending."""
    judging = keys(problem, length, "val") | keys(problem, length, "test")
    return np.flatnonzero([question.tobytes() in judging for question in questions])


@functools.lru_cache(maxsize=16)
def keys(problem: Problem, length: int, part: str) -> frozenset[bytes]:
    """The questions of a part, each as the bytes of its tokens."""
    return frozenset(question.tobytes() for question in held_out(problem, length, part)[0])


def held_out(problem: Problem, length: int, part: str) -> Pair:
    """The examples that judge: `val` and `test` of `length` symbols, `long` of twice, `longer` of four times.

    No question is in a part twice, nor in both `val` and `test`. A part is smaller than the problem says
    where its length has few questions. Raises UserError as `check_length` does.
    """
    check_length(problem, length)
    rng = np.random.default_rng((GENERATOR, 2**32 + PARTS.index(part)))  # no epoch has that number
    others = keys(problem, length, "val") if part == "test" else frozenset()
    length = TIMES.get(part, 1) * length
    wanted = problem.test_size if part == "test" else problem.val_size
    size = min(wanted, problem.questions(length) // HELD_OUT_ONE_IN)
    return distinct(problem, length, size, rng, others)


def distinct(
    problem: Problem, length: int, size: int, rng: np.random.Generator, others: frozenset[bytes]
) -> Pair:
    """The first `size` examples drawn whose questions differ from one another and from `others`."""
    found: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    while len(found) < size:
        for question, answer in zip(*problem.draw(np.full(size, length), rng), strict=True):
            if (key := question.tobytes()) not in others:
                found.setdefault(key, (question, answer))
    questions, answers = zip(*itertools.islice(found.values(), size), strict=True)
    return np.stack(questions), np.stack(answers)


def check_length(problem: Problem, length: int) -> None:
    """Raises UserError for a length that has fewer than LEAST_QUESTIONS questions."""
    if length < problem.shortest:
        raise UserError(
            f"length={length} leaves {problem.name} {problem.questions(length)} questions, too few to train "
            f"on some and to test on others; use {problem.shortest} or more"
        )
