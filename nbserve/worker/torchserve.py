"""TorchServe's contract, for handlers that were written for it: rows as dicts, its context and its metrics. Worker."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl

from nbserve.handler import Context, Response
from nbserve.worker.context import context_of
from nbserve.worker.decode import content_type_of, decode_row, decoder_of
from nbserve.worker.encode import JSON_HEAD, encode_result
from nbserve.worker.metrics import UserMetrics
from nbserve.worker.multipart import gather, parts_of
from nbserve.worker.runner import Runner
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.stages import Pipeline, Watch, pipeline_of


def runner_of_torchserve(handler: Any, spec: WorkerSpec, metrics: UserMetrics) -> Runner:
    """Initialize a handler that follows TorchServe's contract and give what runs it."""
    kind = type(handler).__name__
    if not callable(getattr(handler, "handle", None)):
        raise TypeError(f"{kind} is no nbserve.Handler and has no handle(data, context) as TorchServe asks for")
    context = cast(TorchServeContext, context_of(spec, TorchServeMetrics(metrics), TorchServeContext))
    if callable(getattr(handler, "initialize", None)):
        handler.initialize(context)
    return Runner(
        with_answers(pipeline_of(handler)),
        context,
        decode_torchserve_row,
        id_prefix=spec.id_prefix,
        isolate_errors=spec.isolate_errors,
        handler=handler,
    )


def decode_torchserve_row(meta: bytes, body: memoryview) -> dict[str, Any]:
    """A row as TorchServe gives it: `body`, or the parts of a form by their names, and the query's parameters."""
    query = meta.partition(b"\0")[0].decode("latin-1")
    parameters = {name: bytearray(value, "utf-8") for name, value in parse_qsl(query, keep_blank_values=True)}
    return parameters | _inputs(meta, body)


def _inputs(meta: bytes, body: memoryview) -> dict[str, Any]:
    content_type = content_type_of(meta)
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"multipart/form-data":
        parts = parts_of(content_type, body)
        return gather((part.name, _value(part.content_type.encode("latin-1"), part.data)) for part in parts)
    decoded = decode_row(meta, body)
    if media_type == b"application/x-www-form-urlencoded" and isinstance(decoded, dict):
        return {name: _raw(value) for name, value in decoded.items()} if _is_form(body) else {"body": decoded}
    return {"body": bytearray(decoded) if isinstance(decoded, bytes) else decoded}


def _is_form(body: memoryview) -> bool:
    return not bytes(body[:64]).lstrip().startswith(b"{")


def _raw(value: str | list[str]) -> Any:
    return bytearray(value, "utf-8") if isinstance(value, str) else [bytearray(each, "utf-8") for each in value]


def _value(content_type: bytes, data: bytes) -> Any:
    value = decoder_of(content_type)(memoryview(data)) if content_type else data
    return bytearray(value) if isinstance(value, bytes) else value


@dataclass
class Answer:
    """What a handler set for one row through the context."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class TorchServeContext(Context):
    """The context under TorchServe's names."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def system_properties(self) -> dict[str, Any]:
        return self.properties

    @property
    def model_name(self) -> str:
        return self.endpoint

    @property
    def model_yaml_config(self) -> dict[str, Any]:
        return {}

    @property
    def manifest(self) -> dict[str, Any]:
        return {"model": {"modelName": self.endpoint, "modelVersion": self.version}}

    @property
    def request_ids(self) -> dict[int, str]:
        return {index: request.id for index, request in enumerate(self.requests)}

    def get_request_id(self, idx: int = 0) -> str:
        return self.requests[idx].id

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.requests[idx].headers.get(key.lower())

    def get_all_request_header(self, idx: int) -> Mapping[str, str]:
        return self.requests[idx].headers

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self.answers[idx].headers

    def get_response_content_type(self, idx: int) -> str | None:
        return self.answers[idx].headers.get("content-type")

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.answers[idx].headers[key.lower()] = value

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.answers[idx].status = code

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for answer in self.answers:
            answer.status = code


def with_answers(pipeline: Pipeline) -> Pipeline:
    """The pipeline, with what the handler set through the context laid over its results."""

    def run(bodies: list[Any], context: Context, watch: Watch) -> Sequence[Any]:
        answers = cast(TorchServeContext, context).answers = [Answer() for _ in bodies]
        results = pipeline(bodies, context, watch)
        if not any(answer.headers or answer.status != 200 for answer in answers):
            return results
        return [_overlaid(result, answer) for result, answer in zip(results, answers, strict=True)]

    return run


def _overlaid(result: Any, answer: Answer) -> Response:
    plain = encode_result(result)
    headers = dict(answer.headers)
    content_type = headers.pop("content-type", (plain.head or JSON_HEAD).partition(b"\0")[0].decode("latin-1"))
    return Response(bytes(plain.body), content_type, headers, answer.status)


class TorchServeMetrics:
    """TorchServe's metric calls beside nbserve's own."""

    def __init__(self, metrics: UserMetrics) -> None:
        self.counter = metrics.counter
        self.gauge = metrics.gauge
        self.histogram = metrics.histogram

    def add_counter(self, name: str, value: float, idx: int | None = None, dimensions: Any = None) -> None:
        self.counter(_metric_name(name)).inc(value)

    def add_error(self, name: str, value: float = 1, dimensions: Any = None) -> None:
        self.counter(_metric_name(name)).inc(1)

    def add_time(
        self, name: str, value: float, idx: int | None = None, unit: str = "ms", dimensions: Any = None
    ) -> None:
        self.histogram(_metric_name(f"{name}_{unit}"), buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)).observe(
            value
        )

    def add_size(
        self, name: str, value: float, idx: int | None = None, unit: str = "MB", dimensions: Any = None
    ) -> None:
        self.gauge(_metric_name(f"{name}_{unit}")).set(value)

    def add_percent(self, name: str, value: float, idx: int | None = None, dimensions: Any = None) -> None:
        self.gauge(_metric_name(f"{name}_percent")).set(value)


def _metric_name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_:]", "_", name)
