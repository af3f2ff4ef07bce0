"""What a handler is told: its Context and the requests of the batch. Runs in the worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload
from urllib.parse import parse_qsl

from nbserve.handler import Context, Metrics, Request
from nbserve.wire import Row
from nbserve.worker.spec import WorkerSpec

MAX_SHOWN = 8


def properties_of(spec: WorkerSpec) -> dict[str, Any]:
    """TorchServe's names for what the spec says."""
    _, _, gpu = spec.device.partition(":")
    return {
        "model_dir": spec.bundle,
        "gpu_id": int(gpu or 0) if spec.device.startswith("cuda") else None,
        "batch_size": spec.max_batch_size,
        "server_name": "nbserve",
    }


def context_of(spec: WorkerSpec, metrics: Metrics, kind: type[Context] = Context) -> Context:
    return kind(
        model_dir=spec.bundle,
        device=spec.device,
        worker_index=spec.worker_index,
        endpoint=spec.endpoint,
        version=spec.version,
        metrics=metrics,
        properties=properties_of(spec),
    )


class RequestViews(Sequence[Request]):
    """The requests of a batch, each parsed when a handler looks at it."""

    def __init__(self, rows: Sequence[Row], id_prefix: str) -> None:
        self._rows = rows
        self._id_prefix = id_prefix

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Request: ...

    @overload
    def __getitem__(self, index: slice) -> list[Request]: ...

    def __getitem__(self, index: int | slice) -> Request | list[Request]:
        if isinstance(index, slice):
            return [self._parse(row) for row in self._rows[index]]
        return self._parse(self._rows[index])

    def __repr__(self) -> str:
        shown = [f"{request.id} {request.content_type or 'without a type'}" for request in self[:MAX_SHOWN]]
        more = [f"and {len(self) - MAX_SHOWN} more"] if len(self) > MAX_SHOWN else []
        return f"<requests: {', '.join(shown + more) or 'none'}>"

    def ids(self) -> tuple[int, ...]:
        """The requests' numbers, as server and worker call them."""
        return tuple(row.request_id for row in self._rows)

    def _parse(self, row: Row) -> Request:
        query, _, rest = row.meta.decode("latin-1").partition("\0")
        content_type, _, headers = rest.partition("\0")
        return Request(
            id=request_text(self._id_prefix, row.request_id),
            headers=_headers_of(content_type, headers),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            content_type=content_type,
        )


def request_text(id_prefix: str, request_id: int) -> str:
    """A request's id as clients and the log see it."""
    return f"{id_prefix}-{request_id:x}"


def _headers_of(content_type: str, lines: str) -> dict[str, str]:
    headers = {"content-type": content_type} if content_type else {}
    for line in lines.split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            name = name.strip().lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    return headers
