"""Short names for trials: the axes in which they differ, and their values as people write them."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from attnsweep.core.axes import Value
from attnsweep.core.clean import clean
from attnsweep.core.labels import FOLLOW, fewest, model_name
from attnsweep.core.trial import Trial
from attnsweep.tasks.registry import AXES

RECIPE = [key for key, axis in AXES.items() if not axis.architecture and key not in ("dataset", "seed")]


def varying(trials: Sequence[Trial]) -> list[str]:
    """The columns in which trials of one model and data set differ, those two where they do, and those in
    which the training of two models on one data set differs.
    """
    seen: dict[tuple[str, ...], set[Value]] = defaultdict(set)
    for trial in trials:
        for key, value in trial.config.items():
            group = () if key in ("model", "dataset") else (trial.config["model"], trial.config["dataset"])
            seen[*group, key].add(value)
    several = {group[-1] for group, values in seen.items() if len(values) > 1}

    def names(keys: Sequence[str]) -> int:
        return len({tuple(trial.config[key] for key in keys) for trial in trials})

    keys = [key for key in AXES if key in several]
    dispensable = [key for key in keys if key not in ("model", "dataset")]
    first_to_go = sorted(
        reversed(dispensable),
        key=lambda key: (key not in FOLLOW, AXES[key].shorthand, AXES[key].architecture),
    )
    kept = {*fewest(keys, first_to_go, names), *recipe_differences(trials)}
    models = {trial.config["model"] for trial in trials}
    if len({*map(model_name, models)}) < len(models):  # classes of one name
        kept.add("model_sha256")
    return [key for key in AXES if key in kept]


def recipe_differences(trials: Sequence[Trial]) -> set[str]:
    """The axes of training, the seed apart, whose values on one data set depend on the model. Models without
    an axis, or without parameters, do not count.
    """
    values: dict[tuple[str, str], dict[str, set[Value]]] = defaultdict(lambda: defaultdict(set))
    for trial in trials:
        for key in RECIPE if trial.params else ():
            if (value := trial.config[key]) is not None:
                values[trial.config["dataset"], key][trial.config["model"]].add(value)
    return {key for (_, key), of_models in values.items() if len(set(map(frozenset, of_models.values()))) > 1}


def label(trial: Trial, keys: Sequence[str]) -> str:
    """A short name of a trial: its model, then those of `keys` that it has, such as `vit depth=4 seed=1`."""
    known = ["model", *(key for key in keys if key != "model" and trial.config[key] is not None)]
    return clean(" ".join(value_text(key, trial.config[key]) for key in known))


def value_text(key: str, value: Any) -> str:
    """One value of the configuration as a label has it."""
    if key == "model_args":
        return " ".join(f"{name}={short(one)}" for name, one in json.loads(value).items())
    if key == "model":
        return model_name(value)
    if key == "model_sha256":
        return f"file={value[:8]}"
    return str(value) if key == "dataset" else f"{key}={short(value)}"


def short(value: object) -> str:
    """A value as people write it, such as `3e-4`."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
