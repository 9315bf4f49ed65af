"""Ray Tune's words for search spaces, for a machine without Ray.

A sweep file says `from ray import tune`. Where Ray is not installed, `importable()` lets it have these words
instead: each draws exactly what Ray's own draws from the same generator, so that a sweep has the same trials
with Ray and without.
"""

import contextlib
import importlib.util
import math
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState

Draw = Callable[[RandomState], Any]


@dataclass(frozen=True)
class Domain:
    """What a value is drawn from."""

    draw: Draw

    def sample(self, config: Any = None, size: int = 1, random_state: RandomState | None = None) -> Any:
        """One value."""
        return self.draw(random_state or RandomState())


class Function:
    """A value that follows from others, or that a user's function draws."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self.func = func
        self.pass_config = func.__code__.co_argcount > 0 if hasattr(func, "__code__") else True

    def sample(self, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        """What the function returns."""
        return self.func(config) if self.pass_config else self.func()


def grid_search(values: Sequence[Any]) -> dict[str, Any]:
    """Every one of the values."""
    return {"grid_search": values}


def sample_from(func: Callable[..., Any]) -> Function:
    """What a function of the other values returns."""
    return Function(func)


def choice(categories: Sequence[Any]) -> Domain:
    """One of the values."""
    known = list(categories)
    return Domain(lambda random: known[random.choice(range(len(known)), size=1)[0]])


def uniform(lower: float, upper: float) -> Domain:
    """A number between two others."""
    return Domain(lambda random: float(random.uniform(lower, upper, size=1)[0]))


def quniform(lower: float, upper: float, q: float) -> Domain:
    """The same, rounded to a multiple of q."""
    return Domain(rounded(uniform(round(lower / q) * q, round(upper / q) * q), q))


def loguniform(lower: float, upper: float) -> Domain:
    """A number between two others, whose logarithm is uniform."""
    return Domain(log_uniform(lower, upper))


def qloguniform(lower: float, upper: float, q: float) -> Domain:
    """The same, rounded to a multiple of q."""
    return Domain(rounded(loguniform(round(lower / q) * q, round(upper / q) * q), q))


def randint(lower: int, upper: int) -> Domain:
    """A whole number from `lower` to below `upper`."""
    return Domain(lambda random: int(random.randint(lower, upper, size=1)[0]))


def lograndint(lower: int, upper: int) -> Domain:
    """The same, whose logarithm is uniform."""
    draw = log_uniform(lower, upper)
    return Domain(lambda random: math.floor(draw(random)))


def qrandint(lower: int, upper: int, q: int = 1) -> Domain:
    """A multiple of q from `lower` to `upper`, which is left out where q is 1."""
    return Domain(multiple(randint, lower, upper, q))


def qlograndint(lower: int, upper: int, q: int) -> Domain:
    """The same, whose logarithm is uniform."""
    return Domain(multiple(lograndint, lower, upper, q))


def randn(mean: float = 0.0, sd: float = 1.0) -> Domain:
    """A number from a normal distribution."""
    return Domain(lambda random: float(random.normal(mean, sd, size=1)[0]))


def qrandn(mean: float, sd: float, q: float) -> Domain:
    """The same, rounded to a multiple of q."""
    return Domain(rounded(randn(mean, sd), q))


def log_uniform(lower: float, upper: float) -> Draw:
    """Draws numbers whose logarithm is uniform."""
    return lambda random: float(np.exp(random.uniform(np.log(lower), np.log(upper), size=1))[0])


def rounded(domain: Domain, q: float) -> Draw:
    """Draws from a domain, rounded to multiples of q."""
    return lambda random: float(np.round(np.divide(domain.draw(random), q)) * q)


def multiple(kind: Callable[[int, int], Domain], lower: int, upper: int, q: int) -> Draw:
    """Draws which multiple of q it is to be, so that each is as likely as `kind` has it."""
    domain = kind(math.ceil(lower / q), math.floor(upper / q) + (0 if q == 1 else 1))
    return lambda random: int(domain.draw(random) * q)


WORDS = (
    grid_search, sample_from, choice, uniform, quniform, loguniform, qloguniform, randint, lograndint,
    qrandint, qlograndint, randn, qrandn,
)  # fmt: skip


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Lets `from ray import tune` have these words, where Ray is not installed."""
    if has_ray():
        yield
        return
    ray, tune = types.ModuleType("ray"), types.ModuleType("ray.tune")
    vars(tune).update({word.__name__: word for word in WORDS})
    vars(ray).update(tune=tune, __path__=[])
    sys.modules.update({"ray": ray, "ray.tune": tune})
    try:
        yield
    finally:
        for name in ("ray", "ray.tune"):
            sys.modules.pop(name, None)


def has_ray() -> bool:
    """Whether Ray is installed."""
    try:
        return "ray" in sys.modules or importlib.util.find_spec("ray") is not None
    except ImportError:
        return False
