"""Functions that pickles of a bundle call to make torch objects again. Run in the worker."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def quantized_per_tensor(integers: torch.Tensor, dtype: torch.dtype, scale: float, zero: int) -> torch.Tensor:
    with no_advice():
        return torch._make_per_tensor_quantized_tensor(integers, scale, zero)


def quantized_per_channel(
    integers: torch.Tensor, dtype: torch.dtype, scales: torch.Tensor, zeros: torch.Tensor, axis: int
) -> torch.Tensor:
    with no_advice():
        return torch._make_per_channel_quantized_tensor(integers, scales, zeros, axis)


def scripted(content: bytes) -> Any:
    with no_advice():
        return torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]


@contextmanager
def no_advice() -> Iterator[None]:
    """Torch advises against quantised and scripted models; whoever reads that here cannot change them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def compiled(module: torch.nn.Module, options: dict[str, Any]) -> Any:
    """Compiled on the first call, as in the notebook."""
    return torch.compile(module, **options)
