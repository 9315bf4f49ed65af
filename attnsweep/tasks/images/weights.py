"""Weights that training begins with: a file, or those that a library publishes; what of them fits a model,
and what of the model is trained then.

A model's head are the parameters whose shape depends on the number of classes: weights of another number of
classes fit all the rest. A file's SHA-256 is part of a trial's id, wherever the file lies. Nothing in a file
is run: safetensors has no code, and pickles are loaded with `weights_only`.
"""

import functools
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsweep.core import files, importing
from attnsweep.core.axes import Config
from attnsweep.core.containment import Contained, seeded
from attnsweep.core.errors import UserError, reason
from attnsweep.tasks.images import libraries

if TYPE_CHECKING:
    import torch
    from torch import nn

    State = Mapping[str, "torch.Tensor"]

PRETRAINED = "pretrained"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# around a model's own keys
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
NORMALISED: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # mean and deviation of 0..1
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
MOST_NAMED = 3  # keys in a sentence


# --- The plan: which weights, and what they want ---


def completed(config: Config) -> Config:
    """The configuration with the hash of its weights. Raises UserError where there are no such weights."""
    weights = config.get("weights")
    frozen = config["freeze"] == "backbone"
    rate = 1.0 if frozen else config["backbone_lr"]  # of nothing that is trained
    if weights is None:
        return config | {"backbone_lr": rate}
    if weights == PRETRAINED:
        return config | {"backbone_lr": rate, "weights_sha256": sha256_of_published(config["model"])}
    path = path_of(weights)
    return config | {"backbone_lr": rate, "weights": str(path), "weights_sha256": sha256_of(path)}


def defaults(point: Mapping[str, object], model: str) -> dict[str, Any]:
    """What the weights of a library's model want where the point does not say it: the size of the images, and
    how they are normalised. Raises UserError where that has no name.
    """
    if point.get("weights") is None or not libraries.has(model):
        return {}
    wanted = libraries.preprocessing(model)
    names = [name for name, known in NORMALISED.items() if known == (wanted.mean, wanted.std)]
    found: dict[str, Any] = {"normalise": names[0]} if names else {}
    if point.get("image_size") is None and point.get("img_size") is None:
        found["image_size"] = wanted.image_size
    return found


def path_of(weights: object) -> Path:
    """The file of weights, in full. Raises UserError where it cannot be one."""
    try:
        path = Path(str(weights)).expanduser().resolve()
        str(path).encode()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"weights={weights!r} names no file ({error})") from error
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"weights={weights!r}: write {PRETRAINED!r}, or a file that ends in {', '.join(SUFFIXES)}"
        )
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file. Raises UserError where it cannot be read."""
    try:
        return files.sha256_of(path, follow=True)
    except OSError as error:
        raise UserError(f"weights={str(path)!r} cannot be read ({error.strerror or error})") from error


def sha256_of_published(model: str) -> str:
    """The SHA-256 of where a library's weights are published. Raises UserError where none can be had."""
    if not libraries.has(model):
        raise UserError(
            f"weights={PRETRAINED!r}: nobody publishes weights of {model}; use a model timm:NAME or "
            "torchvision:NAME, or name a file"
        )
    library, name = libraries.known(model)
    origin = library.origin(name)
    published(model)
    return hashlib.sha256(origin.encode()).hexdigest()


@functools.lru_cache(maxsize=1)
def published(model: str) -> "State":
    """A library's weights, downloaded where need be. Raises UserError where that fails."""
    library, name = libraries.known(model)
    try:
        return library.published(name)
    except Exception as error:  # whatever a network raises
        raise UserError(
            f"weights={PRETRAINED!r} of {model} cannot be had from {library.origin(name)} "
            f"({reason(error)[:200]}); name a file of them, such as weights='model.safetensors'"
        ) from error


def tells_head(config: Mapping[str, Any]) -> bool:
    """Whether training tells a model's head from the rest of it."""
    return config["weights"] is not None or wants_head(config)


