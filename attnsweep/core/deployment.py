"""How a model is deployed (runtime, batch, precision, threads), on which its latency depends besides the
device.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from attnsweep.core.cost import Cost
from attnsweep.core.errors import UserError, did_you_mean, one_of
from attnsweep.core.runtimes import RUNTIMES
from attnsweep.core.source import Source
from attnsweep.core.trial import Trial

PRECISIONS = ("fp32", "bf16", "int8")
QUANTISING = "onnxruntime"  # the runtime of int8
MOST = 1_000_000  # examples, or threads
SMALL_BATCH = 8  # up to which what dispatches a model's kernels rules its latency


@dataclass(frozen=True)
class Reference:
    """A small model that others are timed in alternation with."""

    name: str
    batch: int


DISPATCH = Reference("2 blocks, 17 x 256, batch 1", 1)
COMPUTE = Reference("2 blocks, 17 x 256, batch 16", 16)


@dataclass(frozen=True)
class Deployment:
    """How a model is run: `batch` is the examples of a forward pass, `threads` those of the CPU."""

    runtime: str = "eager"
    batch: int = 1
    precision: str = "fp32"
    threads: int = 1

    @property
    def reference(self) -> Reference:
        """The model that it is timed in alternation with."""
        return DISPATCH if self.batch <= SMALL_BATCH else COMPUTE


@dataclass(frozen=True)
class Deployments:
    """The deployments to measure, every combination; without `precision` in that of a model's training.

    Rows of trials show the first runtime and threads, and the smallest batch; throughput is of the largest.
    """

    runtime: tuple[str, ...] = ("eager",)
    batch: tuple[int, ...] = (1, 256)
    threads: tuple[int, ...] = (1,)
    precision: tuple[str, ...] = ()

    @classmethod
    def of(cls, asked: Mapping[str, Any] | None, where: str = "latency") -> "Deployments":
        """From a sweep or a command: a value, or several, for each key; the rest by default.

        Raises UserError for an unknown key or value; `where` names the argument in the message.
        """
        if asked is None:
            return cls()
        if not isinstance(asked, Mapping):
            raise UserError(f"{where}={asked!r} is not a dict; write {where}={{'runtime': ['eager']}}")
        names = [field.name for field in fields(cls)]
        for key in asked:
            if key not in names:
                hint = did_you_mean(key, names) or f"; use {', '.join(names)}"
                raise UserError(f"{where}: {key!r} is unknown{hint}")
        deployments = cls(**{key: checked(key, value, where) for key, value in asked.items()})
        if "int8" in deployments.precision and QUANTISING not in deployments.runtime:
            raise UserError(f"{where}: precision='int8' is for runtime={QUANTISING!r}; name that one")
        return deployments

    @property
    def first(self) -> "Deployments":
        """The deployments that the rows of trials show: one for each precision of training."""
        return Deployments(self.runtime[:1], (min(self.batch),), self.threads[:1])

    def each(self, precision: str) -> Iterator[Deployment]:
        """All deployments of a model that was trained in `precision`; int8 only under its runtime."""
        for runtime, batch, one, threads in itertools.product(
            self.runtime, self.batch, self.precision or (precision,), self.threads
        ):
            if one != "int8" or runtime == QUANTISING:
                yield Deployment(runtime, batch, one, threads)


def checked(key: str, value: Any, where: str) -> tuple[Any, ...]:
    """The distinct values of one key. Raises UserError as `Deployments.of` does."""
    values = (value,) if isinstance(value, str | int) or not isinstance(value, Sequence) else tuple(value)
    if not values:
        raise UserError(f"{where}: {key} names no value; name one, or leave it out")
    for one in values:
        if key in ("runtime", "precision"):
            one_of(f"{where}: {key}", str(one), RUNTIMES if key == "runtime" else PRECISIONS)
        elif isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= MOST:
            raise UserError(f"{where}: {key}={one!r} is out of range; use a whole number from 1 to {MOST:,}")
    return tuple(dict.fromkeys(values))


@dataclass(frozen=True)
class Subject:
    """The architecture to measure; `source`: the code of a user's model; `cost`: counted if it is None."""

    arch_id: str
    config: Mapping[str, Any]
    source: Source | None = None
    cost: Cost | None = None


@dataclass(frozen=True)
class Weights:
    """Trials whose weights may have been kept, the best first, and the folders of weights and data."""

    trials: tuple[Trial, ...]
    checkpoints: str
    data_dir: str


@dataclass(frozen=True)
class Ask:
    """A request for one measurement: of a subject, in units of the reference; or, without a subject, of the
    reference itself, in ms. A deployment that changes the answers (int8) is judged anew, with `weights`.
    """

    deployment: Deployment
    subject: Subject | None = None
    weights: Weights | None = None
