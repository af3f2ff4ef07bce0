"""The routes of the inference API, against endpoints that answer in the test."""

from __future__ import annotations

from typing import Any

import pytest

from nbserve.server.inference_api import InferenceApi
from tests.server.fakes import Caller, FakeEndpoint, FakeEndpoints


@pytest.fixture
def digits() -> FakeEndpoint:
    return FakeEndpoint("digits")


@pytest.fixture
def call(digits: FakeEndpoint) -> Caller:
    return Caller(digits, FakeEndpoint("crème brûlée"))


def test_a_prediction_becomes_a_ticket_and_its_result_the_answer(call: Caller, digits: FakeEndpoint) -> None:
    link = call(
        "POST", "/predictions/digits?a=1&b", b"[1]", "Content-Type: application/json", "X-User: me", "Accept: */*"
    )
    (ticket,) = digits.tickets
    assert ticket.meta == b"a=1&b\0application/json\0host:x\nx-user:me\naccept:*/*"
    assert (ticket.body, ticket.source, ticket.version, link.status) == (b"[1]", 7, None, 0)
    assert not ticket.is_gone()
    ticket.resolve(200, b"", memoryview(b"[2]"))
    assert (link.status, link.body, link.content_type, link.lines) == (200, b"[2]", b"application/json", b"")
    assert ticket.is_gone()


def test_each_ticket_has_a_number_of_its_own(call: Caller, digits: FakeEndpoint) -> None:
    for _ in range(3):
        call("POST", "/predictions/digits")
    assert len({ticket.request_id for ticket in digits.tickets}) == 3


def test_a_result_may_set_content_type_and_headers(call: Caller, digits: FakeEndpoint) -> None:
    link = call("POST", "/predictions/digits", b"", "X-Request-Id: 42")
    digits.tickets[0].resolve(200, b"image/png\0x-model:a b\ncontent-length:3\nConnection:close", b"png")
    assert link.content_type == b"image/png"
    assert link.lines == b"x-model: a b\r\nX-Request-Id: 42\r\n"


@pytest.mark.parametrize("head", [b"a\r\nb", b"a\0no header", b"a\0x:1\r\ny", b"a\0x y:1", b"\0x:1"])
def test_a_result_cannot_break_the_answer(call: Caller, digits: FakeEndpoint, head: bytes) -> None:
    link = call("POST", "/predictions/digits")
    digits.tickets[0].resolve(200, head, b"x")
    assert (link.status, link.json["type"]) == (500, "HandlerFailed")


def test_names_are_percent_decoded(call: Caller) -> None:
    call("POST", "/predictions/cr%C3%A8me%20br%C3%BBl%C3%A9e")
    assert len(call.endpoints.get("crème brûlée").tickets) == 1
    assert call("POST", "/predictions/%ff").status == 404


def test_a_version_is_part_of_the_path(call: Caller, digits: FakeEndpoint) -> None:
    call("POST", "/predictions/digits/v1")
    assert digits.tickets[0].version == "v1"
    assert call("POST", "/predictions/digits/v0").status == 404


def test_an_endpoint_that_went_away_is_not_found_by_a_head_that_is_known(call: Caller, digits: FakeEndpoint) -> None:
    assert call("POST", "/predictions/digits").status == 0
    call.endpoints._endpoints.clear()
    assert call("POST", "/predictions/digits").status == 404


@pytest.mark.parametrize(
    "path", ["/", "/predictions", "/predictions/", "/predictions/a/b/c", "/predictions/none", "/v3/models"]
)
def test_other_paths_are_not_found(call: Caller, path: str) -> None:
    link = call("POST", path)
    assert (link.status, link.json["type"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predictions/digits", b"Allow: POST, OPTIONS\r\n"),
        ("PUT", "/predictions/digits/v1", b"Allow: POST, OPTIONS\r\n"),
        ("POST", "/ping", b"Allow: GET, HEAD, OPTIONS\r\n"),
        ("GET", "/v2/models/digits/infer", b"Allow: POST, OPTIONS\r\n"),
    ],
)
def test_the_wrong_method_is_told_the_right_ones(call: Caller, method: str, path: str, allow: bytes) -> None:
    link = call(method, path)
    assert (link.status, link.lines, link.json["type"]) == (405, allow, "MethodNotAllowed")
    link = call("OPTIONS", path)
    assert (link.status, link.lines, link.body) == (204, allow, b"")


def test_the_request_id_comes_back_with_errors_too(call: Caller, digits: FakeEndpoint) -> None:
    digits.capacity = 0
    link = call("POST", "/predictions/digits", b"", "X-Request-Id: 42")
    assert (link.status, link.lines) == (503, b"Retry-After: 3\r\nX-Request-Id: 42\r\n")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping_is_healthy_only_while_every_endpoint_has_a_ready_worker(
    call: Caller, digits: FakeEndpoint, method: str
) -> None:
    assert (call(method, "/ping").status, call(method, "/ping").json) == (200, {"status": "Healthy"})
    digits.is_ready = False
    link = call(method, "/ping")
    assert (link.status, link.json["status"]) == (503, "Unhealthy")
    assert "digits" in link.json["reason"]
    assert "crème" not in link.json["reason"]


