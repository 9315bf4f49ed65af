"""What is asked of a library of models, and what its published weights were trained with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Preprocessing:
    """What the published weights of a model were trained with: the side of images in pixels, and the mean and
    standard deviation by which the channels of pixels in 0..1 are normalised.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Library(Protocol):
    """A library of models."""

    def names(self) -> list[str]:
        """The models that it has."""

    def class_of(self, name: str) -> type:
        """A model's class."""

    def build(
        self, name: str, arguments: Mapping[str, Any], *, channels: int, num_classes: int
    ) -> "nn.Module":
        """The freshly initialised model."""

    def preprocessing(self, name: str) -> Preprocessing:
        """What its published weights were trained with. Raises what the library raises."""

    def published(self, name: str) -> "dict[str, torch.Tensor]":
        """The published weights, downloaded where need be."""

    def origin(self, name: str) -> str:
        """Where they are published. Raises UserError where there are none."""
