"""The state of a model that its state_dict leaves out, so that a trial that was cut off goes on to the same
numbers.

That is the positions of the global random generators, the buffers that are not persistent, and in the
attributes of the model's modules, or at the top of a user's own files: numbers, strings and generators. What
else they hold, such as a list, no checkpoint keeps.
"""

import json
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from attnsweep.core import containment, importing

PLAIN = (bool, int, float, str, type(None))
FLAGS = {"training"}  # set by whoever trains and judges
MT19937_WORDS = 624
States = dict[str, dict[str, Any]]  # of the attributes of each module and file, by its name


def generators() -> dict[str, Any]:
    """The states of the global random generators of torch, numpy and Python, in tensors and plain values."""
    states = containment.generators()
    return {
        "torch": states["torch"],
        "numpy": numpy_state(states["numpy"]),
        "python": python_state(states["python"]),
    }


def set_generators(states: Mapping[str, Any]) -> None:
    """Sets the global generators to what `generators` returned. Raises ValueError, TypeError or KeyError for
    anything else.
    """
    containment.set_generators(
        {
            "torch": states["torch"].cpu(),
            "numpy": of_numpy(states["numpy"]),
            "python": of_python(states["python"]),
        }
    )


def attributes(model: nn.Module) -> States:
    """The plain values and the states of generators in the attributes of a model's modules, and in the files
    of their classes.
    """
    return {
        name: {
            key: state
            for key, value in values.items()
            if key not in FLAGS and (state := state_of(value)) is not ...
        }
        for name, values in namespaces(model)
    }


def changed(before: States, after: States) -> States:
    """The attributes `after` that are new or differ from `before`; of generators all."""
    different = {
        name: {
            key: state
            for key, state in states.items()
            if not (is_plain(state) and key in before.get(name, {}) and before[name][key] == state)
        }
        for name, states in after.items()
    }
    return {name: states for name, states in different.items() if states}


def set_attributes(model: nn.Module, states_of: Mapping[str, Mapping[str, Any]]) -> None:
    """Sets the attributes of a model's modules, and of the files of their classes, to what `attributes`
    returned.

    Raises KeyError, TypeError, ValueError and the like where a value does not fit what is there.
    """
    here = dict(namespaces(model))
    for name, states in states_of.items():
        for key, state in states.items():
            current = here[name].get(key)
            if is_plain(state) and is_plain(current):
                here[name][key] = state
            else:
                set_state(current, state)


def namespaces(model: nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the attributes of each module of a model, then of each of a user's own files."""
    for name, module in model.named_modules():
        yield name, vars(module)
    own = {type(part).__module__ for part in model.modules()} | importing.active_names()
    for name in sorted(own):
        if importing.is_own(name) and name in sys.modules:
            yield f"file {name}", vars(sys.modules[name])


def is_plain(value: Any) -> bool:
    """Whether it is a number, a string, a truth value or None."""
    return isinstance(value, PLAIN)


def state_of(value: Any) -> Any:
    """A plain value, or the state of a generator; `...` for anything else."""
    match value:
        case torch.Generator():
            return value.get_state()
        case np.random.RandomState():
            return numpy_state(value.get_state(legacy=True))
        case np.random.Generator(bit_generator=np.random.PCG64() | np.random.PCG64DXSM()):
            return [json.dumps(value.bit_generator.state)]  # its numbers have 128 bits
        case random.Random():
            return python_state(value.getstate())
    return value if is_plain(value) else ...


def set_state(generator: Any, state: Any) -> None:
    """Sets a generator to a state that `state_of` returned. Raises TypeError where it is no generator."""
    match generator:
        case torch.Generator():
            generator.set_state(state.cpu())
        case np.random.RandomState():
            generator.set_state(of_numpy(state))
        case np.random.Generator(bit_generator=np.random.PCG64() | np.random.PCG64DXSM()):
            generator.bit_generator.state = json.loads(state[0])
        case random.Random():
            generator.setstate(of_python(state))
        case _:
            raise TypeError(f"a {type(generator).__name__} has no such state")


def numpy_state(state: Any) -> list[Any]:
    """The state of a Mersenne Twister of numpy in a tensor and plain values."""
    _, keys, *others = state
    return [torch.from_numpy(keys.astype(np.int64)), *others]


def of_numpy(state: Any) -> tuple[Any, ...]:
    """The inverse of `numpy_state`. Raises ValueError for what is no state: numpy would read past it."""
    keys, position, *others = state
    if len(keys) != MT19937_WORDS or not 0 <= position <= MT19937_WORDS:
        raise ValueError(f"a generator is at {position} of {len(keys)}")
    return ("MT19937", keys.cpu().numpy().astype(np.uint32), position, *others)


def python_state(state: Any) -> list[Any]:
    """The state of a generator of Python in a tensor and plain values."""
    version, words, gauss = state
    return [version, torch.tensor(words), gauss]


def of_python(state: Any) -> tuple[Any, ...]:
    """The inverse of `python_state`."""
    version, words, gauss = state
    return version, tuple(words.tolist()), gauss


def nonpersistent_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that a state_dict leaves out, by name."""
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in saved}
