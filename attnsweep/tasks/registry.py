"""All tasks, with their axes, columns and models, and from a point of a sweep to a configuration."""

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core.axes import SHARED, Config, built_in, by_name
from attnsweep.core.columns import Column
from attnsweep.core.errors import UserError, did_you_mean, one_of
from attnsweep.core.source import Source
from attnsweep.tasks import own
from attnsweep.tasks.task import DataSet, Point, Procedure, Task

if TYPE_CHECKING:
    from torch import nn

# a new task is a folder beside these, and its name here
ROOMS = ("images", "sequences", "text", "driving")
TASKS: dict[str, Task] = {
    task.name: task for task in (importlib.import_module(f"attnsweep.tasks.{room}").TASK for room in ROOMS)
}
AXES = by_name(SHARED.values(), *(task.axes for task in TASKS.values()))
COLUMNS: tuple[Column, ...] = tuple(column for task in TASKS.values() for column in task.columns)
TASK_OF = {model: task for task in TASKS.values() for model in task.models}
BEFORE = {model: values for task in TASKS.values() for model, values in task.before.items()}
REVISED_MODELS = {name: n for task in TASKS.values() for name, n in task.revised_models.items()}
BESIDE_ARCHITECTURE = {  # the defaults of axes on which no cost depends
    axis.name: axis.default for axis in AXES.values() if not axis.architecture
}
ALWAYS = ("task", "model", "dataset")


def resolve(point: Point) -> Config:
    """The full configuration of a point: every axis, null where its model does not have it.

    Raises UserError where a value is unknown, of the wrong type, out of range, or does not fit the others.
    """
    point = {key: built_in(value) for key, value in point.items()}
    model = known_model(point)
    task = task_for(point, model)
    if (name := point.get("task")) not in (None, task.name):
        one_of("task", name, TASKS)
        raise UserError(f"task={name!r} has no model {model}; leave task out")
    refuse_other_data(point, model, task)
    if model not in task.models:
        refuse_unknown_keys(point, model, task)
    return {**dict.fromkeys(AXES), **task.complete(point, model), "task": task.name, "model": model}


def known_model(point: Point) -> str:
    """The point's model. Raises UserError where it is missing or unknown."""
    model = point.get("model")
    if model is None:
        raise UserError(f"no model; add model= one of {', '.join(TASK_OF)}")
    if isinstance(model, type):
        raise UserError(f"model={model.__name__} is a class; name its file, too: 'FILE.py:{model.__name__}'")
    if not isinstance(model, str) or not (has_task(model) or own.is_own(model)):
        hint = did_you_mean(model, TASK_OF)
        raise UserError(
            f"model={model!r} is unknown{hint}; use one of {', '.join(TASK_OF)}, timm:NAME, "
            "torchvision:NAME, or FILE.py:CLASS of your own"
        )
    return str(model)  # numpy's words, as domains draw them


def has_task(model: object) -> bool:
    """Whether it is a built-in or a library's model."""
    return isinstance(model, str) and task_of(model) is not None


def task_of(model: str) -> Task | None:
    """The task of a built-in or a library's model; None for a user's own."""
    families = (task for task in TASKS.values() if task.family and task.family.has(model))
    return TASK_OF.get(model) or next(families, None)


def is_open(model: object) -> bool:
    """Whether keys of a sweep may be arguments of the model's class, which only loading it tells."""
    return own.is_own(model) or (has_task(model) and model not in TASK_OF)


def refuse_unknown_keys(point: Point, model: str, task: Task) -> None:
    """Raises UserError for a key that is neither an axis nor an argument of a user's or a library's model."""
    family = None if own.is_own(model) else task.family
    arguments = sorted(family.takes(model)) if family else [*own.signature(model, own.read(model))]
    for key in point:
        if key not in AXES and key not in arguments:
            hint = did_you_mean(key, arguments) or f"; its arguments are {', '.join(arguments) or 'none'}"
            raise UserError(f"{model} takes no {key}{hint}")


def task_for(point: Point, model: str) -> Task:
    """The task of a model; of a user's own model that of the point's data set."""
    if task := task_of(model):
        return task
    takers = [task for task in TASKS.values() if task.own_models]
    name = point.get("dataset")
    if name is None and point.get("task") is not None:
        return next((task for task in takers if task.name == point["task"]), takers[0])
    return next((task for task in takers if isinstance(name, str) and task.find(name)), takers[0])


