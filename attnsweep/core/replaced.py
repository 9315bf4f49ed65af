"""What a user's file may replace in torch for all models: functions and methods of `torch.nn`, and the hooks
that every module runs.

Read as a whole and put back as a whole; what a file adds under a name of its own harms nobody, and stays.
"""

import functools
from collections.abc import MutableMapping
from typing import Any

Namespaces = list[dict[str, Any]]
HOOKS = "_global_"  # as the module that has nn.Module calls all of them


@functools.cache
def owners() -> tuple[Any, ...]:
    """The modules and classes whose functions are called by models of all kinds."""
    from torch import nn

    kinds = [kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
    return (nn, nn.functional, nn.init, *dict.fromkeys(kinds))


def functions() -> Namespaces:
    """What stands in each of `owners`, by its name."""
    return [vars(owner).copy() for owner in owners()]


def set_functions(wanted: Namespaces) -> None:
    """Puts back what `functions` returned."""
    for owner, names in zip(owners(), wanted, strict=True):
        now = vars(owner)
        for name, value in names.items():
            if now.get(name) is not value:
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
