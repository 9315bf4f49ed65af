"""A trial: one fully specified point, and the hash that names it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from attnsweep.core.source import Source


@dataclass(frozen=True)
class Trial:
    """One fully specified point. Equal ids mean equal results."""

    trial_id: str
    arch_id: str
    config: Mapping[str, Any]  # every axis to its value; immutable
    data_sha256: str
    params: int
    macs: int | None  # None where a user's own model cannot be counted
    numerics: int = 0  # the version of what its task computes
    source: Source | None = None  # the text of a user's own model, for workers that have no such file
    data_columns: Mapping[str, Any] = field(default_factory=dict)  # of its row, on the data set
    cost_columns: Mapping[str, Any] = field(default_factory=dict)  # of its row, on cost besides params, macs

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", MappingProxyType(dict(self.config)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles `config` as a dict: a MappingProxyType cannot be pickled."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Trial, tuple((values | {"config": dict(self.config)}).values())

    def __deepcopy__(self, memo: dict[int, Any]) -> "Trial":
        """Itself, as it is immutable; Tune copies it several times."""
        return self

    def row(self) -> dict[str, Any]:
        """The columns of `trials` that are known before it has run."""
        return {
            "trial_id": self.trial_id,
            "arch_id": self.arch_id,
            **self.config,
            "params": self.params,
            "macs": self.macs,
            **self.cost_columns,
            "data_sha256": self.data_sha256,
            **self.data_columns,
            "numerics": self.numerics,
        }


@dataclass(frozen=True)
class Invalid:
    """A point that cannot be a trial, and why."""

    point: Mapping[str, Any]
    reason: str


def short_hash(content: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the SHA-256 of canonical JSON, without nulls: a new column changes no id."""
    known = {key: value for key, value in content.items() if value is not None}
    return hashlib.sha256(json.dumps(known, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]