def refuse_other_data(point: Point, model: str, task: Task) -> None:
    """Raises UserError where the point's data set is unknown or belongs to another task than its model."""
    if (name := point.get("dataset")) is None or (isinstance(name, str) and task.find(name)):
        return
    find_dataset(name)
    theirs = next(one for one in TASKS.values() if isinstance(name, str) and one.find(name))
    raise UserError(
        f"dataset={name!r} is for {theirs.name} and model={model!r} for {task.name}; "
        f"use dataset={task.default_dataset!r}, or model={next(iter(theirs.models))!r}"
    )


def find_dataset(name: object) -> DataSet:
    """The data set of that name. Raises UserError where there is none."""
    found = (task.find(name) for task in TASKS.values()) if isinstance(name, str) else iter(())
    for dataset in found:
        if dataset:
            return dataset
    known = [known for task in TASKS.values() for known in task.dataset_names]
    groups = "; ".join(f"for {task.name} {', '.join(task.dataset_names)}" for task in TASKS.values())
    raise UserError(f"dataset={name!r} is unknown{did_you_mean(name, known)}; use one of these: {groups}")


def dataset_of(config: Mapping[str, Any]) -> DataSet:
    """The data set of a configuration, read as its axes say. Raises UserError as `find_dataset` does."""
    task = TASKS[config["task"]]
    return task.dataset_of(dict(config)) if task.dataset_of else find_dataset(config["dataset"])


def class_names(config: Mapping[str, Any]) -> list[str]:
    """The names of a model's outputs, or their numbers."""
    known = getattr(dataset_of(config), "classes", ())
    return [*known, *map(str, range(len(known), config["num_classes"]))]


def forget(data_dir: Path) -> None:
    """Clears caches of data sets' files, so that the next plan on that data folder reads them anew."""
    for task in TASKS.values():
        task.forget(data_dir)


def takes(model: str) -> set[str]:
    """The keys of a sweep that a model takes. Raises UserError as `resolve` does."""
    known_model({"model": model})
    if task := task_of(model):
        theirs = task.models[model] if model in task.models or not task.family else task.family.takes(model)
        return {*ALWAYS, *theirs, *task.recipe, *task.of_data}
    takers = [task for task in TASKS.values() if task.own_models]  # the data set says which
    training = {axis for task in takers for axis in (*task.recipe, *task.own_recipe, *task.of_data)}
    return {*ALWAYS, *own.signature(model, own.read(model)), *training}


def before(config: Mapping[str, Any]) -> Config:
    """The values of newer axes in trials of the configuration's model from before these axes existed."""
    of_axes = {name: axis.before for name, axis in AXES.items()}
    return of_axes | TASKS[config["task"]].recipe_before | BEFORE.get(config["model"], {})


def came_later(task: Task) -> dict[str, tuple[Any, set[str] | None]]:
    """The axes that are newer than the first trials of a task, each with the value that these trials had,
    which is its default, and the models that have it (None: all of the task).
    """
    values = {name: axis.before for name, axis in AXES.items() if axis.before == axis.default}
    values |= task.recipe_before
    found: dict[str, tuple[Any, set[str] | None]] = {}
    for name in (name for name, value in values.items() if value is not None):
        models = {model for model, axes in task.models.items() if name in axes}
        if name in task.recipe or models:
            found[name] = values[name], None if name in task.recipe else models
    return found


def architecture(config: Mapping[str, Any]) -> Config:
    """The part of a configuration that determines latency, parameters and MACs."""
    return {key: value for key, value in config.items() if key not in BESIDE_ARCHITECTURE}


def buildable(sizes: Mapping[str, Any]) -> Config:
    """The configuration of an architecture, with defaults for axes on which no cost depends."""
    return {**BESIDE_ARCHITECTURE, **sizes}


def build(config: Mapping[str, object], source: Source | None = None) -> "nn.Module":
    """A configuration's model, freshly initialised (see `resolve`, and `Procedure.example` for inputs).

    `source` is the code of a user's own model, by default that of its file now. Raises UserError where the
    file is gone or has changed.
    """
    return TASKS[str(config["task"])].build(dict(config), source)


@functools.cache
def procedure(task: str) -> Procedure:
    """How the models of a task are trained and judged. Imports torch, which takes seconds."""
    return TASKS[task].procedure()
