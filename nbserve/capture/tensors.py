"""Which tensors go into which file: shared storages once, views as views, parameters as such. In the kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from nbserve.bundle.mapped import NAMES, layout


@dataclass
class _Storage:
    """The memory behind one or more tensors, and the artifact that names it."""

    artifact: str
    key: str
    tensors: list[int] = field(default_factory=list)


class TensorTable:
    """Gives each tensor object a number, so that tied weights stay one object also across artifacts."""

    def __init__(self) -> None:
        self._tensors: list[torch.Tensor] = []
        self._numbers: dict[int, int] = {}
        self._storages: dict[tuple[str, int], _Storage] = {}
        self._keys: set[tuple[str, str]] = set()

    def number_of(self, tensor: torch.Tensor, artifact: str, name: str | None) -> int:
        """The tensor's number; a new one is filed under `name` in the artifact's file."""
        number = self._numbers.get(id(tensor))
        if number is None:
            number = self._numbers[id(tensor)] = len(self._tensors)
            self._tensors.append(tensor)
            storage = tensor.untyped_storage()
            place = (str(storage.device), storage.data_ptr() or -number - 1)
            if place not in self._storages:
                self._storages[place] = _Storage(artifact, self._free_key(artifact, name or f"tensor{number}"))
            self._storages[place].tensors.append(number)
        return number

    def files(self) -> tuple[dict[str, list[bytes | memoryview]], list[dict[str, Any]]]:
        """The chunks of each file, and a record for each tensor: where it lies and what it is."""
        contents: dict[str, dict[str, torch.Tensor]] = {}
        records: list[dict[str, Any]] = [{} for _ in self._tensors]
        for storage in self._storages.values():
            data, placed = _stored([self._tensors[number] for number in storage.tensors])
            file = f"{storage.artifact}.safetensors"
            contents.setdefault(file, {})[storage.key] = data
            for number, view in zip(storage.tensors, placed, strict=True):
                records[number] = {"file": file, "key": storage.key, **view, **_kind(self._tensors[number])}
        return {file: layout(tensors) for file, tensors in contents.items()}, records

    def _free_key(self, artifact: str, name: str) -> str:
        key, count = name, 1
        while (artifact, key) in self._keys:
            key, count = f"{name}.{count}", count + 1
        self._keys.add((artifact, key))
        return key


def can_be_filed(tensor: torch.Tensor) -> bool:
    """Plain dense memory; the rest (quantised, sparse, meta, other classes) is left to pickle."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
    special = tensor.is_quantized or tensor.is_meta or tensor.is_nested or tensor.is_conj() or tensor.is_neg()
    return plain and not special and tensor.dtype in NAMES


def _stored(tensors: list[torch.Tensor]) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """What to write for one storage, and how each tensor lies in it."""
    if len(tensors) == 1:
        whole = _plain(tensors[0])
        if whole.is_contiguous():
            return whole, [{}]
        if whole.untyped_storage().nbytes() != whole.nbytes:
            whole = whole.clone(memory_format=torch.preserve_format)
        return _raw(whole), [_view(whole)]
    return _raw(tensors[0].detach()).cpu(), [_view(tensor) for tensor in tensors]


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu()


def _raw(tensor: torch.Tensor) -> torch.Tensor:
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage, 0, (storage.nbytes(),), (1,))


def _view(tensor: torch.Tensor) -> dict[str, Any]:
    return {
        "dtype": NAMES[tensor.dtype],
        "shape": list(tensor.shape),
        "stride": list(tensor.stride()),
        "offset": tensor.storage_offset(),
    }


def _kind(tensor: torch.Tensor) -> dict[str, Any]:
    flags = {
        "parameter": isinstance(tensor, torch.nn.Parameter),
        "grad": tensor.requires_grad,
        "cuda": tensor.device.type == "cuda",
    }
    return {name: True for name, holds in flags.items() if holds}
