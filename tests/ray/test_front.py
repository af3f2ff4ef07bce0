"""nbserve's routes in a replica, without Ray: what its proxies hand over is answered by the server's own code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from nbserve.ray.front import Front, Queue
from nbserve.server.ticket import Ticket
from nbserve.wire import Result

Run = Callable[[Ticket], Awaitable[Result]]


async def echo(ticket: Ticket) -> Result:
    return Result(200, b"", bytes(ticket.body))


async def hang(ticket: Ticket) -> Result:
    await asyncio.sleep(60)
    raise AssertionError("it was to be cancelled")


def queue_of(run: Run, answered: list[int] | None = None, size: int = 8, timeout_s: float = 5.0) -> Queue:
    queue = Queue("digits", "3f9c2a", run, (answered if answered is not None else []).append)
    queue.size, queue.timeout_s = size, timeout_s
    return queue


def ask(queue: Queue, path: str, body: bytes = b"[1]", method: str = "POST", prefix: str = "", **more: Any) -> Response:
    headers = {"host": "h", "content-type": "application/json", **more}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": prefix,
        "query_string": b"a=1",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return asyncio.run(Front(queue).answer(Request(scope, receive)))


def error_of(response: Response) -> tuple[int, str]:
    said = orjson.loads(response.body)
    assert said["code"] == response.status_code
    return response.status_code, said["type"]


def test_a_prediction_is_answered_and_counted() -> None:
    answered: list[int] = []
    response = ask(queue_of(echo, answered), "/predictions/digits", b"[1, 2]")
    assert (response.status_code, bytes(response.body)) == (200, b"[1, 2]")
    assert response.headers["content-type"] == "application/json"
    assert answered == [200]


def test_a_handler_sees_query_and_headers() -> None:
    metas: list[bytes] = []

    async def note(ticket: Ticket) -> Result:
        metas.append(ticket.meta)
        return Result(200, b"", b"1")

    ask(queue_of(note), "/predictions/digits", **{"x-user": "me", "content-length": "3"})
    assert metas == [b"a=1\0application/json\0host:h\nx-user:me"]


def test_the_prefix_of_an_application_is_not_part_of_the_route() -> None:
    assert ask(queue_of(echo), "/here/predictions/digits", prefix="/here").status_code == 200
    assert error_of(ask(queue_of(echo), "/predictions/digits/here", prefix="/here")) == (404, "NotFound")


def test_what_a_handler_sets_goes_into_the_answer_but_nothing_that_frames_it() -> None:
    async def respond(ticket: Ticket) -> Result:
        return Result(201, b"text/plain\0X-One:1\nContent-Length:99", b"done")

    response = ask(queue_of(respond), "/predictions/digits", **{"x-request-id": "mine"})
    assert (response.status_code, response.headers["x-one"], response.headers["content-type"]) == (
        201,
        "1",
        "text/plain",
    )
    assert response.headers.getlist("content-length") == ["4"]
    # Ray's proxy sets it.
    assert "x-request-id" not in response.headers


def test_errors_are_those_of_a_server() -> None:
    queue = queue_of(echo)
    assert error_of(ask(queue, "/predictions/other")) == (404, "NotFound")
    assert error_of(ask(queue, "/predictions/digits/0123")) == (404, "NotFound")
    assert ask(queue, "/predictions/digits/3f9c2a").status_code == 200
    assert error_of(ask(queue, "/predictions/digits", method="GET")) == (405, "MethodNotAllowed")
    assert error_of(ask(queue, "/nothing")) == (404, "NotFound")
    assert error_of(ask(queue, "/predictions/digits", **{"transfer-encoding": "br"})) == (501, "NotImplemented")


def test_a_handler_that_takes_too_long_is_not_waited_for() -> None:
    answered: list[int] = []
    assert error_of(ask(queue_of(hang, answered, timeout_s=0.01), "/predictions/digits")) == (504, "ResponseTimeout")
    assert answered == [504]


def test_more_rows_than_may_wait_are_refused() -> None:
    tensor = {"name": "x", "shape": [3, 1], "datatype": "FP32", "data": [1.0, 2.0, 3.0]}
    body = orjson.dumps({"inputs": [tensor]})
    assert ask(queue_of(echo, size=3), "/v2/models/digits/infer", body).status_code == 200
    refused = ask(queue_of(echo, size=2), "/v2/models/digits/infer", body)
    assert error_of(refused) == (503, "Overloaded")
    assert refused.headers["retry-after"] == "1"


def test_a_failure_outside_the_handler_says_nothing_of_itself(caplog: Any) -> None:
    async def fail(ticket: Ticket) -> Result:
        raise RuntimeError("a secret")

    response = ask(queue_of(fail), "/predictions/digits")
    assert error_of(response) == (500, "InternalError")
    assert b"secret" not in bytes(response.body)
    assert "a secret" in caplog.text


def test_who_left_is_not_waited_for() -> None:
    tickets: list[Ticket] = []

    async def note(ticket: Ticket) -> Result:
        tickets.append(ticket)
        await asyncio.sleep(60)
        raise AssertionError("it was to be cancelled")

    async def leave() -> None:
        scope = {"type": "http", "method": "POST", "path": "/predictions/digits", "headers": [(b"host", b"h")]}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"[1]", "more_body": False}

        asking = asyncio.create_task(Front(queue_of(note)).answer(Request(scope, receive)))
        while not tickets:
            await asyncio.sleep(0)
        assert not tickets[0].is_gone()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert tickets[0].is_gone()

    asyncio.run(leave())


def test_other_deployments_ask_without_http() -> None:
    async def ask_it() -> Any:
        return await queue_of(echo).ask(b"[7]", "application/json")

    reply = asyncio.run(ask_it())
    assert (reply.status, reply.body, reply.content_type) == (200, b"[7]", "application/json")
