"""Torch objects pickle cannot save as they are: quantised tensors, scripted and compiled modules. In the kernel."""

from __future__ import annotations

import io
import sys
from typing import Any

import torch

from nbserve.bundle.restore import compiled, no_advice, quantized_per_channel, quantized_per_tensor, scripted


def reduce_torch(obj: Any) -> Any:
    """What pickle is told about the object: (function, arguments), or NotImplemented for the ordinary way."""
    if isinstance(obj, torch.Tensor) and obj.is_quantized:
        return _reduce_quantized(obj)
    if isinstance(obj, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        buffer = io.BytesIO()
        with no_advice():
            torch.jit.save(obj, buffer)
        return scripted, (buffer.getvalue(),)
    if is_compiled(obj):
        return compiled, (obj._orig_mod, compile_options(obj))
    return NotImplemented


def is_compiled(obj: Any) -> bool:
    """Whether it is what torch.compile makes of a module; importing dynamo only to ask would take seconds."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and isinstance(obj, dynamo.OptimizedModule)


def compile_options(module: Any) -> dict[str, Any]:
    """The arguments that torch.compile was called with; a mode shows as the options that it stands for."""
    context = module.dynamo_ctx
    backend = context.callback
    fullgraph = bool(getattr(context, "fullgraph", False))
    while (inner := getattr(backend, "_torchdynamo_orig_backend", None)) is not None:
        fullgraph = fullgraph or bool(getattr(backend, "_one_graph", False))
        backend = inner
    options: dict[str, Any] = {"dynamic": getattr(backend, "dynamic", getattr(context, "_dynamic", None))}
    if isinstance(backend, torch._TorchCompileInductorWrapper):
        options["options"] = dict(backend.config) or None
    elif isinstance(backend, torch._TorchCompileWrapper):
        name = backend.compiler_name
        options["backend"] = name if name in torch._dynamo.list_backends(()) else backend.compiler_fn
        options |= backend.kwargs
    else:
        options["backend"] = backend
    return {key: value for key, value in {**options, "fullgraph": fullgraph}.items() if value not in (None, False)}


def _reduce_quantized(tensor: torch.Tensor) -> Any:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return quantized_per_tensor, (tensor.int_repr(), tensor.dtype, tensor.q_scale(), tensor.q_zero_point())
    scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return quantized_per_channel, (tensor.int_repr(), tensor.dtype, scales, zeros, tensor.q_per_channel_axis())
