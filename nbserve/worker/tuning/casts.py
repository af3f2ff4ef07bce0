"""Another dtype or memory layout for a module: its weights, and what goes in and out of a call. Runs in the worker."""

from __future__ import annotations

import copy
import dataclasses
import functools
import threading
from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import nn

from nbserve.worker.tuning.modules import COMPILED_MARK

Forward = Callable[..., Any]
OneTensor = Callable[[torch.Tensor], torch.Tensor]


class Casts:
    """Converts modules, and has their calls convert what goes in and out; the handler sees float32 as before.

    `is_inside` is set in the threads that run a converted module: modules in it are called with what they compute in.
    """

    def __init__(self, dtype: torch.dtype | None, channels_last: bool) -> None:
        self._dtype = dtype
        self._channels_last = channels_last
        self._running = threading.local()

    def convert(self, module: nn.Module) -> None:
        """Give the module weights of the dtype and layout: copies of its own, where the file's were mapped."""
        if self._dtype is not None:
            # Not `module.to`, which drops the imaginary part of complex buffers, such as rotary frequencies.
            module._apply(self._to_dtype)  # type: ignore[no-untyped-call]
        if self._channels_last:
            for parameter in module.parameters():
                if parameter.dim() == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def around(self, forward: Forward, plain: Forward, *, is_inner: bool) -> Forward:
        """`forward` with converted arguments and results; `plain` is the method as it was written."""
        running = self._running

        @functools.wraps(plain)
        def call(*args: Any, **kwargs: Any) -> Any:
            was_inside = getattr(running, "is_inside", False)
            if is_inner and was_inside:
                return forward(*args, **kwargs)
            running.is_inside = True
            try:
                outputs = forward(*mapped(args, self._into), **mapped(kwargs, self._into))
            finally:
                running.is_inside = was_inside
            return mapped(outputs, self._out_of)

        setattr(call, COMPILED_MARK, getattr(forward, COMPILED_MARK, False))
        return call

    def _to_dtype(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _into(self, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        if self._dtype is not None:
            tensor = tensor.to(self._dtype)
        if self._channels_last and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _out_of(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.float() if tensor.dtype is self._dtype else tensor


def mapped(value: Any, change: OneTensor) -> Any:
    """`value` with its tensors changed, in lists, tuples, dicts and dataclasses too; the same object if none was.

    What holds them keeps its type, so that the outputs of a transformers model stay what its users expect.
    """
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return _sequence(value, [mapped(each, change) for each in value])
    if isinstance(value, MutableMapping):
        return _with(value, {key: mapped(each, change) for key, each in value.items()}, _set_item)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        old = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _with(value, {name: mapped(each, change) for name, each in old.items()}, object.__setattr__, old)
    return value


def _sequence(value: Any, items: list[Any]) -> Any:
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    if hasattr(value, "_make"):
        return value._make(items)
    return type(value)(items)


def _with(value: Any, new: dict[Any, Any], write: Callable[[Any, Any, Any], None], old: Any = None) -> Any:
    """A copy of `value` with what differs written to it."""
    old = value if old is None else old
    changes = {key: each for key, each in new.items() if each is not old[key]}
    if not changes:
        return value
    twin = copy.copy(value)
    for key, each in changes.items():
        write(twin, key, each)
    return twin


def _set_item(mapping: Any, key: Any, value: Any) -> None:
    mapping[key] = value
