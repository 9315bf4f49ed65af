"""From a configuration to a model of images, and what it reads."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attnsweep.core.axes import Config
from attnsweep.core.source import Source
from attnsweep.tasks import own
from attnsweep.tasks.images import libraries, space

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor, nn


def build(config: Config, source: Source | None) -> "nn.Module":
    """From images (b, channels, image_size, image_size) to logits (b, num_classes)."""
    if own.is_own(config["model"]):
        return own.build(config, source, axes=space.OF_MODELS, example=lambda: example(config, 1))
    if libraries.has(config["model"]):
        return libraries.build(config)
    from attnsweep.tasks.images.models import MODELS  # here: vit-pytorch takes seconds to import

    return MODELS[config["model"]](config)


def example(config: Mapping[str, Any], batch: int) -> "tuple[Float[Tensor, 'b c s s']]":
    """Normal noise in place of images, the same each time."""
    import torch  # here: the room of images is looked at without it

    shape = (batch, config["channels"], config["image_size"], config["image_size"])
    chance = torch.Generator("cpu").manual_seed(0)
    return (torch.randn(shape, generator=chance, device="cpu", dtype=torch.float32),)
