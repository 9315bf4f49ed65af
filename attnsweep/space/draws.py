"""Draws from the domains of one point of a sweep: seeded, and in the order in which functions need them.

Sample i of a key is the same in every cell, process and run. Ray Tune's own domains draw from a generator
that is handed to them. A function (`tune.sample_from`) draws from whatever it likes: the global generators of
numpy, `random` and torch are seeded around its call, and put back after it.
"""

import contextlib
import functools
import hashlib
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from attnsweep.core.errors import UserError, reason
from attnsweep.space.grid import Point, is_domain, is_function, is_grid, without_later

MOST_NESTED = 20  # domains that give domains, as deep as Ray Tune resolves them


def draw(cell: Point, sample: int) -> Point:
    """The cell with its domains drawn. Raises UserError where one cannot be drawn from."""
    domains = {key: value for key, value in cell.items() if is_domain(value)}
    known = {key: value for key, value in cell.items() if key not in domains}
    drawn = dict(Draws(known, domains, sample).all()) if domains else known
    return without_later(drawn) if "model" in domains else drawn


class Draws(dict[str, Any]):
    """A point's values, read by key or attribute; the value of a function is drawn when it is read."""

    def __init__(self, known: Point, domains: Mapping[str, Any], sample: int) -> None:
        super().__init__(known)
        self._sample = sample
        self._functions = {key: domain for key, domain in domains.items() if is_function(domain)}
        self._under_way: list[str] = []  # functions that have been called and have not returned
        for key, domain in domains.items():
            if not is_function(domain):
                self[key] = self._value(key, domain)

    def all(self) -> "Draws":
        """All values, with every function drawn."""
        for key in self._functions:
            self[key]
        return self

    def __missing__(self, key: str) -> Any:
        if key == "config":  # of `lambda spec: spec["config"]["depth"]`, as in Tune's older tutorials
            return self
        if key not in self._functions:
            raise KeyError(key)
        if key in self._under_way:
            circle = " -> ".join([*self._under_way[self._under_way.index(key) :], key])
            raise UserError(f"{key}: its tune.sample_from reads itself, by way of {circle}")
        self._under_way.append(key)
        try:
            self[key] = self._repeatable(key, self._functions[key])
        finally:
            self._under_way.pop()
        return self[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self._functions

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def _repeatable(self, key: str, function: Any) -> Any:
        """What the function gives. Raises UserError where it gives another value the second time."""
        torch, first = "torch" in sys.modules, self._value(key, function)
        if torch < ("torch" in sys.modules):  # it was imported only now: what it drew was not seeded
            first = self._value(key, function)
        second = self._value(key, function)
        if repr(first) != repr(second):
            raise UserError(
                f"{key}: its tune.sample_from gives another value each time, as {first!r} and {second!r}; "
                "draw with the functions of numpy.random or random, which are seeded around it"
            )
        return first

    def _value(self, key: str, domain: Any) -> Any:
        """A value that is no domain itself."""
        value = domain
        for depth in range(MOST_NESTED):
            if not is_domain(value):
                break
            value = self._drawn(key, value, depth)
        if is_domain(value) or is_grid(value):
            kind = "a grid" if is_grid(value) else "domains without end"
            raise UserError(f"{key}: a draw gave {kind}; use tune.choice for one of several values")
        return value

    def _drawn(self, key: str, domain: Any, depth: int) -> Any:
        seed = seed_of(f"{key}:{self._sample}" if depth == 0 else f"{key}:{self._sample}:{depth}")
        try:
            if not is_function(domain):
                return domain.sample(config=self, random_state=seeded(seed))
            with seeded_globals(seed):  # Ray Tune's own call would hide an error behind that of a second try
                return domain.func(self) if domain.pass_config else domain.func()
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            what = "its tune.sample_from raised" if is_function(domain) else "nothing can be drawn from it:"
            raise UserError(f"{key}: {what} {reason(error)}") from error


def seed_of(text: str) -> int:
    """32 bits that any process makes of the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


@functools.cache
def generator() -> np.random.RandomState:
    """The one generator of all draws, seeded for each: making one takes 80 us, seeding it 1 us."""
    return np.random.RandomState()


def seeded(seed: int) -> np.random.RandomState:
    """The generator at the beginning of the stream of a seed."""
    generator().seed(seed)
    return generator()


@contextlib.contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seeds the global generators of `random`, numpy and, where it is imported, torch, and with them what
    `np.random.default_rng()` gives; puts them back.
    """
    torch, new = sys.modules.get("torch"), np.random.default_rng
    before = random.getstate(), np.random.get_state(), torch.get_rng_state() if torch else None
    random.seed(seed)
    np.random.seed(seed)
    if torch:
        torch.default_generator.manual_seed(seed)
    np.random.default_rng = lambda seed=None: new(np.random.randint(2**31) if seed is None else seed)
    try:
        yield
    finally:
        np.random.default_rng = new
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch:
            torch.set_rng_state(before[2])
