"""A user's own model before its training: it is tried on two images.

What a plan passes is to train: a model that returns a dict, or five logits for ten classes, is refused before
anything starts, and the sentence says what it returned.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnsweep.core.errors import UserError
from attnsweep.tasks.images.training import example

TRIED = 2  # images: as few as batch normalisation can do with


def rehearse(model: nn.Module, config: Mapping[str, Any], device: str) -> None:
    """Judges two images, then takes a training step's forward and backward pass with them.

    Raises UserError where the model fails, or answers what cannot be learnt.
    """
    try:
        step(model, config, device)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's own class raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{config['model']} fails on {TRIED} images ({reason}); mend it") from error


def step(model: nn.Module, config: Mapping[str, Any], device: str) -> None:
    """See `rehearse`."""
    images = example(config, TRIED)[0].to(device)
    model.eval()
    with torch.no_grad():
        check_logits(model(images), config, "")
    model.train()
    logits = model(images)
    check_logits(logits, config, " in training")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return
    if not logits.requires_grad:
        raise UserError(
            f"{config['model']} returns logits without gradients, so it cannot learn; "
            "take torch.no_grad and detach out of its forward pass"
        )
    F.cross_entropy(logits, torch.zeros(TRIED, dtype=torch.int64, device=device)).backward()


def check_logits(answer: object, config: Mapping[str, Any], when: str) -> None:
    """Raises UserError where a model's answer is no tensor of logits (b, num_classes)."""
    wanted = (TRIED, config["num_classes"])
    if isinstance(answer, Tensor) and answer.shape == wanted and answer.is_floating_point():
        return
    raise UserError(
        f"{config['model']} returns {described(answer)}{when}, for {TRIED} images of {config['num_classes']} "
        f"classes; wanted is one tensor of logits of the shape {wanted}, of floating point"
    )


def described(answer: object) -> str:
    """What a forward pass returned, in words: `a tuple of a tensor (2, 10) of float32 and a tensor (2, 64) of
    float32`.
    """
    if isinstance(answer, Tensor):
        return f"a tensor {tuple(answer.shape)} of {str(answer.dtype).removeprefix('torch.')}"
    if isinstance(answer, Mapping):
        parts = [f"{key!r}: {described(value)}" for key, value in answer.items()]
        return f"a {type(answer).__name__} of {', '.join(parts) or 'nothing'}"
    if isinstance(answer, list | tuple):
        return f"a {type(answer).__name__} of {' and '.join(map(described, answer)) or 'nothing'}"
    return "nothing" if answer is None else f"a {type(answer).__name__}"