def wants_head(config: Mapping[str, Any]) -> bool:
    """Whether a model has to have a head."""
    return bool(config["freeze"] == "backbone" or config["backbone_lr"] != 1)


# --- The trial: what fits ---


def begin(model: "nn.Module", config: Mapping[str, Any], head: Sequence[str]) -> None:
    """Puts a configuration's weights into a model; parameters of the head stay as they are where theirs are
    of another shape. Raises UserError where anything else does not fit.
    """
    weights = config.get("weights")
    if weights is None:
        return
    path, sha256 = Path(weights), config["weights_sha256"]
    state = published(config["model"]) if weights == PRETRAINED else read(path, sha256)
    model.load_state_dict(fitting(tensors_of(model), state, head, f"weights={weights!r}"), strict=False)


@functools.lru_cache(maxsize=8)
def shapes(path: Path, sha256: str) -> "State":
    """The weights in a file without their values. Raises UserError as `read` does."""
    return {key: one.to("meta") for key, one in read.__wrapped__(path, sha256).items()}


@functools.lru_cache(maxsize=1)
def read(path: Path, sha256: str) -> "State":
    """The weights in a file of this checksum. Raises UserError where they cannot be read."""
    try:
        content = files.read(path, follow=True)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(
                f"weights={str(path)!r} have changed since the plan was made; run the sweep again"
            )
        return unwrapped((of_safetensors if path.suffix == ".safetensors" else of_torch)(content))
    except UserError:
        raise
    except Exception as error:  # torn, foreign or hostile
        raise UserError(f"weights={str(path)!r} cannot be read ({reason(error)[:200]})") from error


def of_torch(content: bytes) -> Any:
    """What torch wrote into a file. Raises ValueError for more than tensors and plain values."""
    import torch

    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reasons are paragraphs
        raise ValueError("it is no file of tensors alone: save model.state_dict() there") from error


def of_safetensors(content: bytes) -> Any:
    """The tensors in a file of safetensors. Raises UserError where that package is missing."""
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise UserError("safetensors is not installed; pip install 'attnsweep[timm]'") from error
    return safetensors.torch.load(content)


def unwrapped(found: Any) -> "State":
    """A model's own keys to their tensors, without what trainers put around them. Raises ValueError."""
    import torch

    while isinstance(found, Mapping) and (inner := next((key for key in WRAPPERS if key in found), None)):
        if not isinstance(found[inner], Mapping):
            break
        found = found[inner]
    if not isinstance(found, Mapping) or not any(isinstance(one, torch.Tensor) for one in found.values()):
        raise ValueError("it holds no weights by their names")
    state = {str(key): one for key, one in found.items() if isinstance(one, torch.Tensor)}
    for key, one in state.items():
        if one.layout != torch.strided or one.is_quantized or one.is_meta:
            raise ValueError(f"{key!r} is sparse, quantised or without values")
        if bool((one != one).any()):
            raise ValueError(f"{key!r} is NaN, as after a training that has diverged")
    return state


def fitting(own: "State", state: "State", head: Sequence[str], what: str) -> "State":
    """Of weights those that a model with its `own` takes; a first convolution of three channels is summed for
    one that reads one. Raises UserError, which names the first keys that do not fit.
    """
    state = unprefixed(state, own)
    taken: dict[str, torch.Tensor] = {}
    other: list[str] = []
    for key, value in own.items():
        if (theirs := state.get(key)) is None:
            if key not in head and not key.endswith("num_batches_tracked"):
                other.append(f"no {key!r}, which the model has")
        elif not alike(theirs, value):
            other.append(f"{key!r} is of {theirs.dtype}, where the model has {value.dtype}")
        elif theirs.shape == value.shape:
            taken[key] = theirs
        elif is_grey(value, theirs):
            taken[key] = theirs.sum(dim=1, keepdim=True)
        elif key not in head:
            other.append(f"{key!r} is {tuple(theirs.shape)}, where the model has {tuple(value.shape)}")
    other += [f"{key!r}, which the model has not" for key in state if key not in own]
    if other:
        more = f" and {len(other) - MOST_NAMED:,} more" if len(other) > MOST_NAMED else ""
        raise UserError(f"{what} do not fit this model: {'; '.join(other[:MOST_NAMED])}{more}")
    return taken


