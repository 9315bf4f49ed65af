"""Image classification: which class does an image show?"""

from attnsweep.core.axes import Config
from attnsweep.core.trial import Trial
from attnsweep.tasks.images import datasets, description, libraries, own_data, space, zoo_sizes
from attnsweep.tasks.images.axes import AXES
from attnsweep.tasks.images.building import build
from attnsweep.tasks.images.columns import COLUMNS
from attnsweep.tasks.images.cost import cost
from attnsweep.tasks.task import Procedure, Rehearsal, Task

OWN_DATA_REVISION = 1  # raised when one's own images are split or decoded otherwise than before


def rehearsal(config: Config) -> Rehearsal:
    """See `rehearsal.rehearsal_of`."""
    from attnsweep.tasks.images.rehearsal import rehearsal_of

    return rehearsal_of(config)


def check(trial: Trial) -> None:
    """See `tuning.check`."""
    from attnsweep.tasks.images.weights import tells_head

    if tells_head(trial.config):
        from attnsweep.tasks.images import tuning  # here: it imports torch

        tuning.check(trial)


def procedure() -> Procedure:
    from attnsweep.tasks.images import training

    return training


TASK = Task(
    name="images",
    numerics=2,
    axes=AXES,
    columns=COLUMNS,
    models=space.MODELS,
    recipe=space.RECIPE,
    quality="acc",
    quality_name="accuracy",
    default_dataset=space.DEFAULT_DATASET,
    dataset_names=(*datasets.DATASETS, *own_data.NAMES),
    find=datasets.find,
    complete=space.complete,
    cost=cost,
    build=build,
    procedure=procedure,
    of_data=space.OF_DATA,
    own_models=True,
    family=libraries,
    revised_models=zoo_sizes.REVISIONS,
    rehearsal=rehearsal,
    check=check,
    before={"cnn": {"dim": space.CNN_DIM}},
    recipe_before={"label_smoothing": 0.0},
    dataset_of=space.image_set_of_trial,
    revision=lambda config: OWN_DATA_REVISION if own_data.is_own(config["dataset"]) else 0,
    data_columns=lambda dataset: {"images_skipped": getattr(dataset, "skipped", None)},
    forget=datasets.forget,
    about_data=description.about_data,
    chance=description.chance,
    clip_norm=lambda config: config["clip_norm"],
    averaging=lambda config: config["ema"] or None,
)
