"""Serve a PyTorch handler class from a notebook cell: live, multi-process, with dynamic batching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbserve.config import EndpointConfig, ServerConfig
from nbserve.errors import BadRequest, CaptureError, NbserveError, PredictError, StartError
from nbserve.handler import Context, Error, Handler, Request, Response, UploadedFile

if TYPE_CHECKING:
    from nbserve.bundle.weights import load_weights
    from nbserve.deployment import Server
    from nbserve.serving import endpoint, serve
    from nbserve.verbs import Endpoint

__all__ = [
    "BadRequest",
    "CaptureError",
    "Context",
    "Endpoint",
    "EndpointConfig",
    "Error",
    "Handler",
    "NbserveError",
    "PredictError",
    "Request",
    "Response",
    "Server",
    "ServerConfig",
    "StartError",
    "UploadedFile",
    "endpoint",
    "load_weights",
    "serve",
]

# Loaded on first use: a worker must not pay for them, and `import nbserve` must not import torch.
_LATER = {
    "Endpoint": "nbserve.verbs",
    "Server": "nbserve.deployment",
    "endpoint": "nbserve.serving",
    "load_weights": "nbserve.bundle.weights",
    "serve": "nbserve.serving",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        import importlib.metadata

        return importlib.metadata.version("nbserve-torch")
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'nbserve' has no attribute {name!r}")


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext nbserve`: add the magics, and start the server in the background."""
    from nbserve.notebook import magics

    magics.load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """`%unload_ext nbserve`: stop what the kernel serves."""
    from nbserve.notebook import magics

    magics.unload(ipython)
