"""What a command changes in its process, put back: a notebook goes on as if nothing had happened."""

import contextlib
import faulthandler
import logging
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

from attnsweep.core.containment import Setting, attribute, same, settings_of_python, settings_of_torch


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Environment, working directory, search path of modules, loggers, handlers of signals and of uncaught
    exceptions, filters of warnings, and the random numbers, threads and defaults of numpy and torch are
    afterwards as they are now.
    """
    settings = [*settings_of_libraries(), *settings_of_python(), *handlers()]
    before = [get() for get, _ in settings]
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for (get, put), value in zip(settings, before, strict=True):
            if not same(get(), value):  # some imports half of torch when it is put
                put(value)


def settings_of_libraries() -> Iterator[Setting]:
    """Generators of random numbers, and the defaults of torch, as far as libraries are loaded."""
    yield random.getstate, random.setstate
    if "numpy" in sys.modules:
        import numpy as np

        yield np.random.get_state, np.random.set_state
    if "torch" in sys.modules:
        import torch

        yield torch.get_rng_state, torch.set_rng_state
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            yield torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all
        yield torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
        yield from settings_of_torch()


def handlers() -> Iterator[Setting]:
    """What happens to signals, log records, and exceptions and faults that nobody handles."""
    for number in signal.valid_signals():
        yield partial(signal.getsignal, number), partial(set_handler, number)
    yield loggers, set_loggers
    yield logging.getLogRecordFactory, logging.setLogRecordFactory
    yield attribute(sys, "excepthook")
    yield attribute(threading, "excepthook")
    yield faulthandler.is_enabled, lambda on: faulthandler.enable() if on else faulthandler.disable()


def set_handler(number: int, handler: Any) -> None:
    """Sets who handles a signal, if that is somebody of Python, and this the main thread, which alone can."""
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


def loggers() -> dict[logging.Logger, tuple[Any, ...]]:
    """The level, handlers and switches of every logger."""
    named = logging.root.manager.loggerDict.values()
    made = [logging.root, *(one for one in named if isinstance(one, logging.Logger))]
    return {one: (one.level, [*one.handlers], one.propagate, one.disabled) for one in made}


def set_loggers(wanted: dict[logging.Logger, tuple[Any, ...]]) -> None:
    """Sets what `loggers` returned; those that were made since stay as they are."""
    for logger, (level, heard_by, propagate, disabled) in wanted.items():
        logger.setLevel(level)
        logger.handlers[:] = heard_by
        logger.propagate, logger.disabled = propagate, disabled
