"""Open Inference Protocol: one request of n rows becomes n tickets, their answers become tensors. Server process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from nbserve.errors import BadRequest, HandlerFailed
from nbserve.server.http.answer import JSON
from nbserve.server.http.exchange import Exchange
from nbserve.server.rows import MAX_ROWS, Rows

_INTEGERS = frozenset(f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64))
_DATATYPES = _INTEGERS | {"BOOL", "FP16", "FP32", "FP64", "BF16", "BYTES"}
_MAX_DIMENSIONS = 32
_BINARY_HINT = "the binary data extension is not supported: send tensors as JSON in `data`"


@dataclass(frozen=True)
class InferRequest:
    """A request cut into rows; each row is the JSON body that a prediction of that row alone would have."""

    rows: list[bytes]
    id: str | None
    outputs: list[str]


class Inference(Rows):
    """An inference whose rows are on their way."""

    def __init__(self, exchange: Exchange, request: InferRequest, name: str, version: str, echo: bytes) -> None:
        super().__init__(exchange, request.rows, echo)
        self._request = request
        self._model = {"model_name": name, "model_version": version}

    def result_of(self, head: bytes, body: bytes | memoryview) -> Any:
        return _decoded(head, body)

    def answer_of(self, results: list[Any]) -> bytes:
        answer: dict[str, Any] = dict(self._model)
        if self._request.id is not None:
            answer["id"] = self._request.id
        answer["outputs"] = outputs_of(results, self._request.outputs)
        try:
            return orjson.dumps(answer)
        except orjson.JSONEncodeError as error:
            raise HandlerFailed(f"the handler's answers make no tensor: {error}") from None


def parse(body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> InferRequest:
    """Cut a request into rows along the first dimension of its inputs; raises BadRequest."""
    if any(name == b"inference-header-content-length" for name, _ in headers):
        raise BadRequest(_BINARY_HINT)
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadRequest("the body is no JSON object")
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequest("`id` is no text")
    return InferRequest(_rows(_objects(request, "inputs")), request_id, _output_names(request))


def outputs_of(results: list[Any], wanted: list[str]) -> list[dict[str, Any]]:
    """The results of all rows as named tensors: an object's members each become one, anything else is one tensor."""
    if results and all(isinstance(result, dict) and result.keys() == results[0].keys() for result in results):
        columns = {name: [result[name] for result in results] for name in results[0]}
    else:
        columns = {wanted[0] if len(wanted) == 1 else "output": results}
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise BadRequest(f"there is no output {missing[0]!r}; there are: {', '.join(columns)}")
    return [_tensor(name, columns[name]) for name in wanted or columns]


def _objects(request: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values = request.get(key)
    if not isinstance(values, list) or not values or not all(isinstance(value, dict) for value in values):
        raise BadRequest(f"`{key}` is no list of tensors")
    if any("binary_data_size" in _parameters(value) for value in values):
        raise BadRequest(_BINARY_HINT)
    return values


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    parameters = holder.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest("`parameters` is no object")
    return parameters


def _output_names(request: dict[str, Any]) -> list[str]:
    if _parameters(request).get("binary_data_output"):
        raise BadRequest(_BINARY_HINT)
    if not request.get("outputs"):
        return []
    outputs = _objects(request, "outputs")
    if any(_parameters(output).get("binary_data") for output in outputs):
        raise BadRequest(_BINARY_HINT)
    return [_text(output, "name") for output in outputs]


def _rows(inputs: list[dict[str, Any]]) -> list[bytes]:
    columns = {_text(tensor, "name"): _column(tensor) for tensor in inputs}
    if len(columns) < len(inputs):
        raise BadRequest("two inputs have one name")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise BadRequest(f"the inputs differ in their first dimension: {', '.join(map(str, sorted(lengths)))}")
    if len(columns) == 1:
        return [orjson.dumps(row) for row in next(iter(columns.values()))]
    names = list(columns)
    return [orjson.dumps(dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _column(tensor: dict[str, Any]) -> list[Any]:
    name, data = _text(tensor, "name"), tensor.get("data")
    if _text(tensor, "datatype") not in _DATATYPES:
        raise BadRequest(f"input {name!r} has the unknown datatype {tensor['datatype']!r}")
    shape = _checked_shape(name, tensor.get("shape"))
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r} has no list `data`")
    if data and isinstance(data[0], list):
        data_shape, flat = _unnested(data)
        fits = data_shape == shape
    else:
        flat, fits = data, len(data) == math.prod(shape)
    if not fits or any(isinstance(value, (list, dict)) for value in flat):
        raise BadRequest(f"the data of input {name!r} does not have its shape {shape}")
    return _nested(flat, shape)


def _checked_shape(name: str, shape: Any) -> list[int]:
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise BadRequest(f"input {name!r} has no shape")
    if not 0 < len(shape) <= _MAX_DIMENSIONS:
        raise BadRequest(f"input {name!r} has {len(shape)} dimensions; it can have 1 to {_MAX_DIMENSIONS}")
    if not 0 < shape[0] <= MAX_ROWS:
        raise BadRequest(f"input {name!r} has {shape[0]} rows; it can have 1 to {MAX_ROWS}")
    return shape


def _unnested(data: list[Any]) -> tuple[list[int] | None, list[Any]]:
    """The shape of nested lists, None if they are ragged, and their values in one list."""
    shape = [len(data)]
    while data and all(isinstance(value, list) for value in data):
        lengths = {len(value) for value in data}
        if len(lengths) > 1:
            return None, data
        shape.append(lengths.pop())
        data = list(chain.from_iterable(data))
    is_ragged = any(isinstance(value, list) for value in data)
    return None if is_ragged else shape, data


def _nested(flat: list[Any], shape: list[int]) -> list[Any]:
    if not flat:
        return [[] for _ in range(shape[0])]
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)]
    return flat


def _text(holder: dict[str, Any], key: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"a tensor has no `{key}`")
    return value


def _decoded(head: bytes, body: bytes | memoryview) -> Any:
    content_type = head.partition(b"\0")[0] or JSON
    try:
        if content_type.startswith(b"text/"):
            return bytes(body).decode()
        if content_type.partition(b";")[0].strip().lower() == JSON:
            return orjson.loads(body)
    except ValueError:
        raise HandlerFailed("the handler's answer is not what its content type says") from None
    raise HandlerFailed(f"the handler answers {content_type.decode('latin-1')}, which is no tensor: use /predictions")


def _tensor(name: str, column: list[Any]) -> dict[str, Any]:
    """A named tensor; rows that differ in shape or kind are sent as text, each row as its JSON."""
    shape, flat = _unnested(column)
    datatype = _datatype_of(flat)
    if shape is None or datatype is None:
        flat = [orjson.dumps(row).decode() for row in column]
        shape, datatype = [len(column)], "BYTES"
    return {"name": name, "shape": shape, "datatype": datatype, "data": flat}


def _datatype_of(flat: list[Any]) -> str | None:
    kinds = {type(value) for value in flat}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str}:
        return "BYTES"
    if kinds == {int}:
        return "INT64" if all(-(1 << 63) <= value < 1 << 63 for value in flat) else "UINT64"
    if kinds <= {int, float}:
        return "FP64"
    return None
