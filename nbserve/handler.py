"""The user's contract: Handler, Context, Request and what a handler may return or raise. Runs in kernel and worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nbserve.errors import BadRequest

__all__ = ["BadRequest", "Context", "Error", "Handler", "Metrics", "Request", "Response", "UploadedFile"]


class Handler:
    """Base class of a handler. One instance lives in each worker; its methods run in the worker's main thread.

    Every method has a default, so a handler that only sets `self.model` in `initialize` works:
    `preprocess` makes a tensor of the batch, `inference` calls `self.model` under `torch.inference_mode`,
    `postprocess` gives one row of the outputs to each request.
    """

    model: Any = None
    context: Context

    def initialize(self, context: Context) -> None:
        """Called once per worker before it counts as ready: load the model here."""

    def preprocess(self, requests: list[Any]) -> Any:
        """Turn the decoded bodies of a batch (JSON: objects, text: str, form: dict, else bytes) into model input.

        Default: one float32 tensor of shape (batch, ...) on `context.device`, whole numbers too, as JSON does not
        tell 1 from 1.0; bodies must be numbers or nested lists of one shape, else BadRequest is raised.
        """
        import numpy as np
        import torch

        try:
            # By way of numpy: torch takes seven times as long to read nested lists.
            array = np.array(requests)
        except ValueError as error:
            raise BadRequest(f"the body is no array that fits the others of its batch: {error}") from None
        if array.dtype.kind not in "biuf":
            raise BadRequest(f"the body is no array of numbers: {str(requests[0])[:80]}")
        return torch.from_numpy(array.astype(np.float32, copy=False)).to(self.context.device)

    def inference(self, batch: Any) -> Any:
        """Run the model on a batch. Default: `self.model(batch)` under `torch.inference_mode`.

        In a method of your own autograd is on, as in the notebook, unless you turn it off.
        """
        if self.model is None:
            raise TypeError(f"{type(self).__name__} has no self.model: set it in initialize, or define inference")
        import torch

        with torch.inference_mode():
            return self.model(batch)

    def postprocess(self, outputs: Any) -> Sequence[Any]:
        """Turn the outputs into one result per request, in the same order. Default: the rows of `outputs`.

        A result is anything JSON can say, bytes, str, a tensor, a numpy array or scalar, a Response, or an Error.
        """
        if isinstance(outputs, tuple):
            raise TypeError(f"the model returned {len(outputs)} outputs: define postprocess to make rows of them")
        rows: Sequence[Any] = outputs
        return rows

    def handle(self, requests: list[Any], context: Context) -> Sequence[Any]:
        """The three stages in order. Override it to take the whole batch in one method."""
        return self.postprocess(self.inference(self.preprocess(requests)))


@dataclass(frozen=True)
class Response:
    """A result with full control over the answer: body, media type, status and further headers."""

    body: bytes | str = b""
    content_type: str = "application/octet-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Error:
    """Put it in a row's place to fail just that request: `status` 400 to 599, `text` is shown to the client."""

    status: int
    text: str


@dataclass(frozen=True)
class UploadedFile:
    """A file of a multipart/form-data body."""

    filename: str
    content_type: str
    data: bytes


@dataclass(frozen=True)
class Request:
    """What came with a body: id, headers (names in lower case), query parameters and content type."""

    id: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    content_type: str


class Counter(Protocol):
    def inc(self, amount: float = 1.0) -> None: ...


class Gauge(Protocol):
    def set(self, value: float) -> None: ...


class Histogram(Protocol):
    def observe(self, value: float) -> None: ...


class Metrics(Protocol):
    """A handler's own metrics, shown at `/metrics` with the label `endpoint` (gauges also with `worker`)."""

    def counter(self, name: str, help: str = "") -> Counter: ...

    def gauge(self, name: str, help: str = "") -> Gauge: ...

    def histogram(self, name: str, help: str = "", buckets: Sequence[float] = ()) -> Histogram: ...


@dataclass
class Context:
    """What a worker tells its handler.

    `model_dir` is the bundle's folder, `device` a torch device name such as `cpu` or `cuda:0`, `worker_index` counts
    from 0, `properties` holds TorchServe's names (`model_dir`, `gpu_id`, `batch_size`) for handlers that read them.
    `requests[i]` belongs to row i of the batch that runs now.
    """

    model_dir: str
    device: str
    worker_index: int
    endpoint: str
    version: str
    metrics: Metrics
    properties: dict[str, Any] = field(default_factory=dict)
    requests: Sequence[Request] = ()
