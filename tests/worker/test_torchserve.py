"""A class written for TorchServe: its rows, its context, its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from nbserve import wire
from nbserve.worker.metrics import UserMetrics
from nbserve.worker.runner import Outcome
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.torchserve import decode_torchserve_row, runner_of_torchserve

SPEC = WorkerSpec("/bundle", "digits", "7", id_prefix="ab", device="cuda:1", max_batch_size=4)
FORM = b"\0application/x-www-form-urlencoded\0"


class Legacy:
    """Calls the given function with what TorchServe would pass."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    def initialize(self, context: Any) -> None:
        self.seen = context

    def handle(self, data: Any, context: Any) -> Any:
        assert context is self.seen
        return self.function(data, context)


def run(function: Callable[[Any, Any], Any], *metas: bytes, metrics: UserMetrics | None = None) -> Outcome:
    runner = runner_of_torchserve(Legacy(function), SPEC, metrics or UserMetrics())
    rows = [wire.Row(index, meta, memoryview(b"[1]")) for index, meta in enumerate(metas or [b"\0application/json\0"])]
    return runner.run(wire.Batch(1, rows))


@pytest.mark.parametrize(
    ("meta", "body", "wanted"),
    [
        (b"\0application/json\0", b'{"a": 1}', {"body": {"a": 1}}),
        (b"\0image/png\0", b"\xff", {"body": bytearray(b"\xff")}),
        (b"\0\0", b"[1]", {"body": bytearray(b"[1]")}),
        (b"\0text/plain\0", b"hello", {"body": "hello"}),
        (b"top=3\0application/json\0", b"[1]", {"top": bytearray(b"3"), "body": [1]}),
        (FORM, b"data=hello&x=1&x=2", {"data": bytearray(b"hello"), "x": [bytearray(b"1"), bytearray(b"2")]}),
        (FORM, b'{"a": "b"}', {"body": {"a": "b"}}),
        (FORM, b"[1]", {"body": [1]}),
        (
            b"\0multipart/form-data; boundary=cut\0",
            b'--cut\r\nContent-Disposition: form-data; name="data"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
            b'\xff\r\n--cut\r\nContent-Disposition: form-data; name="config"\r\nContent-Type: application/json\r\n\r\n'
            b'{"k": 1}\r\n--cut\r\nContent-Disposition: form-data; name="label"\r\n\r\ncat\r\n--cut--\r\n',
            {"data": bytearray(b"\xff"), "config": {"k": 1}, "label": bytearray(b"cat")},
        ),
    ],
)
def test_a_row_is_what_torchserve_would_give(meta: bytes, body: bytes, wanted: Any) -> None:
    row = decode_torchserve_row(meta, memoryview(body))
    assert row == wanted
    assert {name: type(value) for name, value in row.items()} == {name: type(value) for name, value in wanted.items()}


def test_the_context_answers_to_torchserves_names() -> None:
    def look(data: Any, context: Any) -> Any:
        return [
            [
                context.model_name,
                context.manifest["model"]["modelVersion"],
                context.system_properties["gpu_id"],
                context.system_properties.get("batch_size"),
                context.request_ids[0],
                context.get_request_id(0),
                context.get_request_header(0, "X-Trace"),
                context.get_all_request_header(0)["x-trace"],
            ]
        ]

    [result] = run(look, b"\0application/json\0x-trace:5").results
    assert orjson.loads(result.body) == ["digits", "7", 1, 4, "ab-0", "ab-0", "5", "5"]


def test_answers_can_be_changed_through_the_context() -> None:
    def answer(data: Any, context: Any) -> Any:
        context.set_response_content_type(0, "text/csv")
        context.set_response_header(0, "X-One", "1")
        context.set_response_status(code=201, idx=0)
        assert context.get_response_content_type(0) == "text/csv"
        assert context.get_response_headers(1) == {}
        return ["a,b", {"plain": 1}]

    changed, plain = run(answer, b"\0application/json\0", b"\0application/json\0").results
    assert changed == wire.Result(201, b"text/csv\0x-one:1", b"a,b")
    assert plain == wire.Result(200, b"", b'{"plain":1}')


def test_what_one_batch_set_is_forgotten_in_the_next() -> None:
    statuses = iter([404, None])

    def answer(data: Any, context: Any) -> Any:
        if code := next(statuses):
            context.set_all_response_status(code)
        return ["x"]

    runner = runner_of_torchserve(Legacy(answer), SPEC, UserMetrics())
    batch = wire.Batch(1, [wire.Row(0, b"\0\0", memoryview(b""))])
    assert [runner.run(batch).results[0].status for _ in range(2)] == [404, 200]


def test_metric_calls_become_metrics() -> None:
    def count(data: Any, context: Any) -> Any:
        context.metrics.add_counter("Rows", 2, idx=0)
        context.metrics.add_error("oops", value="why")
        context.metrics.add_time("Stage One", 3.0)
        context.metrics.add_size("image", 1.5, unit="kB")
        context.metrics.add_percent("load", 40)
        context.metrics.counter("own").inc()
        return data

    metrics = UserMetrics()
    assert run(count, metrics=metrics).results[0].status == 200
    changes: Any = metrics.take_changes()
    assert {name: value["delta"] for name, value in changes["counters"].items()} == {"Rows": 2, "oops": 1, "own": 1}
    assert {name: value["value"] for name, value in changes["gauges"].items()} == {"image_kB": 1.5, "load_percent": 40}
    assert changes["histograms"]["Stage_One_ms"]["sum"] == 3.0


def test_a_class_with_neither_contract_is_refused() -> None:
    with pytest.raises(TypeError, match=r"object is no nbserve\.Handler and has no handle"):
        runner_of_torchserve(object(), SPEC, UserMetrics())


def test_initialize_may_be_missing() -> None:
    class Bare:
        def handle(self, data: Any, context: Any) -> Any:
            return data

    assert runner_of_torchserve(Bare(), SPEC, UserMetrics())
