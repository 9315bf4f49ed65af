"""What a user's file may replace for all that runs in the process: functions and classes of torch, numpy and
Python, and the hooks that every module runs.

Read as a whole and put back as a whole; what a file adds under a name of its own harms nobody, and stays.
"""

import builtins
import functools
import json
import os
import ssl
import time
import types
import warnings
from collections.abc import MutableMapping
from typing import Any

import numpy as np

Namespaces = list[dict[str, Any]]
HOOKS = "_global_"  # as the module that has nn.Module calls all of them
OF_PYTHON = (builtins, json, os, os.path, ssl, time, warnings)  # `print` of one process among many, say


@functools.cache
def owners() -> tuple[Any, ...]:
    """The modules and classes whose functions are called by models of all kinds, and by this package."""
    import torch
    from torch import nn, optim

    kinds = [kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
    of_torch = (torch, torch.Tensor, optim, nn, nn.functional, nn.init, *dict.fromkeys(kinds))
    return (*OF_PYTHON, np, np.random, *of_torch)


def functions() -> Namespaces:
    """What stands in each of `owners`, by its name; copied as a whole: each step of a trial asks twice."""
    return [vars(owner).copy() for owner in owners()]


def set_functions(wanted: Namespaces) -> None:
    """Puts back what `functions` returned, except for modules, which are added as they are imported."""
    for owner, names in zip(owners(), wanted, strict=True):
        now = vars(owner)
        for name, value in names.items():
            if now.get(name) is not value and type(value) is not types.ModuleType:
                setattr(owner, name, value)


def hooks() -> dict[str, Any]:
    """The hooks of all modules, by the names of their lists."""
    from torch.nn.modules import module

    return {
        name: dict(value) if isinstance(value, MutableMapping) else value
        for name, value in vars(module).items()
        if name.startswith(HOOKS)
    }


def set_hooks(wanted: dict[str, Any]) -> None:
    """Puts back what `hooks` returned; the lists themselves stay, as their handles know them."""
    from torch.nn.modules import module

    for name, value in wanted.items():
        there = getattr(module, name)
        if isinstance(there, MutableMapping):
            there.clear()
            there.update(value)
        else:
            setattr(module, name, value)
