"""What the user reads when something cannot be captured: its name, the line that uses it, the way out."""

from __future__ import annotations

import builtins
import io
import socket
import threading
import types
from typing import Any

from nbserve.capture.blocks import Use
from nbserve.errors import CaptureError

_IN_INITIALIZE = "Make it in initialize(self, context) instead: that runs in each worker."
_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Semaphore, threading.Event)


def refusal(name: str, why: str, use: Use | None, way_out: str) -> CaptureError:
    place = f"\n{use}" if use is not None else ""
    return CaptureError(f"cannot capture `{name}`: {why}.{place}\n{way_out}")


def undefined(name: str, use: Use | None) -> CaptureError:
    return refusal(
        name, "it is not defined in this notebook", use, f"Run the cell that defines {name}, or correct the name."
    )


def unpicklable(name: str, root: Any, culprit: Any, error: BaseException, use: Use | None) -> CaptureError:
    """The object, or something inside it, lives only in this process."""
    what = describe(culprit)
    why = f"it is {what}" if culprit is root else f"it holds {what}"
    way_out = _way_out(culprit)
    if way_out is None:
        why = f"{why}, which cannot be saved ({error})"
        way_out = f"Make {name} in initialize(self, context) instead, or keep only the data you need from it."
    return refusal(name, why, use, way_out)


def describe(value: Any) -> str:
    if isinstance(value, io.IOBase):
        return f"an open file ({getattr(value, 'name', type(value).__name__)})"
    if isinstance(value, types.FunctionType):
        return f"the function {value.__qualname__}, whose source is not at hand"
    if isinstance(value, _LOCKS):
        return "a lock of this process"
    kind = type(value)
    path = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    return f"a {path}" if path[:1].lower() not in "aeiou" else f"an {path}"


def _way_out(value: Any) -> str | None:
    if isinstance(value, io.IOBase):
        return "Read it into a variable, or open it in initialize(self, context): that runs in each worker."
    if isinstance(value, types.GeneratorType | types.AsyncGeneratorType | types.CoroutineType):
        return "Make a list of it, or make it in initialize(self, context): that runs in each worker."
    if isinstance(value, (*_LOCKS, socket.socket, threading.Thread)) or type(value).__module__.startswith("torch.cuda"):
        return _IN_INITIALIZE
    if isinstance(value, types.FunctionType):
        return "Define it with def in a cell of this notebook or in a .py file."
    return None


def is_builtin(name: str) -> bool:
    return hasattr(builtins, name)
