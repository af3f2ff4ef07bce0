"""From what a handler returns to the bytes of an answer. Runs in the worker."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson
import torch

from nbserve.handler import Error, Response
from nbserve.wire import Result

TEXT_HEAD = b"text/plain; charset=utf-8"
BYTES_HEAD = b"application/octet-stream"
JSON_HEAD = b"application/json"
# The server sets these itself; a second one would break the answer's framing.
_FRAMING = frozenset({"connection", "content-length", "content-type", "transfer-encoding"})
_dumps, _NUMPY = orjson.dumps, orjson.OPT_SERIALIZE_NUMPY
# A third of the time of the constructor that NamedTuple writes.
_new = tuple.__new__
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_JSON_KINDS = frozenset({bool, dict, float, int, list, type(None), np.ndarray, torch.Tensor})


def encode_rows(outputs: Sequence[Any] | torch.Tensor | np.ndarray[Any, Any]) -> list[Result]:
    """One answer for each row of the outputs; a tensor is brought to the CPU once, not row by row."""
    if isinstance(outputs, torch.Tensor):
        outputs = array_of(outputs)
    return [encode_result(result) for result in outputs]


def encode_result(result: Any) -> Result:
    """One answer. Numbers JSON cannot say (NaN, infinity) become null."""
    if type(result) in _JSON_KINDS:
        return json_result(result)
    if isinstance(result, str):
        return Result(200, TEXT_HEAD, result.encode())
    if isinstance(result, (bytes, bytearray, memoryview)):
        return Result(200, BYTES_HEAD, bytes(result))
    if isinstance(result, Response):
        return encode_response(result)
    if isinstance(result, Error):
        return encode_error(result)
    return json_result(result)


def json_result(value: Any) -> Result:
    """A plain answer in JSON; dict keys may be numbers too."""
    try:
        body = _dumps(value, plain, _NUMPY)
    except TypeError:
        body = _dumps(value, plain, _NUMPY | orjson.OPT_NON_STR_KEYS)
    return _new(Result, (200, b"", body))


def encode_response(response: Response) -> Result:
    if not 200 <= response.status <= 599:
        raise ValueError(f"Response.status is {response.status}; it can be 200 to 599")
    body = response.body.encode() if isinstance(response.body, str) else bytes(response.body)
    return Result(response.status, head_of(response.content_type, response.headers), body)


def encode_error(error: Error) -> Result:
    if not 400 <= error.status <= 599:
        raise ValueError(f"Error.status is {error.status}; it can be 400 to 599")
    return failure(error.status, _phrase(error.status), error.text)


def failure(status: int, kind: str, text: str) -> Result:
    """An answer that says what went wrong, in the shape of all of nbserve's errors."""
    return Result(status, b"", orjson.dumps({"code": status, "type": kind, "message": text}))


def head_of(content_type: str, headers: Mapping[str, str]) -> bytes:
    """The head of a result; raises ValueError for headers that would break the answer."""
    _check_value("content_type", content_type)
    head = content_type.encode("latin-1")
    if not headers:
        return b"" if head == JSON_HEAD else head
    for name, value in headers.items():
        if not _TOKEN(name) or name.lower() in _FRAMING:
            raise ValueError(f"Response.headers cannot set {name!r}")
        _check_value(name, value)
    lines = "\n".join(f"{name}:{value}" for name, value in headers.items())
    return head + b"\0" + lines.encode("latin-1")


def plain(value: Any) -> Any:
    """What orjson cannot say as something it can."""
    if isinstance(value, torch.Tensor):
        return array_of(value) if value.dim() else value.item()
    if isinstance(value, (np.ndarray, np.generic)):
        # Arrays that are not contiguous, of no dimension, or of a type orjson does not know.
        return value.tolist()
    if isinstance(value, (tuple, set, frozenset, Sequence)) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    # orjson's own error names the type and comes on top of this one.
    raise TypeError(
        "numbers, text, lists, dicts, tensors and arrays become JSON; bytes need an encoding such as base64"
    )


def array_of(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The tensor's values on the CPU, in a type numpy knows."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    array: np.ndarray[Any, Any] = tensor.resolve_conj().resolve_neg().contiguous().cpu().numpy()
    return array


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")
    except ValueError:
        return "Error"


def _check_value(name: str, value: str) -> None:
    if any(character in value for character in "\r\n\0"):
        raise ValueError(f"{name} of a Response holds a line break or NUL")
