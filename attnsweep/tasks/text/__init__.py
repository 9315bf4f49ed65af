"""Text: a language model on one's own, judged in bits per byte."""

from typing import TYPE_CHECKING, Any, cast

from attnsweep.core.axes import Config
from attnsweep.core.source import Source
from attnsweep.tasks.task import Procedure, Task
from attnsweep.tasks.text import corpus, space
from attnsweep.tasks.text.axes import AXES
from attnsweep.tasks.text.columns import COLUMNS
from attnsweep.tasks.text.cost import by_length, decoder

if TYPE_CHECKING:
    from torch import nn

    from attnsweep.tasks.text.decoder import Decoder


def build(config: Config, source: Source | None) -> "nn.Module":
    """From token ids (b, n) to the logits (b, n, num_classes) of what follows each."""
    from attnsweep.tasks.text.decoder import Decoder

    return Decoder(config)


def procedure() -> Procedure:
    from attnsweep.tasks.text import training

    return training


def continued(model: "nn.Module", config: Config, prompt: str, **options: Any) -> str:
    """See `sampling.continued`."""
    from attnsweep.tasks.text import sampling

    return sampling.continued(cast("Decoder", model), config, prompt, **options)


TASK = Task(
    name="text",
    numerics=1,
    axes=AXES,
    columns=COLUMNS,
    models=space.MODELS,
    recipe=space.RECIPE,
    quality="saved",
    quality_name="share of bits saved",
    default_dataset=space.DEFAULT_DATASET,
    dataset_names=("text:python", "text:PATH"),
    find=corpus.find,
    complete=space.complete,
    revision=space.revision,
    cost=decoder,
    cost_columns=by_length,
    at_length=lambda config, tokens: {**config, "context": tokens},
    build=build,
    procedure=procedure,
    dataset_of=space.text_of,
    forget=lambda data_dir: corpus.forget(),
    about_data=corpus.about,
    continued=continued,
    clip_norm=lambda config: 1.0,  # as language models are trained
    decoded=lambda config: config["context"],
)
