"""How SageMaker, Vertex AI and KServe ask, against endpoints that answer in the test."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from nbserve.environment import PlatformRoutes
from tests.server.fakes import Caller, FakeEndpoint

PREDICT = "/v1/endpoints/7/deployedModels/8:predict"
HEALTH = "/v1/endpoints/7/deployedModels/8"


@pytest.fixture
def digits() -> FakeEndpoint:
    return FakeEndpoint("digits")


@pytest.fixture
def call(digits: FakeEndpoint) -> Caller:
    return Caller(digits, platform=PlatformRoutes(HEALTH, PREDICT))


def ask(call: Caller, body: Any, path: str = "/v1/models/digits:predict", *lines: str) -> Any:
    return call("POST", path, orjson.dumps(body), *lines)


def test_an_invocation_goes_to_the_only_endpoint_as_it_came(call: Caller, digits: FakeEndpoint) -> None:
    attributes = "X-Amzn-SageMaker-Custom-Attributes: trace=1,user=me"
    link = call("POST", "/invocations?a=1", b"1,2", "Content-Type: text/csv", attributes, "X-Request-Id: 42")
    (ticket,) = digits.tickets
    query, content_type, lines = ticket.meta.split(b"\0", 2)
    assert (ticket.body, query, content_type) == (b"1,2", b"a=1", b"text/csv")
    assert b"x-amzn-sagemaker-custom-attributes:trace=1,user=me" in lines.split(b"\n")
    ticket.resolve(200, b"text/csv\0x-amzn-sagemaker-custom-attributes:seen", b"3")
    assert (link.status, link.body, link.content_type) == (200, b"3", b"text/csv")
    assert link.lines == b"x-amzn-sagemaker-custom-attributes: seen\r\nX-Request-Id: 42\r\n"


@pytest.mark.parametrize("path", ["/invocations", PREDICT])
def test_a_path_without_a_name_needs_one_endpoint(path: str) -> None:
    both = Caller(FakeEndpoint("digits"), FakeEndpoint("words"), platform=PlatformRoutes("", PREDICT))
    link = ask(both, {"instances": [1]}, path)
    assert link.status == 400
    assert "digits, words; ask /predictions/ENDPOINT" in link.json["message"]
    none = Caller(platform=PlatformRoutes("", PREDICT))
    assert "there is none yet" in ask(none, {"instances": [1]}, path).json["message"]


@pytest.mark.parametrize("path", ["/invocations", PREDICT, "/predictions/digits", "/v1/models/digits:predict"])
def test_who_asks_a_server_that_is_starting_may_try_again(path: str) -> None:
    starting = Caller(platform=PlatformRoutes(HEALTH, PREDICT))
    starting.endpoints.are_awaited = True
    link = ask(starting, {"instances": [1]}, path)
    assert (link.status, link.json["message"]) == (503, "the server is starting")
    for health in ("/ping", HEALTH):
        assert (starting("GET", health).status, starting("GET", health).json["reason"]) == (
            503,
            "the server is starting",
        )


def test_vertex_asks_at_its_own_paths(call: Caller, digits: FakeEndpoint) -> None:
    assert call("GET", HEALTH).json == {"status": "Healthy"}
    digits.is_ready = False
    assert call("GET", HEALTH).status == 503
    link = ask(call, {"instances": [1, 2]}, PREDICT)
    digits.resolve_all(lambda row: row * 2)
    assert link.json == {"predictions": [2, 4]}


def test_a_platforms_path_comes_before_our_own() -> None:
    digits = FakeEndpoint("digits")
    call = Caller(digits, platform=PlatformRoutes("/ping", "/predictions/digits"))
    link = ask(call, {"instances": [5]}, "/predictions/digits")
    digits.resolve_all(lambda row: row)
    assert link.json == {"predictions": [5]}
    assert call("GET", "/ping").status == 200
    assert call("POST", "/predictionsXdigits").status == 404


def test_instances_become_tickets_and_predictions_come_in_their_order(call: Caller, digits: FakeEndpoint) -> None:
    link = ask(
        call, {"instances": [[1, 2], {"x": "crème"}, "text", None]}, "/v1/models/digits:predict?q=1", "X-User: me"
    )
    assert [orjson.loads(ticket.body) for ticket in digits.tickets] == [[1, 2], {"x": "crème"}, "text", None]
    assert digits.tickets[0].meta == b"q=1\0application/json\0host:x\nx-user:me"
    for number in (3, 1, 0, 2):
        assert link.status == 0
        digits.tickets[number].resolve(200, b"", b"%d" % number)
    assert (link.status, link.json) == (200, {"predictions": [0, 1, 2, 3]})
    assert all(ticket.is_gone() for ticket in digits.tickets)


def test_bytes_travel_as_base64_both_ways(call: Caller, digits: FakeEndpoint) -> None:
    link = ask(call, {"instances": [{"b64": "AAH/"}, {"b64": "AA==", "more": 1}, "AA=="]})
    bodies = [(ticket.body, ticket.meta.split(b"\0")[1]) for ticket in digits.tickets]
    assert bodies[0] == (b"\x00\x01\xff", b"application/octet-stream")
    assert bodies[1] == (b'{"b64":"AA==","more":1}', b"application/json")
    digits.tickets[0].resolve(200, b"image/png", memoryview(b"\x89"))
    digits.tickets[1].resolve(200, b"text/plain; charset=utf-8\0x:1", "crème".encode())
    digits.tickets[2].resolve(200, b"application/json; charset=utf-8", b"[1]")
    assert link.json == {"predictions": [{"b64": "iQ=="}, "crème", [1]]}


def test_parameters_are_a_header_that_only_they_can_set(call: Caller, digits: FakeEndpoint) -> None:
    ask(call, {"instances": [1], "parameters": {"é": 0.5}}, PREDICT, "X-Nbserve-Parameters: forged")
    assert digits.tickets[0].meta.endswith(b'host:x\nx-nbserve-parameters:{"\\u00e9": 0.5}')
    ask(call, {"instances": [1]}, PREDICT, "X-Nbserve-Parameters: forged")
    assert b"forged" not in digits.tickets[1].meta


def test_the_error_of_an_instance_is_the_answer_and_says_which_it_was(call: Caller, digits: FakeEndpoint) -> None:
    link = ask(call, {"instances": [1, 2, 3]})
    digits.tickets[0].resolve(200, b"", b"1")
    digits.tickets[1].resolve(422, b"", b'{"code":422,"type":"BadRequest","message":"too long"}')
    assert (link.status, link.json) == (
        422,
        {"code": 422, "type": "BadRequest", "message": "instance 1: too long", "instance": 1},
    )
    assert digits.tickets[2].is_gone()
    digits.tickets[2].resolve(200, b"", b"3")
    assert link.status == 422


@pytest.mark.parametrize(
    ("head", "body", "message"),
    [
        (b"text/plain", b"no", "instance 0: no"),
        (b"image/png", b"\x89", "instance 0: status 500"),
        (b"application/json", b"[1", "instance 0: status 500"),
        (b"", b"[1]", "instance 0: status 500"),
    ],
)
def test_an_error_in_any_form_is_told_in_the_same(
    call: Caller, digits: FakeEndpoint, head: bytes, body: bytes, message: str
) -> None:
    link = ask(call, {"instances": [1]})
    digits.tickets[0].resolve(500, head, body)
    assert (link.status, link.content_type) == (500, b"application/json")
    assert link.json == {"code": 500, "type": "HandlerFailed", "message": message, "instance": 0}


def test_no_instances_are_no_predictions(call: Caller, digits: FakeEndpoint) -> None:
    link = ask(call, {"instances": []})
    assert (link.status, link.json, digits.tickets) == (200, {"predictions": []}, [])


def test_instances_that_do_not_fit_into_the_queue_fail_the_request(call: Caller, digits: FakeEndpoint) -> None:
    digits.capacity = 2
    link = ask(call, {"instances": [1, 2, 3]})
    assert (link.status, link.lines) == (503, b"Retry-After: 3\r\n")
    assert all(ticket.is_gone() for ticket in digits.tickets)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"inputs": [1]}', b'{"instances": 1}', b'{"instances": [{"b64": "a"}]}']
)
def test_what_has_no_instances_is_refused(call: Caller, digits: FakeEndpoint, body: bytes) -> None:
    link = call("POST", "/v1/models/digits:predict", body)
    assert (link.status, link.json["type"], digits.tickets) == (400, "BadRequest", [])


def test_an_answer_that_is_not_what_it_says_fails(call: Caller, digits: FakeEndpoint) -> None:
    link = ask(call, {"instances": [1]})
    digits.tickets[0].resolve(200, b"application/json", b"[1")
    assert (link.status, link.json["type"]) == (500, "HandlerFailed")


def test_models_are_listed_and_asked_for_their_state(call: Caller, digits: FakeEndpoint) -> None:
    for path in ("/v1/models", "/v2/models", "/v2/models/"):
        assert call("GET", path).json == {"models": ["digits"]}
    listed = {"name": "digits", "version": "v1", "state": "READY", "reason": ""}
    assert call("POST", "/v2/repository/index", b"{}").json == [listed]
    assert call("GET", "/v1/models/digits").json == {"name": "digits", "ready": True}
    digits.is_ready = False
    assert call("POST", "/v2/repository/index").json == [{**listed, "state": "UNAVAILABLE"}]
    assert (call("GET", "/v1/models/digits").status, call("GET", "/v1/models/none").status) == (503, 404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/invocations", b"Allow: POST, OPTIONS\r\n"),
        ("GET", "/v1/models/digits:predict", b"Allow: POST, OPTIONS\r\n"),
        ("POST", "/v1/models/digits", b"Allow: GET, HEAD, OPTIONS\r\n"),
        ("POST", HEALTH, b"Allow: GET, HEAD, OPTIONS\r\n"),
    ],
)
def test_the_wrong_method_is_told_the_right_ones(call: Caller, method: str, path: str, allow: bytes) -> None:
    link = call(method, path)
    assert (link.status, link.lines) == (405, allow)
