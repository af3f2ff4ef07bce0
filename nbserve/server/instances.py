"""How Vertex AI and KServe V1 ask: {"instances": [...]}, for {"predictions": [...]}. Server process."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import orjson

from nbserve.errors import BadRequest, HandlerFailed, NbserveError
from nbserve.server.http.answer import JSON
from nbserve.server.http.exchange import Exchange
from nbserve.server.rows import MAX_ROWS, Rows

BYTES = b"application/octet-stream"
PARAMETERS_HEADER = b"x-nbserve-parameters"


@dataclass(frozen=True)
class InstancesRequest:
    """Body and content type of each instance, as if it were sent alone; `parameters` are JSON, or empty."""

    rows: list[tuple[bytes, bytes]]
    parameters: bytes = b""


class Instances(Rows):
    """A request whose instances are on their way."""

    def __init__(self, exchange: Exchange, request: InstancesRequest, echo: bytes) -> None:
        super().__init__(exchange, [body for body, _ in request.rows], echo)
        self._content_types = [content_type for _, content_type in request.rows]

    def content_type_of(self, row: int) -> bytes:
        return self._content_types[row]

    def fail_row(self, row: int, status: int, head: bytes, body: bytes | memoryview) -> None:
        self.exchange.answer(status, orjson.dumps(_error(row, status, head, body)), JSON, self.echo)

    def result_of(self, head: bytes, body: bytes | memoryview) -> Any:
        return _decoded(head, body)

    def answer_of(self, results: list[Any]) -> bytes:
        try:
            return orjson.dumps({"predictions": results})
        except orjson.JSONEncodeError as error:
            raise HandlerFailed(f"the handler's answers make no JSON: {error}") from None


def parse(body: bytes) -> InstancesRequest:
    """Cut a request into its instances; raises BadRequest. {"b64": TEXT} stands for bytes."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
        raise BadRequest("the body is no JSON object with a list `instances`")
    instances, parameters = request["instances"], request.get("parameters")
    if len(instances) > MAX_ROWS:
        raise BadRequest(f"there are {len(instances)} instances; the most is {MAX_ROWS}")
    rows = [_row(number, instance) for number, instance in enumerate(instances)]
    # In ASCII, as it goes into a header.
    return InstancesRequest(rows, b"" if parameters is None else json.dumps(parameters).encode())


def with_parameters(meta: bytes, parameters: bytes) -> bytes:
    """The meta of the rows: what a request says about all of them is one more header."""
    query, content_type, lines = meta.split(b"\0", 2)
    kept = [line for line in lines.split(b"\n") if line and not line.startswith(PARAMETERS_HEADER + b":")]
    if parameters:
        kept.append(PARAMETERS_HEADER + b":" + parameters)
    return b"\0".join((query, content_type, b"\n".join(kept)))


def _row(number: int, instance: Any) -> tuple[bytes, bytes]:
    if not isinstance(instance, dict) or instance.keys() != {"b64"}:
        return orjson.dumps(instance), JSON
    try:
        return base64.b64decode(instance["b64"], validate=True), BYTES
    except (TypeError, ValueError):
        raise BadRequest(f"instance {number}: `b64` is no base64") from None


def _error(row: int, status: int, head: bytes, body: bytes | memoryview) -> dict[str, Any]:
    """A row's error, and which instance it is about."""
    try:
        said = _decoded(head, body)
    except NbserveError:
        said = None
    is_object = isinstance(said, dict) and "message" in said
    error = said if is_object else {"message": said if isinstance(said, str) else f"status {status}"}
    text = f"instance {row}: {error['message']}"
    return {"code": status, "type": HandlerFailed.kind, **error, "message": text, "instance": row}


def _decoded(head: bytes, body: bytes | memoryview) -> Any:
    """A row's answer as JSON has it: bytes as {"b64": TEXT}."""
    content_type = (head.partition(b"\0")[0] or JSON).partition(b";")[0].strip().lower()
    try:
        if content_type.startswith(b"text/"):
            return bytes(body).decode()
        if content_type == JSON:
            return orjson.loads(body)
    except ValueError:
        raise HandlerFailed("the handler's answer is not what its content type says") from None
    return {"b64": base64.b64encode(body).decode()}
