"""Models of torchvision's classifiers (https://docs.pytorch.org/vision/stable/models.html)."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torchvision.models as models
from torch import nn

from attnsweep.core.errors import UserError
from attnsweep.tasks.images.libraries.library import Preprocessing

COLOURS = 3  # channels that all of them are made for
AUXILIARY = ("googlenet", "inception_v3")  # they have heads that only train


@functools.cache
def names() -> list[str]:
    found: list[str] = models.list_models(module=models)
    return found


def class_of(name: str) -> type:
    with torch.device("meta"):
        return type(models.get_model(name, **quiet(name)))


def quiet(name: str) -> dict[str, Any]:
    """What spares some seconds, or a warning, at first, and outputs beside the logits in training."""
    return {"init_weights": False, "aux_logits": False} if name in AUXILIARY else {}


def build(name: str, arguments: Mapping[str, Any], *, channels: int, num_classes: int) -> nn.Module:
    """See `Library`. The first convolution is made anew where images are not of three channels."""
    model: nn.Module = models.get_model(name, num_classes=num_classes, **{**quiet(name), **arguments})
    if channels != COLOURS:
        path, first = next((path, one) for path, one in model.named_modules() if isinstance(one, nn.Conv2d))
        above, _, last = path.rpartition(".")
        setattr(model.get_submodule(above), last, widened(first, channels))
    return model


def widened(layer: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A layer like this one, freshly initialised, that reads another number of channels."""
    return nn.Conv2d(
        channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )


def preprocessing(name: str) -> Preprocessing:
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    return Preprocessing(transforms.crop_size[0], tuple(transforms.mean), tuple(transforms.std))


def origin(name: str) -> str:
    weights = list(models.get_model_weights(name))
    if not weights:
        raise UserError(f"torchvision has no weights of {name}")
    return str(models.get_model_weights(name).DEFAULT.url)


@functools.lru_cache(maxsize=1)
def published(name: str) -> dict[str, torch.Tensor]:
    weights = models.get_model_weights(name).DEFAULT
    found: dict[str, torch.Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    heads = ("aux1.", "aux2.", "AuxLogits.") if name in AUXILIARY else ()
    return {key: one for key, one in found.items() if not key.startswith(heads)}