def test_ping_says_when_the_server_takes_no_requests(call: Caller) -> None:
    call.endpoints.takes_requests = False
    link = call("GET", "/ping")
    assert (link.status, link.json["reason"]) == (503, "the server takes no requests now")


def test_open_inference_health(call: Caller, digits: FakeEndpoint) -> None:
    assert call("GET", "/v2").json["name"] == "nbserve"
    assert call("GET", "/v2/health/live").json == {"live": True}
    assert (call("GET", "/v2/health/ready").status, call("GET", "/v2/health/ready").json) == (200, {"ready": True})
    digits.is_ready = False
    assert (call("GET", "/v2/health/ready").status, call("GET", "/v2/health/ready").json) == (503, {"ready": False})
    assert call("GET", "/v2/health/live").status == 200
    digits.is_given_up = True
    assert (call("GET", "/v2/health/live").status, call("GET", "/v2/health/live").json) == (503, {"live": False})
    assert call("GET", "/v2/models/digits/ready").status == 503
    assert call("GET", "/v2/models/digits/versions/v1/ready").json == {"name": "digits", "ready": False}


def test_open_inference_metadata(call: Caller) -> None:
    model = call("GET", "/v2/models/digits").json
    assert (model["name"], model["versions"]) == ("digits", ["v1"])
    assert call("GET", "/v2/models/digits/versions/v1").status == 200
    assert call("GET", "/v2/models/digits/versions/v0").status == 404
    assert call("GET", "/v2/models/none").status == 404


