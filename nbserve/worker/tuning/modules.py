"""Which torch modules a handler holds, and which of them the settings are applied to. Runs in the worker."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

# On the forward of a module that the setting `compile` has compiled.
COMPILED_MARK = "nbserve_compiled"
_NO_HOLDERS = (str, bytes, type, types.ModuleType, types.FunctionType, types.MethodType, torch.Tensor)


def modules_of(handler: Any) -> dict[str, nn.Module]:
    """The modules a handler holds, each once, by where it has them.

    They are found in its attributes, in the lists, tuples and dicts there, in the attributes of the objects there
    (`pipeline.model`), and among the names of the handler's cell.
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    for place, value in _places(handler):
        if isinstance(value, nn.Module):
            found.setdefault(id(value), (place, value))
    return dict(found.values())


def tunable(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Those that compute with parameters; where none does, all that are written in Python.

    Modules without parameters are mostly transforms of images, which neither a compiler nor another dtype serves.
    """
    written = {place: module for place, module in modules.items() if not isinstance(module, torch.jit.ScriptModule)}
    weighty = {place: module for place, module in written.items() if any(True for _ in module.parameters())}
    return weighty or written


def inner_ones(modules: dict[str, nn.Module]) -> set[str]:
    """The places of modules that are a part of another one, such as `encoder` beside `model`."""
    parts = {id(part) for module in modules.values() for part in list(module.modules())[1:]}
    return {place for place, module in modules.items() if id(module) in parts}


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has it in hand, by the setting or by the handler's own code."""
    by_itself = getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
    return by_itself or getattr(module.forward, COMPILED_MARK, False)


def _places(handler: Any) -> Iterator[tuple[str, Any]]:
    own = {name: value for name, value in _attributes(handler).items() if name != "context"}
    yield from own.items()
    for name, value in own.items():
        yield from _inside(name, value)
    yield from _vars(sys.modules.get(type(handler).__module__)).items()


def _attributes(handler: Any) -> dict[str, Any]:
    """What `self.NAME` gives: the class's own values too, but for its methods and properties."""
    attributes: dict[str, Any] = {}
    for kind in reversed(type(handler).__mro__):
        attributes |= {name: value for name, value in vars(kind).items() if isinstance(value, nn.Module)}
    return attributes | _vars(handler)


def _inside(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple)):
        yield from ((f"{name}[{index}]", each) for index, each in enumerate(value))
    elif isinstance(value, dict):
        yield from ((f"{name}[{key!r}]", each) for key, each in value.items())
    elif not isinstance(value, (nn.Module, *_NO_HOLDERS)):
        yield from ((f"{name}.{attribute}", each) for attribute, each in _vars(value).items())


def _vars(value: Any) -> dict[str, Any]:
    try:
        return dict(vars(value))
    except TypeError:
        # It has no attributes of its own.
        return {}
