"""The state of a model that its state_dict leaves out, so that a trial that was cut off goes on to the same
numbers.

That is the positions of the global random generators, the buffers that are not persistent, and in the
attributes of the model's modules, at the top of a user's own files and in the classes there: numbers,
strings, generators, tensors, arrays, and lists, dictionaries and the like of all but generators. What else
they hold, such as an iterator, no checkpoint keeps.
"""

import json
import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from attnsweep.core import containment, importing

PLAIN = (bool, int, float, str, type(None))
OF_TORCH = vars(nn.Module()).keys()  # the switch `training`, and what a state_dict or the class has
MOST_NESTED = 5  # containers in containers
MT19937_WORDS = 624
CONTAINERS: tuple[Any, ...] = (list, tuple, set, deque, dict)
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
            for key, value in vars(owner).items()
            if key not in OF_TORCH and (state := state_of(value)) is not ...
        }
        for name, owner in namespaces(model)
    }


def changed(before: States, after: States) -> States:
    """The attributes `after` that are new or differ from `before`."""
    different = {
        name: {
            key: state
            for key, state in states.items()
            if not (key in before.get(name, {}) and equal(before[name][key], state))
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
            current = vars(here[name]).get(key)
            if not filled(current, state):
                put(here[name], key, decoded(state))


def namespaces(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Each module of a model, each of a user's own files and each class that is made there, by its name."""
    yield from model.named_modules()
    own = {type(part).__module__ for part in model.modules()} | importing.active_names()
    for name in sorted(own):
        if importing.is_own(name) and name in sys.modules:
            yield f"file {name}", sys.modules[name]
            for key, value in [*vars(sys.modules[name]).items()]:
                if isinstance(value, type) and value.__module__ == name:
                    yield f"class {name} {key}", value


def put(owner: Any, key: str, value: Any) -> None:
    """Sets an attribute, whatever `owner` does when one is set."""
    if isinstance(owner, type):
        setattr(owner, key, value)
    else:
        vars(owner)[key] = value


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


def is_plain(value: Any) -> bool:
    """Whether it is a number, a string, a truth value or None."""
    return isinstance(value, PLAIN)


def state_of(value: Any, depth: int = 0) -> Any:
    """A plain value, a tensor, the state of a generator in a list, or what a container holds in a dict; `...`
    for anything else.
    """
    match value:
        case torch.Generator():
            return value.get_state()
        case np.random.RandomState():
            return numpy_state(value.get_state(legacy=True))
        case np.random.Generator(bit_generator=np.random.PCG64() | np.random.PCG64DXSM()):
            return [json.dumps(value.bit_generator.state)]  # its numbers have 128 bits
        case random.Random():
            return python_state(value.getstate())
        case torch.Tensor() if (
            not value.requires_grad and not value.is_meta and value.layout is torch.strided
        ):
            return ... if isinstance(value, nn.Parameter) else value.detach().clone()
        case np.ndarray() if value.dtype.kind in "biuf":
            return {"array": torch.tensor(value)}
        case dict() | list() | tuple() | set() | deque() if depth < MOST_NESTED and is_container(value):
            return state_of_container(value, depth + 1)
    return value if is_plain(value) else ...


def is_container(value: Any) -> bool:
    """Whether it is one of CONTAINERS: no kind of tuple with names, say, but any kind of dictionary."""
    return type(value) in CONTAINERS or isinstance(value, dict)


def state_of_container(value: Any, depth: int) -> Any:
    """The items of a list, tuple, set, deque or dictionary by its kind; `...` where one has no state."""
    kind = next(one for one in CONTAINERS if isinstance(value, one))
    items = value.items() if kind is dict else value
    states = []
    for item in items:
        states.append(state_of(list(item) if kind is dict else item, depth))
        if states[-1] is ... or isinstance(states[-1], list):
            return ...
    return {kind.__name__: states, "most": value.maxlen if kind is deque else None}


def decoded(state: Any) -> Any:
    """The value that `state_of` has given a state of, which is no generator. Raises TypeError, ValueError or
    StopIteration for what it cannot have given.
    """
    if not isinstance(state, dict):
        if not (is_plain(state) or isinstance(state, torch.Tensor)):
            raise TypeError(f"a {type(state).__name__} is no state")
        return state
    if "array" in state:
        return state["array"].cpu().numpy()
    kind = next(one for one in CONTAINERS if one.__name__ in state)
    items = map(decoded, state[kind.__name__])
    return deque(items, state["most"]) if kind is deque else kind(items)


def filled(current: Any, state: Any) -> bool:
    """Sets a generator or a collection that is there, as others may hold it, too; whether it is one. A tensor
    is not set, as it may share its memory with a weight.

    Raises TypeError where it is a state of a generator and there is none.
    """
    if isinstance(state, list) or isinstance(current, torch.Generator):
        set_state(current, state)
    elif isinstance(state, dict) and isinstance(current, list | set | deque | dict):
        value = decoded(state)
        if not isinstance(current, type(value)):
            return False
        current.clear()
        (current.extend if isinstance(current, list | deque) else current.update)(value)
    else:
        return False
    return True


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