def tensor(data: Any, shape: list[int], name: str = "x", datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_the_rows_of_an_input_become_tickets(call: Caller, digits: FakeEndpoint, data: list[Any]) -> None:
    link = call.infer({"id": "42", "inputs": [tensor(data, [2, 3])]})
    assert [ticket.body for ticket in digits.tickets] == [b"[1,2,3]", b"[4,5,6]"]
    assert digits.tickets[0].meta.split(b"\0")[1] == b"application/json"
    digits.tickets[1].resolve(200, b"", b"[0.5,2]")
    assert link.status == 0
    digits.tickets[0].resolve(200, b"", b"[0.25,1]")
    assert link.status == 200
    assert link.json == {
        "model_name": "digits",
        "model_version": "v1",
        "id": "42",
        "outputs": [{"name": "output", "shape": [2, 2], "datatype": "FP64", "data": [0.25, 1, 0.5, 2]}],
    }


def test_rows_of_several_inputs_are_objects(call: Caller, digits: FakeEndpoint) -> None:
    call.infer({"inputs": [tensor(["a", "b"], [2], "text", "BYTES"), tensor([1, 2], [2, 1], "n", "INT64")]})
    assert [ticket.body for ticket in digits.tickets] == [b'{"text":"a","n":[1]}', b'{"text":"b","n":[2]}']


def test_objects_become_one_output_for_each_member(call: Caller, digits: FakeEndpoint) -> None:
    link = call.infer({"inputs": [tensor([1, 2], [2])], "outputs": [{"name": "label"}]})
    digits.resolve_all(lambda row: {"label": f"n{row}", "score": row / 4})
    assert link.json["outputs"] == [{"name": "label", "shape": [2], "datatype": "BYTES", "data": ["n1", "n2"]}]


@pytest.mark.parametrize(
    ("results", "output"),
    [
        ([1, 2], {"shape": [2], "datatype": "INT64", "data": [1, 2]}),
        ([1, 2.5], {"shape": [2], "datatype": "FP64", "data": [1, 2.5]}),
        ([True, False], {"shape": [2], "datatype": "BOOL", "data": [True, False]}),
        ([2**63, 1], {"shape": [2], "datatype": "UINT64", "data": [2**63, 1]}),
        ([[[1], [2]], [[3], [4]]], {"shape": [2, 2, 1], "datatype": "INT64", "data": [1, 2, 3, 4]}),
        ([[], []], {"shape": [2, 0], "datatype": "FP64", "data": []}),
        ([[1], [2, 3]], {"shape": [2], "datatype": "BYTES", "data": ["[1]", "[2,3]"]}),
        ([1, [2]], {"shape": [2], "datatype": "BYTES", "data": ["1", "[2]"]}),
        ([None, "a"], {"shape": [2], "datatype": "BYTES", "data": ["null", '"a"']}),
        ([{"a": 1}, {"b": 1}], {"shape": [2], "datatype": "BYTES", "data": ['{"a":1}', '{"b":1}']}),
    ],
)
def test_outputs_have_shape_and_datatype(call: Caller, digits: FakeEndpoint, results: Any, output: Any) -> None:
    link = call.infer({"inputs": [tensor([0, 1], [2])], "outputs": [{"name": "y"}]})
    digits.resolve_all(lambda row: results[row])
    assert link.json["outputs"] == [{"name": "y", **output}]


def test_an_error_of_one_row_is_the_answer_and_the_others_are_not_needed(call: Caller, digits: FakeEndpoint) -> None:
    link = call.infer({"inputs": [tensor([1, 2, 3], [3])]})
    digits.tickets[1].resolve(400, b"", b'{"code":400}')
    assert (link.status, link.json) == (400, {"code": 400})
    assert digits.tickets[0].is_gone()
    digits.tickets[0].resolve(200, b"", b"1")
    assert link.status == 400


def test_rows_that_do_not_fit_into_the_queue_fail_the_request(call: Caller, digits: FakeEndpoint) -> None:
    digits.capacity = 2
    link = call.infer({"inputs": [tensor([1, 2, 3], [3])]})
    assert link.status == 503
    assert all(ticket.is_gone() for ticket in digits.tickets)


def test_a_missing_output_and_an_answer_that_is_no_tensor_are_errors(call: Caller, digits: FakeEndpoint) -> None:
    asked = {"inputs": [tensor([1], [1])], "outputs": [{"name": "a"}, {"name": "b"}]}
    link = call.infer(asked)
    digits.resolve_all(lambda row: {"a": 1})
    assert (link.status, "'b'" in link.json["message"]) == (400, True)
    digits.tickets.clear()
    link = call.infer({"inputs": [tensor([1], [1])]})
    digits.resolve_all(lambda row: 1, head=b"image/png")
    assert (link.status, link.json["type"]) == (500, "HandlerFailed")
    digits.tickets.clear()
    link = call.infer({"inputs": [tensor([1], [1])]})
    digits.tickets[0].resolve(200, b"application/json", b"[" * 200 + b"{}" + b"]" * 200)
    assert link.status == 200
    digits.tickets.clear()
    link = call.infer({"inputs": [tensor([1], [1])]})
    digits.tickets[0].resolve(200, b"application/json", b"[1")
    assert link.status == 500


@pytest.mark.parametrize(
    "request_",
    [
        [],
        {},
        {"inputs": []},
        {"inputs": [1]},
        {"inputs": [tensor([1], [1])], "id": 5},
        {"inputs": [tensor([1], [2])]},
        {"inputs": [tensor([1], [])]},
        {"inputs": [tensor([1], [-1])]},
        {"inputs": [tensor([], [0])]},
        {"inputs": [tensor([1], [True])]},
        {"inputs": [tensor([1], [1] * 33)]},
        {"inputs": [tensor([1], [1], "")]},
        {"inputs": [tensor([1], [1], datatype="FLOAT")]},
        {"inputs": [tensor("1", [1])]},
        {"inputs": [tensor([[1, 2], [3]], [3])]},
        {"inputs": [tensor([[1, 2, 3], [4]], [2, 2])]},
        {"inputs": [tensor([1, [2]], [2])]},
        {"inputs": [tensor([{}], [1])]},
        {"inputs": [tensor([1], [1], "a"), tensor([1], [1], "a")]},
        {"inputs": [tensor([1], [1], "a"), tensor([1, 2], [2], "b")]},
        {"inputs": [tensor([1], [1], parameters=5)]},
        {"inputs": [tensor([1], [1], parameters={"binary_data_size": 4})]},
        {"inputs": [tensor([1], [1])], "parameters": {"binary_data_output": True}},
        {"inputs": [tensor([1], [1])], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
    ],
)
def test_what_is_no_inference_request_is_refused(call: Caller, digits: FakeEndpoint, request_: Any) -> None:
    link = call.infer(request_)
    assert (link.status, link.json["type"]) == (400, "BadRequest")
    assert digits.tickets == []


def test_binary_tensors_are_refused_with_the_way_out(call: Caller) -> None:
    link = call("POST", "/v2/models/digits/infer", b"{}1234", "Inference-Header-Content-Length: 2")
    assert (link.status, "JSON" in link.json["message"]) == (400, True)
    assert call("POST", "/v2/models/digits/infer", b"{").status == 400


def test_an_inference_may_name_the_version(call: Caller, digits: FakeEndpoint) -> None:
    request = {"inputs": [tensor([1], [1])]}
    assert call.infer(request, "/v2/models/digits/versions/v0/infer").status == 404
    call.infer(request, "/v2/models/digits/versions/v1/infer")
    assert len(digits.tickets) == 1


def test_endpoints_hear_of_connections_that_were_closed() -> None:
    digits, words = FakeEndpoint("digits"), FakeEndpoint("words")
    InferenceApi(FakeEndpoints(digits, words)).left(7)
    assert digits.gone == words.gone == [7]


def test_a_client_cannot_mark_a_request_for_a_debugger(call: Caller, digits: FakeEndpoint) -> None:
    call("POST", "/predictions/digits", b"1", "X-Nbserve-Debug: T1", "X-Other: kept")
    assert digits.tickets[0].meta == b"\0\0host:x\nx-other:kept"
