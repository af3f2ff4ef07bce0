"""What a handler returns becomes an answer: JSON unless it is bytes, text, a Response or an Error."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections import Counter, OrderedDict, namedtuple
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from nbserve.handler import Error, Response
from nbserve.wire import Result
from nbserve.worker.encode import encode_result, encode_rows

Point = namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Box:
    label: str
    corner: Any


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        ({"a": [1, 2.5, None, True]}, {"a": [1, 2.5, None, True]}),
        (float("nan"), None),
        ([float("inf"), 1.0], [None, 1.0]),
        (torch.tensor([1.5, 2.5]), [1.5, 2.5]),
        (torch.tensor(3), 3),
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (torch.tensor([[1.5]], dtype=torch.bfloat16), [[1.5]]),
        (torch.tensor([1.5], dtype=torch.float16), [1.5]),
        (torch.tensor([1.0], requires_grad=True), [1.0]),
        (torch.tensor([True, False]), [True, False]),
        (torch.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        (torch.eye(2).to_sparse(), [[1, 0], [0, 1]]),
        (np.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        (np.array(3.5), 3.5),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.float32(0.1), 0.1),
        (np.int8(-3), -3),
        (np.bool_(True), True),
        ({"label": np.int64(3), "scores": torch.tensor([0.5])}, {"label": 3, "scores": [0.5]}),
        ({3: "cat", 4.5: "dog"}, {"3": "cat", "4.5": "dog"}),
        ((1, torch.tensor(2)), [1, 2]),
        (Point(1, 2), [1, 2]),
        ([{"nested": (torch.tensor([1]),)}], [{"nested": [[1]]}]),
        ({1, 2}, [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (Counter(a=1), {"a": 1}),
        (range(3), [0, 1, 2]),
        (Box("cat", torch.tensor([1])), {"label": "cat", "corner": [1]}),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (Color.RED, "red"),
        (None, None),
    ],
    ids=repr,
)
def test_a_result_becomes_json(result: Any, wanted: Any) -> None:
    encoded = encode_result(result)
    assert (encoded.status, encoded.head) == (200, b"")
    assert orjson.loads(encoded.body) == wanted


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        ("é", Result(200, b"text/plain; charset=utf-8", "é".encode())),
        (np.str_("a"), Result(200, b"text/plain; charset=utf-8", b"a")),
        (b"\xff", Result(200, b"application/octet-stream", b"\xff")),
        (bytearray(b"a"), Result(200, b"application/octet-stream", b"a")),
        (memoryview(b"a"), Result(200, b"application/octet-stream", b"a")),
        (Response(b"\x89PNG", "image/png"), Result(200, b"image/png", b"\x89PNG")),
        (Response("[1]", "application/json", status=201), Result(201, b"", b"[1]")),
        (Response("é", "text/html"), Result(200, b"text/html", "é".encode())),
        (
            Response(b"", "text/plain", {"x-a": "1", "x-b": "two: 2"}, 202),
            Result(202, b"text/plain\0x-a:1\nx-b:two: 2", b""),
        ),
        (Error(404, "no cat"), Result(404, b"", b'{"code":404,"type":"NotFound","message":"no cat"}')),
        (Error(499, "gone"), Result(499, b"", b'{"code":499,"type":"Error","message":"gone"}')),
    ],
)
def test_other_results_keep_their_form(result: Any, wanted: Result) -> None:
    assert encode_result(result) == wanted


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (object(), "not JSON serializable: object"),
        ({"picture": b"\xff"}, "not JSON serializable: bytes"),
        (np.array([1 + 2j]), "complex"),
        (2**70, "64-bit"),
        (Error(200, "fine"), "400 to 599"),
        (Response(b"", status=700), "200 to 599"),
        (Response(b"", headers={"a": "1\r\nset-cookie: x"}), "line break"),
        (Response(b"", "text/plain\r\nx: y"), "line break"),
        (Response(b"", headers={"bad name": "1"}), "cannot set 'bad name'"),
        (Response(b"", headers={"Content-Length": "1"}), "cannot set 'Content-Length'"),
    ],
)
def test_what_cannot_be_an_answer_says_why(result: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        encode_result(result)


@pytest.mark.parametrize("make", [torch.tensor, np.array, list])
@pytest.mark.parametrize("values", [[1, 2], [0.5, 1.5], [[1.0, 2.0], [3.0, 4.0]], [[[1]], [[2]]], [True, False]])
def test_outputs_are_one_answer_for_each_row(make: Any, values: list[Any]) -> None:
    assert [orjson.loads(result.body) for result in encode_rows(make(values))] == values


def test_single_precision_is_written_as_short_as_it_is() -> None:
    outputs = torch.tensor([[0.1], [0.2]])
    assert [bytes(result.body) for result in encode_rows(outputs)] == [b"[0.1]", b"[0.2]"]
    assert [bytes(result.body) for result in encode_rows(outputs[:, 0])] == [b"0.1", b"0.2"]


def test_a_tensor_on_another_device_is_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    fetch = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: fetched.append(tensor) or fetch(tensor))
    assert len(encode_rows(torch.rand(16, 4))) == 16
    assert len(fetched) == 1
