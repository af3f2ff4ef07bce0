"""What classes and functions hold besides code, observed in the kernel and again in the worker: they must agree."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from nbserve.errors import BundleError

_PLAIN = (int, bool, float, complex, str, bytes, type(None), type(Ellipsis))
_DEPTH = 4

Observation = dict[str, list[str]]


def observe(obj: Any, named: Mapping[int, str]) -> Observation:
    """Class attributes, defaults and closed-over values, as {place: [digest, short text]}. `named`: artifacts by id."""
    places: dict[str, Any] = dict(_places(obj, "", 0, set()))
    return {place: [digest(value, named), shown(value)] for place, value in places.items()}


def verify(
    name: str, wanted: Observation, origins: Mapping[str, list[str]], obj: Any, named: Mapping[int, str]
) -> None:
    """Raise BundleError where the worker's object differs from what the kernel had."""
    found = observe(obj, named)
    for place, (known, text) in wanted.items():
        here = found.get(place)
        if here is None or here[0] != known:
            now = here[1] if here else "missing"
            raise BundleError(_difference(f"{name}{place}", text, now, origins.get(place, []), name))


def digest(value: Any, named: Mapping[int, str], depth: int = 0) -> str:
    """A text that is equal for equal values in two processes; for objects it cannot look into just their type."""
    if id(value) in named:
        return f"={named[id(value)]}"
    if isinstance(value, _PLAIN) and type(value) in _PLAIN:
        return _short(repr(value))
    if type(value) in (list, tuple) and depth < _DEPTH:
        return f"{type(value).__name__}({','.join(digest(part, named, depth + 1) for part in value)})"
    if type(value) in (set, frozenset) and depth < _DEPTH:
        return f"{type(value).__name__}({','.join(sorted(digest(part, named, depth + 1) for part in value))})"
    if type(value) is dict and depth < _DEPTH:
        parts = (f"{digest(k, named, depth + 1)}:{digest(v, named, depth + 1)}" for k, v in value.items())
        return f"dict({','.join(parts)})"
    if (content := _array_bytes(value)) is not None:
        kind = f"{type(value).__name__} {value.dtype} {list(value.shape)}"
        return f"{kind} {hashlib.sha256(content).hexdigest()}"
    if (torch := sys.modules.get("torch")) is not None and isinstance(value, torch.nn.Module):
        weights = value.state_dict().items()
        return f"{_kind(value)}({','.join(f'{name}={digest(part, {}, _DEPTH)}' for name, part in weights)})"
    return _kind(value)


def shown(value: Any) -> str:
    """The value as an error message shows it."""
    if isinstance(value, type | types.FunctionType):
        return value.__qualname__
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _places(obj: Any, prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(obj) in seen or depth > _DEPTH:
        return
    seen.add(id(obj))
    if isinstance(obj, types.FunctionType):
        yield f"{prefix}()", Ellipsis
        yield from _of_function(obj, prefix, depth, seen)
    elif isinstance(obj, staticmethod | classmethod):
        yield from _places(obj.__func__, prefix, depth + 1, seen)
    elif isinstance(obj, functools._lru_cache_wrapper):
        yield from _places(obj.__wrapped__, prefix, depth + 1, seen)
    elif isinstance(obj, type):
        for name, value in vars(obj).items():
            if not _is_internal(name):
                is_code = isinstance(value, types.FunctionType | staticmethod | classmethod)
                if not is_code:
                    yield f"{prefix}.{name}", value
                yield from _places(value, f"{prefix}.{name}", depth + 1, seen) if is_code else ()
            elif isinstance(value, types.FunctionType):
                yield from _places(value, f"{prefix}.{name}", depth + 1, seen)


def _of_function(function: types.FunctionType, prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    for name, value in zip(positional[len(positional) - len(defaults) :], defaults, strict=True):
        yield f"{prefix}({name}=)", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"{prefix}({name}=)", value
    for name, value in _closed_over(function):
        if isinstance(value, types.FunctionType):
            yield from _places(value, f"{prefix}<{name}>", depth + 1, seen)
        elif not callable(value):
            yield f"{prefix}<{name}>", value


def _closed_over(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        if name != "__class__":
            yield name, value


def _is_internal(name: str) -> bool:
    return (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"


def _kind(value: Any) -> str:
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        module = str(getattr(value, "__module__", ""))
        return f"{'app' if module == '__main__' else module}.{value.__qualname__}"
    return f"<{_kind(type(value))}>"


def _array_bytes(value: Any) -> Any:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(value, numpy.ndarray) and not value.dtype.hasobject:
        return numpy.ascontiguousarray(value).tobytes()
    if torch is not None and isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
        if value.is_quantized:
            value = value.int_repr()
        return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return None


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:40]} {hashlib.sha256(text.encode()).hexdigest()}"


def _difference(place: str, kernel: str, worker: str, origins: list[str], name: str) -> str:
    again = f"Run the cell that defines {name} again, then serve it."
    if origins:
        cause = f"{' or '.join(origins)} was assigned again after {name} was defined"
    else:
        cause = f"what it was made from was assigned again after {name} was defined, or it is new each time"
        again += " What is new each time, such as random weights, belongs in a variable of its own."
    if kernel == worker:
        worker = "another one"
    return f"{place} is {kernel} in the notebook and {worker} in the bundle: {cause}. {again}"
