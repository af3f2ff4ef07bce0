"""Objects into a pickle each, their tensors and large arrays into files of their own. Runs in the kernel."""

from __future__ import annotations

import importlib
import io
import pickle
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nbserve.capture.importing import is_importable, is_typing
from nbserve.capture.tensors import TensorTable, can_be_filed
from nbserve.capture.torchpickle import reduce_torch

LARGE_ARRAY_BYTES = 64 * 1024
PROTOCOL = 4
FAILURES = (
    TypeError,
    AttributeError,
    ValueError,
    RuntimeError,
    OSError,
    ImportError,
    pickle.PicklingError,
    RecursionError,
)

Refer = Callable[[Any], str]


class CannotPickle(Exception):
    """Pickling stopped at `culprit`."""

    def __init__(self, culprit: Any, error: BaseException) -> None:
        super().__init__(str(error))
        self.culprit = culprit
        self.error = error


@dataclass
class Pickled:
    """A pickle and what it refers to: code of cells (by name in app.py), other artifacts, modules to import."""

    data: bytes
    code: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)


@dataclass
class Files:
    """What the artifacts of one bundle need besides their pickles."""

    tensors: TensorTable = field(default_factory=TensorTable)
    arrays: list[tuple[str, np.ndarray[Any, Any]]] = field(default_factory=list)


def dump(name: str, root: Any, refer: Refer, others: Mapping[int, str], files: Files) -> Pickled:
    """Pickle an object. `refer` names the classes and functions of cells, `others` are the artifacts by id."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, name, root, refer, others, files)
    try:
        pickler.dump(root)
        pickler.dump(pickler.attributes)
    except FAILURES as error:
        raise CannotPickle(pickler.last, error) from error
    return Pickled(buffer.getvalue(), list(pickler.code), list(pickler.artifacts), pickler.modules)


class _Pickler(pickle.Pickler):
    def __init__(
        self, buffer: io.BytesIO, name: str, root: Any, refer: Refer, others: Mapping[int, str], files: Files
    ) -> None:
        super().__init__(buffer, PROTOCOL)
        self.last = root
        self.code: dict[str, None] = {}
        self.artifacts: dict[str, None] = {}
        self.modules: set[str] = set()
        self.attributes: dict[int, dict[str, Any]] = {}
        self._name, self._root = name, root
        self._refer, self._others, self._files = refer, others, files
        self._tensor_names = _tensor_names(root)
        self._arrays: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> tuple[str, str | int] | None:
        self.last = obj
        if isinstance(obj, torch.Tensor):
            return ("tensor", self._tensor(obj)) if can_be_filed(obj) else None
        if type(obj) is np.ndarray:
            return ("array", self._array(obj)) if self._is_large(obj) else None
        if obj is not self._root and (name := self._others.get(id(obj))) is not None:
            self.artifacts[name] = None
            return "artifact", name
        return self._code(obj)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.ModuleType):
            self.modules.add(obj.__name__)
            return importlib.import_module, (obj.__name__,)
        return reduce_torch(obj)

    def _code(self, obj: Any) -> tuple[str, str] | None:
        if not (
            isinstance(obj, type | types.FunctionType | types.BuiltinFunctionType) or is_typing(obj) or _is_cached(obj)
        ):
            return None
        if is_importable(obj) or not is_of_cells(obj):
            if isinstance(module := getattr(obj, "__module__", None), str):
                self.modules.add(module)
            return None
        name = self._refer(obj)
        self.code[name] = None
        return "code", name

    def _tensor(self, tensor: torch.Tensor) -> int:
        number = self._files.tensors.number_of(tensor, self._name, self._tensor_names.get(id(tensor)))
        if extra := {key: value for key, value in vars(tensor).items() if key != "_backward_hooks"}:
            self.attributes[number] = extra
        return number

    def _array(self, array: np.ndarray[Any, Any]) -> int:
        if id(array) not in self._arrays:
            self._arrays[id(array)] = len(self._files.arrays)
            same = sum(file.startswith(f"{self._name}.") for file, _ in self._files.arrays)
            file = f"{self._name}.npy" if not same else f"{self._name}.{same}.npy"
            self._files.arrays.append((file, array))
        return self._arrays[id(array)]

    def _is_large(self, array: np.ndarray[Any, Any]) -> bool:
        return not array.dtype.hasobject and (array.nbytes >= LARGE_ARRAY_BYTES or array is self._root)


def is_of_cells(obj: Any) -> bool:
    """Whether it was made by code of the notebook and has no other home."""
    if isinstance(obj, types.FunctionType):
        return obj.__module__ == "__main__" or obj.__globals__.get("__name__") == "__main__"
    return getattr(obj, "__module__", None) == "__main__"


def npy_chunks(array: np.ndarray[Any, Any]) -> list[bytes | memoryview]:
    """The bytes of a .npy file, without a copy of the data where it is contiguous."""
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    flat = array.reshape(-1, order="F" if np.isfortran(array) else "C")
    raw: Any = flat.view(np.uint8)
    return [header.getvalue(), memoryview(raw)] if flat.nbytes else [header.getvalue()]


def _is_cached(obj: Any) -> bool:
    return hasattr(type(obj), "__get__") and callable(obj) and hasattr(obj, "__wrapped__")


def _tensor_names(root: Any) -> dict[int, str]:
    """A module's tensors have the names of its state dict, so that the file is a checkpoint too."""
    if not isinstance(root, torch.nn.Module):
        return {}
    return {id(tensor): name for name, tensor in [*root.named_buffers(), *root.named_parameters()]}
