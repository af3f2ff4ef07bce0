"""What a worker knows of its handler and its modules, for the diagnosis of a profile. Runs in the worker."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import nn

from nbserve.handler import Handler
from nbserve.wire import Row
from nbserve.worker.debug.stacks import shown_file
from nbserve.worker.decode import content_type_of, decoder_of
from nbserve.worker.tuning.modules import inner_ones, is_compiled, modules_of

METHODS = ("initialize", "preprocess", "inference", "postprocess", "handle")
# These compute otherwise while they are in train mode.
_DROPOUTS = (nn.modules.dropout._DropoutNd,)
_NORMS = (nn.modules.batchnorm._NormBase,)
_WITH_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def facts_of(handler: Any, device: str) -> dict[str, Any]:
    """All but what changes from batch to batch."""
    return {
        "torch": torch.__version__,
        "num_threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "has_bf16": has_bf16(device),
        "modules": modules(handler),
        "stages": isinstance(handler, Handler) and type(handler).handle is Handler.handle,
        "overrides": [name for name in METHODS if _is_overridden(handler, name)],
        "handler": _place(handler),
    }


def modules(handler: Any) -> list[dict[str, Any]]:
    """The modules that are no part of another one."""
    found = modules_of(handler)
    inner = inner_ones(found)
    return [module_facts(name, module) for name, module in found.items() if name not in inner]


def module_facts(name: str, module: nn.Module) -> dict[str, Any]:
    """What a module is, and what in it is still in train mode; type and device are what most of its weights have."""
    weights: Counter[tuple[str, str]] = Counter()
    count_bytes = 0
    for parameter in module.parameters():
        weights[str(parameter.dtype).removeprefix("torch."), str(parameter.device)] += parameter.numel()
        count_bytes += parameter.numel() * parameter.element_size()
    dtype, device = weights.most_common(1)[0][0] if weights else ("", "")
    return {
        "name": name,
        "type": type(getattr(module, "_orig_mod", module)).__name__,
        "training": module.training,
        "training_layers": sorted({type(each).__name__ for each in module.modules() if _trains(each)}),
        "parameters": weights.total(),
        "parameter_bytes": count_bytes,
        "dtype": dtype,
        "device": device,
        "compiled": is_compiled(module),
    }


def has_bf16(device: str) -> bool:
    """Whether the device itself computes in bfloat16; where it does not, that takes longer than float32."""
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not _BF16_FLAGS.isdisjoint(flags.split())


def bodies(rows: Sequence[Row]) -> dict[str, int]:
    """How much a batch's requests brought along, and how much of that has to be read as JSON."""
    sizes = [(len(row.body), decoder_of(content_type_of(row.meta)) is orjson.loads) for row in rows]
    return {
        "count": len(sizes),
        "bytes": sum(size for size, _ in sizes),
        "json_bytes": sum(size for size, is_json in sizes if is_json),
    }


def nodes_made() -> int:
    """How many nodes of autograd graphs this thread has made so far."""
    return int(torch._C._autograd._get_sequence_nr())


def _trains(module: nn.Module) -> bool:
    if not module.training:
        return False
    if isinstance(module, _DROPOUTS):
        return module.p > 0
    if isinstance(module, _WITH_DROPOUT):
        return module.dropout > 0
    if isinstance(module, _NORMS):
        return bool(module.track_running_stats)
    return isinstance(module, nn.RReLU)


def _is_overridden(handler: Any, name: str) -> bool:
    own = getattr(type(handler), name, None)
    return own is not None and own is not getattr(Handler, name)


def _place(handler: Any) -> dict[str, Any]:
    """The handler's class, and where its code is: of each method that it defines itself too."""
    kind = type(handler)
    codes = {name: code for name in METHODS if (code := _code(handler, name)) is not None}
    first = min(codes.values(), key=lambda code: code.co_firstlineno, default=None)
    return {
        "name": kind.__name__,
        "file": shown_file(first.co_filename) if first is not None else "",
        "line": first.co_firstlineno if first is not None else 0,
        "methods": {name: [shown_file(code.co_filename), code.co_firstlineno] for name, code in codes.items()},
    }


def _code(handler: Any, name: str) -> types.CodeType | None:
    if not _is_overridden(handler, name):
        return None
    return getattr(getattr(type(handler), name), "__code__", None)