def unprefixed(state: "State", own: "State") -> "State":
    """Weights without what torch.compile, Lightning and the like put before every key of a model."""
    prefix = next(iter(state), "").partition(".")[0] + "."
    shared = bool(state) and all(key.startswith(prefix) for key in state)
    if not shared or any(key.startswith(prefix) for key in own):
        return state
    return unprefixed({key.removeprefix(prefix): one for key, one in state.items()}, own)


def alike(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    """Whether both are real numbers, both complex, or both neither."""
    return one.is_floating_point() == other.is_floating_point() and one.is_complex() == other.is_complex()


def is_grey(own: "torch.Tensor", theirs: "torch.Tensor") -> bool:
    """Whether these are convolutions of one channel and of three that are otherwise alike."""
    grey = own.ndim == theirs.ndim == 4 and own.shape[1] == 1 and theirs.shape[1] == 3
    return grey and own.shape[0] == theirs.shape[0] and own.shape[2:] == theirs.shape[2:]


# --- The trial: what is trained ---


def head_of(build: "Callable[[Config], nn.Module]", config: Config) -> list[str]:
    """The keys of a model whose shape depends on the number of classes. Raises UserError where there is none,
    and they are to be trained otherwise than the rest.
    """
    wanted = wants_head(config)
    one = state_of(build, config)
    try:
        other = state_of(build, config | {"num_classes": config["num_classes"] + 1})
    except UserError:  # of one's own, made for so many
        if wanted:
            raise
        return []
    head = [key for key, value in one.items() if key not in other or other[key].shape != value.shape]
    if wanted and not head:
        raise UserError(
            f"{config['model']} has no head, as freeze and backbone_lr want one: none of its parameters "
            "depends on num_classes"
        )
    return head


def tensors_of(model: "nn.Module") -> "State":
    """The tensors of a model's state, which may have other values, too."""
    import torch

    return {key: one for key, one in model.state_dict().items() if isinstance(one, torch.Tensor)}


def state_of(build: "Callable[[Config], nn.Module]", config: Config) -> "State":
    """A model's weights, without values where its constructor looks at none. Raises UserError."""
    import torch

    try:
        with Contained(), importing.mains_kept(), seeded(0):  # the file of one's own model is run again
            try:
                with torch.device("meta"):
                    return tensors_of(build(config))
            except Exception:  # such as .item() of a list of rates
                return tensors_of(build(config))
    except UserError:
        raise
    except Exception as error:  # whatever a user's own class raises
        raise UserError(
            f"{config['model']} cannot be built with num_classes={config['num_classes']} "
            f"({reason(error)[:200]}), by which its head is known: freeze and backbone_lr want one"
        ) from error


def check(build: "Callable[[Config], nn.Module]", config: Config) -> None:
    """Raises UserError where a model has no head, or its weights do not fit it."""
    head, weights = head_of(build, config), config["weights"]
    if weights is None:
        return
    found = published(config["model"]) if weights == PRETRAINED else None
    state = found or shapes(Path(weights), config["weights_sha256"])
    fitting(state_of(build, config), state, head, f"weights={weights!r}")


def frozen_parts(model: "nn.Module", head: Sequence[str]) -> list["nn.Module"]:
    """The largest parts with parameters, none of the head: frozen, they stay in evaluation mode."""
    found: list[nn.Module] = []

    def look(part: "nn.Module", prefix: str) -> None:
        if not any(key.startswith(prefix) for key in head):
            if any(True for _ in part.parameters()):
                found.append(part)
            return
        for name, child in part.named_children():
            look(child, f"{prefix}{name}.")

    look(model, "")
    return found
