"""Safetensors files laid out to be mapped: aligned when written, never copied when read. Runs in kernel and worker."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nbserve.errors import BundleError

PAGE_BYTES = 4096
LINE_BYTES = 64

# names of the safetensors format
DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def layout(tensors: Mapping[str, torch.Tensor]) -> list[bytes | memoryview]:
    """The chunks of a safetensors file of contiguous CPU tensors, data from a page on.

    The format allows no holes: sizes of whole cache lines come first, so each of them starts on one. The odd ones
    follow by falling item size, so each stays aligned to its items.
    """
    ordered = sorted(tensors.items(), key=lambda item: _rank(item[1]))
    header: dict[str, Any] = {}
    start = 0
    for key, tensor in ordered:
        end = start + tensor.nbytes
        header[key] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    return [_padded(header), *(_bytes_of(tensor) for _, tensor in ordered)]


def _rank(tensor: torch.Tensor) -> tuple[bool, int, int]:
    return tensor.nbytes % LINE_BYTES != 0, -tensor.itemsize, -tensor.nbytes


def _padded(header: dict[str, Any]) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-(len(text) + 8) // PAGE_BYTES) * PAGE_BYTES - 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    raw: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return memoryview(raw)


@dataclass(frozen=True)
class MappedFile:
    """A safetensors file mapped copy-on-write: processes share its pages until one of them writes to a tensor."""

    path: Path
    header: dict[str, Any]
    content: mmap.mmap
    data_at: int

    @classmethod
    def open(cls, path: Path) -> MappedFile:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        data_at = 8 + int.from_bytes(content[:8], "little")
        try:
            header = json.loads(content[8:data_at])
        except ValueError as error:
            raise BundleError(f"{path} is no safetensors file: {error}") from None
        header.pop("__metadata__", None)
        if hasattr(mmap, "MADV_WILLNEED"):
            content.madvise(mmap.MADV_WILLNEED)
        return cls(path, header, content, data_at)

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor of that name, backed by the file."""
        entry = self.header[key]
        start, end = entry["data_offsets"]
        dtype, shape = self._dtype(key, entry["dtype"]), entry["shape"]
        if start == end:
            return torch.empty(shape, dtype=dtype)
        raw = torch.frombuffer(self.content, dtype=torch.uint8, count=end - start, offset=self.data_at + start)
        return raw.view(dtype).view(shape)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {key: self.tensor(key) for key in self.header}

    def _dtype(self, key: str, name: str) -> torch.dtype:
        if name not in DTYPES:
            raise BundleError(f"{self.path} stores {key} as {name}, which nbserve cannot map")
        return DTYPES[name]
