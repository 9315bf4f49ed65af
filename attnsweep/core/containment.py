"""The state of the process that other people's code may change, and how it is put back.

The file of a user's own model may set torch's default dtype, seed the global generators, change the folder or
`sys.argv`, register hooks of all modules or replace a function of torch's: all of that holds for this model,
and none of it for what runs before and after it in the process.
"""

import contextlib
import functools
import gc
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from functools import partial
from multiprocessing import get_start_method, set_start_method
from typing import Any, TypeVar

import numpy as np

from attnsweep.core import importing, replaced

Item = TypeVar("Item")
Setting = tuple[Callable[[], Any], Callable[[Any], object]]  # how it is read, and how it is set
SIGNALS = (signal.SIGINT, signal.SIGTERM)
outermost: ContextVar[list[Any] | None] = ContextVar("outermost", default=None)  # what is outside; None: here


class Contained:
    """A context that can be entered again and again: what code changes in it holds in it only."""

    def __init__(self) -> None:
        self.changed: dict[int, Any] = {}  # by the index in `settings`, to the values inside

    def __enter__(self) -> None:
        self.outside = values()
        self.token = outermost.set(outermost.get() or self.outside)
        restore(self.changed)

    def __exit__(self, *_: object) -> None:
        inside = dict(enumerate(values()))
        self.changed = {i: value for i, value in inside.items() if not same(value, self.outside[i])}
        restore({i: self.outside[i] for i in self.changed})
        outermost.reset(self.token)


def contained(items: Generator[Item]) -> Iterator[Item]:
    """Yields what a generator yields, all of whose steps run in one contained state."""
    state = Contained()
    try:
        while True:
            with state:
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
    finally:
        with state:
            items.close()


def ensured() -> contextlib.AbstractContextManager[None]:
    """A contained state: a new one, or where the caller is in one already, that."""
    return contextlib.nullcontext() if outermost.get() else Contained()


def begin_anew() -> None:
    """Puts back what can be done but once: a file is run again, and does it again."""
    outside = outermost.get() or values()
    once = (replaced.set_functions, replaced.set_hooks)
    restore({i: outside[i] for i, (_, put) in enumerate(settings()) if put in once})
    set_start_method(None, force=True)  # whatever this process has set: a file may do it where nobody has


def as_torch_begins() -> None:
    """Sets by what torch computes as it is in a new process, such as a worker, whatever a sweep's file or a
    notebook has set in this one. To be called within `Contained`.
    """
    import torch

    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    torch.set_float32_matmul_precision("highest")
    if torch.are_deterministic_algorithms_enabled():  # or the call would import the compiler for nothing
        torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    torch.backends.mkldnn.enabled = True  # type: ignore[assignment]


def seed_all(seed: int) -> None:
    """Seeds the global generators of torch, numpy and Python."""
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which every global generator begins at `seed`; after it they go on where they were."""
    before = generators()
    seed_all(seed)
    try:
        yield
    finally:
        set_generators(before)


def generators() -> dict[str, Any]:
    """The states of the global generators of torch (on the CPU), numpy and Python."""
    import torch

    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}


def set_generators(states: dict[str, Any]) -> None:
    """Sets the global generators to states that `generators` returned."""
    import torch

    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])


def values() -> list[Any]:
    """The value of every setting, in the order of `settings`."""
    return [get() for get, _ in settings()]


def restore(wanted: dict[int, Any]) -> None:
    """Sets settings, by their index in `settings`, to other values."""
    known = settings()
    for index, value in wanted.items():
        known[index][1](value)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal; what cannot be compared as a whole, such as arrays, counts as changed."""
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):
        return False


@functools.cache
def settings() -> tuple[Setting, ...]:
    """Everything that is contained."""
    import torch

    return (
        (generators, set_generators),
        *settings_of_torch(),
        (torch.get_default_device, set_default_device),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
        *(attribute(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")),
        attribute(torch.backends.mkldnn, "enabled"),
        (replaced.functions, replaced.set_functions),
        (replaced.hooks, replaced.set_hooks),
        (np.geterr, lambda errors: np.seterr(**errors)),
        *settings_of_python(),
        (lambda: [*sys.argv], lambda words: sys.argv.__setitem__(slice(None), words)),
        (importing.active, importing.activate),
        (lambda: [*warnings.filters], lambda known: warnings.filters.__setitem__(slice(None), known)),  # type: ignore[index]
        (lambda: logging.root.manager.disable, logging.disable),
        (lambda: (logging.root.level, [*logging.root.handlers]), set_root_logger),
        (partial(get_start_method, allow_none=True), partial(set_start_method, force=True)),
        (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        (sys.getrecursionlimit, sys.setrecursionlimit),
        *((partial(signal.getsignal, one), partial(signal.signal, one)) for one in SIGNALS),
    )


def settings_of_torch() -> tuple[Setting, ...]:
    """Threads, default type, gradients and precision, which sweeps and models alike set."""
    import torch

    return (
        (torch.get_num_threads, torch.set_num_threads),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    )


def settings_of_python() -> tuple[Setting, ...]:
    """The environment, the folder, where modules are found and where output goes."""
    return (
        (lambda: dict(os.environ), set_environment),
        (folder, os.chdir),
        (umask, os.umask),
        *(attribute(sys, name) for name in ("excepthook", "stdout", "stderr")),
        (lambda: [*sys.path], lambda paths: sys.path.__setitem__(slice(None), paths)),
    )


def attribute(owner: Any, name: str) -> Setting:
    """An attribute as a setting."""
    return partial(getattr, owner, name), partial(setattr, owner, name)


def set_root_logger(state: tuple[int, list[logging.Handler]]) -> None:
    """Sets the level of the root logger, and who hears it."""
    logging.root.setLevel(state[0])
    logging.root.handlers[:] = state[1]


def set_default_device(device: Any) -> None:
    """Sets torch's default device. The CPU is set as none: else every call of torch would be looked into."""
    import torch

    torch.set_default_device(None if device.type == "cpu" else device)


def folder() -> str:
    """The working directory, or the root where somebody has deleted it."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def umask() -> int:
    """The permissions that new files do not get, which can only be read by setting them."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def set_environment(wanted: dict[str, str]) -> None:
    """Sets the environment variables to those that are wanted, and removes all others."""
    for key in os.environ.keys() - wanted.keys():
        del os.environ[key]
    os.environ.update(wanted)
