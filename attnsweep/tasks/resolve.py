"""What a trial may be: a point of a sweep, completed and checked by the rules of its task and model.

Nothing here needs torch (but the file of a user's own model is imported), so ten thousand points are checked
in a second, before anything starts.
"""

from collections.abc import Mapping

from attnsweep.core.axes import AXES, Config
from attnsweep.core.errors import UserError, did_you_mean
from attnsweep.tasks.driving import space as driving
from attnsweep.tasks.images import own
from attnsweep.tasks.images import space as images
from attnsweep.tasks.sequences import space as sequences

TASKS = {space.NAME: space for space in (images, sequences, driving)}
MODELS = {  # to the axes of its architecture
    model: axes for space in TASKS.values() for model, axes in space.MODELS.items()
}
TASK_OF = {model: name for name, space in TASKS.items() for model in space.MODELS}


def resolve(point: Mapping[str, object]) -> Config:
    """The configuration of one point in full: every column of its task, null where its model has no such
    thing.

    Raises UserError where a value is unknown, of the wrong type, out of range, or does not fit the others.
    """
    model = known_model(point)
    task = TASKS[TASK_OF.get(model, images.NAME)]
    if point.get("task") not in (None, task.NAME):
        raise UserError(f"task={AXES['task'].check(point['task'])!r} has no model {model}; leave task out")
    return own.complete(point, model) if own.is_own(model) else task.complete(point, model)


def known_model(point: Mapping[str, object]) -> str:
    """The point's model. Raises UserError where it is missing or unknown."""
    model = point.get("model")
    if model is None:
        raise UserError(f"no model; add model= one of {', '.join(MODELS)}")
    if not isinstance(model, str) or (model not in MODELS and not own.is_own(model)):
        hint = did_you_mean(model, MODELS)
        raise UserError(
            f"model={model!r} is unknown{hint}; use one of {', '.join(MODELS)}, or FILE.py:CLASS of your own"
        )
    return str(model)  # numpy's words, as domains draw them


def takes(model: str) -> set[str]:
    """The keys of a sweep that mean something to a model. Raises UserError as `resolve` does."""
    known_model({"model": model})
    always = {"task", "model", "dataset"}
    if own.is_own(model):
        return {*always, *own.signature(model, own.read(model)), *images.RECIPE, *own.OF_DATA}
    space = TASKS[TASK_OF[model]]
    of_data = own.OF_DATA if space is images else ()
    return {*always, *MODELS[model], *space.RECIPE, *of_data}
