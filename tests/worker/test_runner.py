"""Batches through a handler: one answer for each row, and a row that fails fails alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from nbserve import wire
from nbserve.errors import BadRequest, Unavailable
from nbserve.handler import Error, Handler, Response
from nbserve.worker.runner import Outcome

Run = Callable[..., Outcome]


class Staged(Handler):
    """Doubles numbers in three stages, and fails as it is told to."""

    def preprocess(self, requests: list[Any]) -> Any:
        self.calls = [*getattr(self, "calls", []), len(requests)]
        if "zero" in requests:
            raise BadRequest("zero is no number")
        return torch.tensor(requests)

    def inference(self, batch: Any) -> Any:
        if (batch < 0).any():
            raise ValueError(f"negative: {batch.min().item()}")
        return batch * 2

    def postprocess(self, outputs: Any) -> Any:
        return outputs.tolist()


class Whole(Handler):
    """Calls the given function with the whole batch."""

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        self.function = function

    def handle(self, requests: list[Any], context: Any) -> Any:
        return self.function(requests)


def answers(outcome: Outcome) -> list[tuple[int, Any]]:
    return [(result.status, orjson.loads(result.body)) for result in outcome.results]


def values(outcome: Outcome) -> list[Any]:
    assert all(result.status == 200 for result in outcome.results)
    return [body for _, body in answers(outcome)]


def numbers(*items: Any) -> list[bytes]:
    return [orjson.dumps(item) for item in items]


def test_a_batch_runs_once_and_each_row_gets_its_result(run: Run) -> None:
    handler = Staged()
    assert values(run(handler, *numbers(1, 2, 3))) == [2, 4, 6]
    assert handler.calls == [3]


def test_the_defaults_serve_a_handler_that_has_only_a_model(run: Run) -> None:
    handler = Handler()
    handler.model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(handler.model.weight)
    assert values(run(handler, *numbers([1, 2], [3.5, 4]))) == [[3.0], [7.5]]


def test_the_default_preprocess_refuses_what_is_no_array_of_numbers(run: Run) -> None:
    handler = Handler()
    handler.model = torch.nn.Identity()
    outcome = run(handler, *numbers([1.5, 2], "text", [3], {"a": 1}, None))
    assert [result.status for result in outcome.results] == [200, 400, 200, 400, 400]
    assert outcome.events == []


def test_stamps_are_in_order_and_mark_each_stage(run: Run) -> None:
    stamps = run(Staged(), *numbers(1)).stamps
    assert list(stamps) == sorted(stamps)
    assert 0 < stamps.taken_ns < stamps.preprocessed_ns < stamps.inferred_ns < stamps.postprocessed_ns


def test_a_handle_of_ones_own_is_one_stage(run: Run) -> None:
    stamps = run(Whole(lambda rows: rows), *numbers(1)).stamps
    assert list(stamps) == sorted(stamps)
    assert stamps.postprocessed_ns == stamps.inferred_ns > stamps.preprocessed_ns


def test_stamps_are_in_order_when_a_batch_fails(run: Run) -> None:
    stamps = run(Staged(), *numbers(1, -1)).stamps
    assert list(stamps) == sorted(stamps)
    assert stamps.taken_ns > 0


def test_one_bad_row_fails_alone(run: Run) -> None:
    outcome = run(Staged(), *numbers(1, -2, 3))
    assert answers(outcome) == [
        (200, 2),
        (
            500,
            {
                "code": 500,
                "type": "HandlerFailed",
                "message": "the handler failed; the log has the traceback under id ab-11",
            },
        ),
        (200, 6),
    ]
    [event] = outcome.events
    assert event["event"] == "handler_error"
    assert (event["request_id"], event["request_ids"]) == (17, [17])
    assert event["error"] == "ValueError: negative: -2"
    assert 'raise ValueError(f"negative: {batch.min().item()}")' in event["traceback"]


def test_without_isolation_a_batch_fails_as_a_whole(run: Run) -> None:
    handler = Staged()
    outcome = run(handler, *numbers(1, -2, 3), isolate_errors=False)
    assert [result.status for result in outcome.results] == [500, 500, 500]
    assert handler.calls == [3]
    assert [event["request_ids"] for event in outcome.events] == [[16, 17, 18]]


def test_a_client_mistake_is_told_to_that_client_and_not_logged(run: Run) -> None:
    outcome = run(Staged(), *numbers(1, "zero", 3))
    assert answers(outcome)[1] == (400, {"code": 400, "type": "BadRequest", "message": "zero is no number"})
    assert [result.status for result in outcome.results] == [200, 400, 200]
    assert outcome.events == []


def test_an_error_of_the_tree_keeps_its_status_and_is_logged_from_500_on(run: Run) -> None:
    def fail(rows: list[Any]) -> Any:
        raise Unavailable("the index is being built")

    outcome = run(Whole(fail), *numbers(1))
    assert answers(outcome)[0][1]["message"] == "the index is being built"
    assert outcome.results[0].status == 503
    assert len(outcome.events) == 1


def test_a_row_that_cannot_be_decoded_never_reaches_the_handler(run: Run) -> None:
    seen: list[Any] = []
    outcome = run(Whole(lambda rows: seen.extend(rows) or rows), b"1", b"{", b"3", b"")
    assert [result.status for result in outcome.results] == [200, 400, 200, 400]
    assert [body for status, body in answers(outcome) if status == 200] == [1, 3]
    assert seen == [1, 3]


def test_when_no_row_can_be_decoded_the_handler_does_not_run(run: Run) -> None:
    outcome = run(Whole(lambda rows: pytest.fail("called")), b"{", b"}")
    assert [result.status for result in outcome.results] == [400, 400]
    assert list(outcome.stamps) == sorted(outcome.stamps)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError, RecursionError, StopIteration])
def test_no_exception_ends_the_worker(run: Run, kind: type[BaseException]) -> None:
    def fail(rows: list[Any]) -> Any:
        if 2 in rows:
            raise kind
        return rows

    outcome = run(Whole(fail), *numbers(1, 2))
    assert [result.status for result in outcome.results] == [200, 500]
    assert outcome.events[0]["error"].startswith(kind.__name__)


def test_sys_exit_in_a_handler_fails_its_row(run: Run) -> None:
    outcome = run(Whole(lambda rows: sys.exit("stop")), *numbers(1))
    assert outcome.results[0].status == 500


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ([1, 2, 3], "handle returned 3 results for 2 requests"),
        ([1], "handle returned 1 result for 2 requests"),
        (torch.zeros(3, 2), "handle returned 3 results for 2 requests"),
        (torch.tensor(1.0), "handle returned one number for 2 requests"),
        (np.array(1.0), "handle returned one number for 2 requests"),
        (None, "handle returned None: it must return a list"),
        ({"a": 1}, "handle returned a dict: it must return a list"),
        ("ab", "handle returned a str: it must return a list"),
        ((row for row in "ab"), "handle returned a generator (answers in parts are not supported)"),
    ],
)
def test_results_that_do_not_fit_the_requests_say_so(run: Run, returned: Any, text: str) -> None:
    outcome = run(Whole(lambda rows: returned), b"1", b"2", isolate_errors=False)
    assert [result.status for result in outcome.results] == [500, 500]
    assert text in outcome.events[0]["error"]


def test_an_async_handler_is_refused_by_name(run: Run) -> None:
    class Async(Handler):
        async def handle(self, requests: list[Any], context: Any) -> Any:  # type: ignore[override]
            return requests

    outcome = run(Async(), b"1")
    assert "handle returned a coroutine (async methods are not supported)" in outcome.events[0]["error"]


def test_postprocess_is_named_when_it_returned_too_few(run: Run) -> None:
    class Short(Staged):
        def postprocess(self, outputs: Any) -> Any:
            return outputs.tolist()[:-1]

    outcome = run(Short(), *numbers(1, 2, 3, 4), isolate_errors=False)
    assert "postprocess returned 3 results for 4 requests" in outcome.events[0]["error"]


def test_a_result_that_cannot_be_encoded_fails_only_its_row(run: Run) -> None:
    outcome = run(Whole(lambda rows: [1, object(), Response(b"x"), Error(418, "tea")]), *numbers(1, 2, 3, 4))
    assert [result.status for result in outcome.results] == [200, 500, 200, 418]
    assert outcome.events[0]["request_ids"] == [17]


def test_equal_tracebacks_are_logged_once_with_every_id(run: Run) -> None:
    def fail(rows: list[Any]) -> Any:
        raise ValueError("always")

    outcome = run(Whole(fail), *numbers(1, 2, 3))
    assert [event["request_ids"] for event in outcome.events] == [[16, 17, 18]]
    assert [answer["message"][-5:] for _, answer in answers(outcome)] == ["ab-10", "ab-11", "ab-12"]


def test_a_batch_that_fails_while_its_rows_do_not_is_logged(run: Run) -> None:
    def alone_only(rows: list[Any]) -> Any:
        if len(rows) > 1:
            raise ValueError("cannot stack")
        return rows

    outcome = run(Whole(alone_only), *numbers(1, 2))
    assert values(outcome) == [1, 2]
    [event] = outcome.events
    assert event["error"] == "ValueError: cannot stack (the batch failed, its rows did not when run alone)"


def test_a_failed_attempt_cannot_spoil_the_bodies_of_the_next(run: Run) -> None:
    def pops(rows: list[Any]) -> Any:
        found = [row.pop("a") for row in rows]
        return [1 / value for value in found]

    outcome = run(Whole(pops), *numbers({"a": 1}, {"a": 0}))
    assert [result.status for result in outcome.results] == [200, 500]


def test_the_context_shows_the_requests_of_the_rows_that_run(run: Run, context: Any) -> None:
    seen: list[list[str]] = []

    def look(rows: list[Any]) -> Any:
        seen.append([request.id for request in context.requests])
        if len(rows) > 1:
            raise ValueError
        return rows

    run(Whole(look), b"1", b"{", b"3")
    assert seen == [["ab-10", "ab-12"], ["ab-10"], ["ab-12"]]


def test_autograd_is_as_the_handler_leaves_it(run: Run) -> None:
    class Own(Handler):
        def inference(self, batch: Any) -> Any:
            self.was_on = torch.is_grad_enabled()
            return batch

    class Default(Handler):
        def initialize(self, context: Any) -> None:
            self.model = self.note

        def note(self, batch: Any) -> Any:
            self.was_on = not torch.is_inference_mode_enabled()
            return batch

    own, default = Own(), Default()
    default.initialize(None)
    run(own, b"[1.0]")
    run(default, b"[1.0]")
    assert (own.was_on, default.was_on) == (True, False)


def test_results_hold_what_the_frame_needs(run: Run) -> None:
    outcome = run(Staged(), *numbers(1, 2))
    frame = b"".join(wire.encode_results(1, outcome.stamps, outcome.results))
    decoded = wire.decode_results(2, memoryview(frame)[wire.HEADER_BYTES :])
    assert [bytes(row.body) for row in decoded.rows] == [b"2", b"4"]
