"""What a command changes in its process, put back: a notebook goes on as if nothing had happened."""

import contextlib
import faulthandler
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

Undo = Callable[[], None]


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Environment, working directory, search path of modules, loggers, handlers of signals and of uncaught
    exceptions, filters of warnings, and the random numbers, threads and defaults of numpy and torch are
    afterwards as they are now.
    """
    undo = [
        *defaults_of_torch(), *random_numbers(), *loggers(), *signals(), *interpreter(), *environment(),
    ]  # fmt: skip
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for put_back in undo:
            put_back()


def environment() -> Iterator[Undo]:
    """The variables of the environment and the working directory."""
    before, here = dict(os.environ), os.getcwd()

    def put_back() -> None:
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)
        os.chdir(here)

    yield put_back


def interpreter() -> Iterator[Undo]:
    """What lies in `sys`, and what happens to exceptions and faults that nobody handles."""
    path, stdout, stderr = list(sys.path), sys.stdout, sys.stderr
    hook, of_threads, of_faults = sys.excepthook, threading.excepthook, faulthandler.is_enabled()

    def put_back() -> None:
        sys.path[:] = path
        sys.stdout, sys.stderr = stdout, stderr
        sys.excepthook, threading.excepthook = hook, of_threads
        if faulthandler.is_enabled() and not of_faults:
            faulthandler.disable()

    yield put_back


def loggers() -> Iterator[Undo]:
    """The level, handlers and switches of every logger."""
    named = logging.root.manager.loggerDict

    def state(logger: logging.Logger) -> tuple[Any, ...]:
        return logger.level, list(logger.handlers), logger.propagate, logger.disabled

    def there() -> dict[str, logging.Logger]:
        made = {key: one for key, one in named.items() if isinstance(one, logging.Logger)}
        return {"": logging.root, **made}

    before, factory = {key: state(one) for key, one in there().items()}, logging.getLogRecordFactory()

    def put_back() -> None:
        for key, logger in there().items():
            if key in before:
                level, handlers, logger.propagate, logger.disabled = before[key]
                logger.handlers[:] = handlers
                logger.setLevel(level)
        logging.setLogRecordFactory(factory)

    yield put_back


def signals() -> Iterator[Undo]:
    """The handlers of all signals; only the main thread can put them back."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def put_back() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    yield put_back


def random_numbers() -> Iterator[Undo]:
    """The state of the generators of `random`, numpy and torch, as far as these are loaded."""
    state = random.getstate()
    yield lambda: random.setstate(state)
    if "numpy" in sys.modules:
        import numpy as np

        of_numpy = np.random.get_state()
        yield lambda: np.random.set_state(of_numpy)
    if "torch" in sys.modules:
        import torch

        of_torch = torch.get_rng_state()
        yield lambda: torch.set_rng_state(of_torch)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            of_gpus = torch.cuda.get_rng_state_all()
            yield lambda: torch.cuda.set_rng_state_all(of_gpus)


def defaults_of_torch() -> Iterator[Undo]:
    """Threads, default type, gradients and determinism of torch, if it is loaded."""
    if "torch" not in sys.modules:
        return
    import torch

    settings: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
        (torch.get_num_threads, torch.set_num_threads),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    ]
    before = [get() for get, _ in settings]

    def put_back() -> None:
        for (get, put), value in zip(settings, before, strict=True):
            if get() != value:  # some of these import half of torch
                put(value)

    yield put_back
