"""How models are run where they are used, which is what their latency depends on besides the device."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from attnsweep.core.cost import Cost
from attnsweep.core.errors import UserError, did_you_mean, known
from attnsweep.core.runtimes import RUNTIMES
from attnsweep.core.source import Source
from attnsweep.core.trial import Trial

PRECISIONS = ("fp32", "bf16", "int8")
QUANTISING = "onnxruntime"  # the runtime of int8
MOST = 1_000_000  # examples, or threads
SMALL_BATCH = 8  # up to which what dispatches a model's kernels rules its latency


@dataclass(frozen=True)
class Reference:
    """A small model that others are measured beside, by its name, which stands in rows, and its batch."""

    name: str
    batch: int


DISPATCH = Reference("2 blocks, 17 x 256, batch 1", 1)
COMPUTE = Reference("2 blocks, 17 x 256, batch 16", 16)


@dataclass(frozen=True)
class Deployment:
    """What runs a model, on how many examples at once, in which precision, on how many CPU threads."""

    runtime: str = "eager"
    batch: int = 1
    precision: str = "fp32"
    threads: int = 1

    @property
    def reference(self) -> Reference:
        """What it is measured beside."""
        return DISPATCH if self.batch <= SMALL_BATCH else COMPUTE


@dataclass(frozen=True)
class Deployments:
    """Every combination that is to be measured. Without `precision` a model is run in that of its training.

    The first runtime, the first number of threads, the smallest batch and, of throughput, the largest are
    those that the rows of trials show.
    """

    runtime: tuple[str, ...] = ("eager",)
    batch: tuple[int, ...] = (1, 256)
    threads: tuple[int, ...] = (1,)
    precision: tuple[str, ...] = ()

    @classmethod
    def of(cls, asked: Mapping[str, Any] | None, where: str = "latency") -> "Deployments":
        """What a sweep or a command asks for, a value or several for each key, the rest by default.

        Raises UserError for what is unknown or out of range; `where` is what the sentence calls it.
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
        if set(deployments.precision) == {"int8"} and QUANTISING not in deployments.runtime:
            raise UserError(f"{where}: precision='int8' is for runtime={QUANTISING!r}; name that one")
        return deployments

    @property
    def first(self) -> "Deployments":
        """What the rows of trials show: one deployment for each precision that is trained in."""
        return Deployments(self.runtime[:1], (min(self.batch),), self.threads[:1])

    def each(self, precision: str) -> Iterator[Deployment]:
        """All of them, for a model that was trained in that precision; int8 under the runtime that has it."""
        for runtime, batch, one, threads in itertools.product(
            self.runtime, self.batch, self.precision or (precision,), self.threads
        ):
            if one != "int8" or runtime == QUANTISING:
                yield Deployment(runtime, batch, one, threads)


def checked(key: str, value: Any, where: str) -> tuple[Any, ...]:
    """The values of one key, each once. Raises UserError as `Deployments.of` does."""
    values = (value,) if isinstance(value, str | int) or not isinstance(value, Sequence) else tuple(value)
    if not values:
        raise UserError(f"{where}: {key} names no value; name one, or leave it out")
    for one in values:
        if key in ("runtime", "precision"):
            known(f"{where}: {key}", str(one), RUNTIMES if key == "runtime" else PRECISIONS)
        elif isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= MOST:
            raise UserError(f"{where}: {key}={one!r} is out of range; use a whole number from 1 to {MOST:,}")
    return tuple(dict.fromkeys(values))


@dataclass(frozen=True)
class Subject:
    """What is measured: an architecture by its configuration, a user's own one with the text of its code.

    `cost` is what it is known to cost; None: it is counted.
    """

    arch_id: str
    config: Mapping[str, Any]
    source: Source | None = None
    cost: Cost | None = None


@dataclass(frozen=True)
class Weights:
    """Trials whose weights may have been kept, the best first; where weights and data are."""

    trials: tuple[Trial, ...]
    checkpoints: str
    data_dir: str


@dataclass(frozen=True)
class Ask:
    """One measurement to be made: of a subject, beside a reference that takes so many ms on that device; or,
    without a subject, of that reference itself. What changes the answers is judged anew, with `weights`.
    """

    deployment: Deployment
    subject: Subject | None = None
    reference_ms: float | None = None
    weights: Weights | None = None
