"""Models of timm (https://huggingface.co/docs/timm)."""

import functools
import socket
from collections.abc import Mapping
from typing import Any

import huggingface_hub
import timm
import torch
from torch import nn

from attnsweep.core.errors import UserError
from attnsweep.tasks.images.libraries.library import Preprocessing

HOST, WEIGHTS = "huggingface.co", "model.safetensors"  # where its weights are, and the file


@functools.cache
def names() -> list[str]:
    """Its models, and those with the tag of one of their weights, such as `resnet18.a1_in1k`."""
    return [*timm.list_models(), *timm.list_pretrained()]


def class_of(name: str) -> type:
    with torch.device("meta"):
        return type(timm.create_model(name))


def build(name: str, arguments: Mapping[str, Any], *, channels: int, num_classes: int) -> nn.Module:
    model: nn.Module = timm.create_model(name, num_classes=num_classes, in_chans=channels, **arguments)
    return model


def pretrained_config(name: str) -> Any:
    """timm's description of a model's weights. Raises UserError where there is none."""
    if (config := timm.get_pretrained_cfg(name)) is None:
        raise UserError(f"timm says nothing of weights of {name}")
    return config


@functools.lru_cache(maxsize=64)
def preprocessing(name: str) -> Preprocessing:
    config = pretrained_config(name)
    return Preprocessing(config.input_size[1], tuple(config.mean), tuple(config.std))


def origin(name: str) -> str:
    config = pretrained_config(name)
    if not (config.hf_hub_id or config.url):
        raise UserError(f"timm has no weights of {name}")
    return f"{config.hf_hub_id or config.url}"


@functools.lru_cache(maxsize=1)
def published(name: str) -> dict[str, torch.Tensor]:
    """See `Library`. Raises OSError at once where there is no network, which timm waits for."""
    config = pretrained_config(name)
    here = config.hf_hub_id and huggingface_hub.try_to_load_from_cache(config.hf_hub_id, WEIGHTS)
    if not isinstance(here, str):
        socket.getaddrinfo(HOST, 443)
    found: dict[str, torch.Tensor] = timm.create_model(name, pretrained=True).state_dict()
    return found
