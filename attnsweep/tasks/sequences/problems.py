"""Sequence problems with exact answers: drawn, never stored, the same for every trial.

A token is a number: 0 pads, 1 begins an answer, 2 ends it, the symbols of a problem follow.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PAD, BEGIN, END, FIRST = 0, 1, 2, 3
BRACKETS = 4  # kinds of bracket in `dyck`
HELD_OUT = ("val", "test", "long")
SIGNS = {"addition": "0123456789+", "dyck": "([{<)]}>"}  # of the symbols; those of the others are numbers
GENERATOR = 1  # raised when a change to this file changes what is drawn: finished trials then run again
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """One problem; `draw(lengths, rng)` gives as many questions (n, s) and their answers (n, t), int64.

    A question has as many symbols as its length says. Both are padded on the right. An answer ends with END,
    and has at most one token more than its question.
    """

    name: str
    symbols: int
    draw: Callable[[np.ndarray, np.random.Generator], Pair]
    train_size: int = 20_000  # fresh examples in each epoch
    val_size: int = 500
    test_size: int = 1_000
    is_folder: bool = False

    @property
    def num_classes(self) -> int:
        """The words of the vocabulary."""
        return FIRST + self.symbols

    @property
    def sha256(self) -> str:
        """What stands for the checksum of files: names the generator, the problem and its sizes."""
        sizes = (self.symbols, self.train_size, self.val_size, self.test_size)
        return hashlib.sha256(f"{GENERATOR} {self.name} {sizes}".encode()).hexdigest()

    def checksum(self, data_dir: Path) -> str:
        """`sha256`, wherever data lie: nothing is read."""
        return self.sha256

    def is_here(self, data_dir: Path) -> bool:
        """Always: it is drawn."""
        return True

    def ensure(self, data_dir: Path) -> None:
        """There are no files."""

    def prepare(self, data_dir: Path, *, workers: object, progress: object) -> None:
        """Each worker draws its examples by itself."""


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
    for place in range(total.shape[1] - 1, 0, -1):
        total[:, place - 1] += total[:, place] // 10
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


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("reverse", 10, reverse),
        Problem("sort", 32, sort),
        Problem("addition", 11, addition),
        Problem("dyck", 2 * BRACKETS, dyck),
    )
}


def sign(problem: Problem, token: int) -> str:
    """A token as people write it: `7`, `+`, `(`, or `end`; padding and the beginning are nothing."""
    if token < FIRST:
        return "end" if token == END else ""
    return SIGNS[problem.name][token - FIRST] if problem.name in SIGNS else str(token - FIRST)


def epoch(problem: Problem, length: int, number: int) -> Pair:
    """The training examples of one epoch: half of them of `length` symbols, half of 1 to `length`.

    A batch is as wide as its longest example, so the long ones cost nothing.
    """
    rng, size = np.random.default_rng((GENERATOR, number)), problem.train_size
    lengths = np.where(rng.random(size) < 0.5, length, rng.integers(1, length + 1, size))
    return problem.draw(lengths, rng)


def held_out(problem: Problem, length: int, part: str) -> Pair:
    """The examples that judge: `val` and `test` of exactly `length` symbols, `long` of twice as many."""
    size = problem.test_size if part == "test" else problem.val_size
    rng = np.random.default_rng((GENERATOR, 2**32 + HELD_OUT.index(part)))  # no epoch has that number
    return problem.draw(np.full(size, 2 * length if part == "long" else length), rng)
