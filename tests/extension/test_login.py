"""Nobody gets past Jupyter's login, nor past its XSRF check, on whatever route."""

from __future__ import annotations

import itertools
import json
import re
from urllib.parse import urlsplit

import pytest
import websocket

from nbserve_extension.handlers import ROUTES

from .conftest import JSON, TOKEN, Jupyter, Person

pytestmark = pytest.mark.process

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
CHANGING = METHODS[2:]
ECHO = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return requests
"""

# One address for each route, as its pattern says.
PATHS = {
    "api/endpoints": "nbserve/api/endpoints",
    "api/endpoints/([^/]+)": "nbserve/api/endpoints/h",
    "api/endpoints/([^/]+)(/(?:bundle|export|load|logs|predict|recorded|spans))": "nbserve/api/endpoints/h/logs",
    "api/endpoints/([^/]+)/profile": "nbserve/api/endpoints/h/profile",
    "api/endpoints/([^/]+)/stream": "nbserve/api/endpoints/h/stream",
    "api/servers/([^/]+)": "nbserve/api/servers/0123456789abcdef",
    "endpoints/([^/]+)(?:/.*)?": "nbserve/endpoints/h/v1",
    "static/panel.js": "nbserve/static/panel.js",
    "api/.*": "nbserve/api/something/else",
}


def test_every_route_is_tried_here():
    assert {pattern for pattern, _ in ROUTES} == set(PATHS)
    for pattern, path in PATHS.items():
        assert re.fullmatch(pattern, path.removeprefix("nbserve/"))


@pytest.mark.parametrize("path", PATHS.values())
@pytest.mark.parametrize("token", [None, "a-wrong-one"])
def test_without_the_login_every_method_is_refused(jupyter: Jupyter, path: str, token: str | None) -> None:
    for method in METHODS:
        answer = jupyter.ask(method, path, None if method in ("GET", "HEAD") else b"{}", JSON, token)
        assert (answer.status, answer.url) == (403, jupyter.url + path), method
        if method != "HEAD":
            assert json.loads(answer.body)["code"] == 403


def test_the_xsrf_token_alone_is_no_login(jupyter: Jupyter) -> None:
    person = Person(jupyter)
    xsrf = {"X-XSRFToken": person.xsrf, "Cookie": f"_xsrf={person.xsrf}"}
    for path, method in itertools.product(PATHS.values(), CHANGING):
        answer = jupyter.ask(method, path, b"{}", {**JSON, **xsrf}, token=None)
        assert (answer.status, json.loads(answer.body)["code"]) == (403, 403), (path, method)


def test_who_is_refused_is_told_what_to_do(jupyter: Jupyter) -> None:
    error = json.loads(jupyter.ask("GET", "nbserve/api/endpoints", token=None).body)
    assert error == {
        "code": 403,
        "type": "Forbidden",
        "message": "Jupyter does not know you: log in, or send the header 'Authorization: token TOKEN'",
    }


@pytest.mark.parametrize("path", PATHS.values())
def test_a_browser_changes_nothing_without_the_xsrf_token(jupyter: Jupyter, path: str) -> None:
    person = Person(jupyter)
    for method in CHANGING:
        for wrong in ({}, {"X-XSRFToken": "guessed"}):
            answer = person.ask(method, path, b"{}", {**JSON, **wrong})
            assert answer.status == 403, method
            assert "_xsrf" in json.loads(answer.body)["message"] or "XSRF" in json.loads(answer.body)["message"]
        # Refused by the method or the route, not by the login.
        assert person.ask(method, path, b"{}", {**JSON, "X-XSRFToken": person.xsrf}).status in (200, 400, 404, 405)


def test_a_browser_that_is_logged_in_reads_changes_and_predicts(jupyter: Jupyter, serve_cell) -> None:
    endpoint, person = serve_cell(ECHO), Person(jupyter)
    api, xsrf = f"nbserve/api/endpoints/{endpoint.name}", {"X-XSRFToken": person.xsrf}
    assert person.ask("GET", api).status == 200
    assert person.ask("PATCH", api, b'{"queue_size": 9}', {**JSON, **xsrf}).status == 200
    assert endpoint.settings["queue_size"] == 9
    assert person.ask("POST", f"nbserve/endpoints/{endpoint.name}", b"[1]", JSON).status == 403
    assert person.ask("POST", f"nbserve/endpoints/{endpoint.name}", b"[1]", {**JSON, **xsrf}).body == b"[1]"


def test_a_page_of_another_site_is_refused(jupyter: Jupyter, serve_cell) -> None:
    endpoint, person = serve_cell(ECHO), Person(jupyter)
    foreign, before = {"Origin": "http://evil.example", "X-XSRFToken": person.xsrf}, endpoint.stats()["requests"]
    for path in (f"nbserve/api/endpoints/{endpoint.name}", f"nbserve/endpoints/{endpoint.name}"):
        assert person.ask("POST", path, b"[1]", {**JSON, **foreign}).status in (403, 404)
    assert endpoint.stats()["requests"] == before


def handshake(jupyter: Jupyter, path: str, headers: dict[str, str], origin: str | None = None) -> int:
    """The status that the opening of a WebSocket is answered with."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    own = f"http://{urlsplit(jupyter.url).netloc}"
    try:
        socket = websocket.create_connection(
            jupyter.socket_url + path, header=lines, origin=origin or own, timeout=60, suppress_host=False
        )
    except websocket.WebSocketBadStatusException as error:
        return int(error.status_code)
    status = int(socket.getstatus())
    socket.close()
    return status


def test_a_stream_needs_the_login_and_a_page_of_jupyters(jupyter: Jupyter, serve_cell) -> None:
    path, person = f"nbserve/api/endpoints/{serve_cell(ECHO).name}/stream", Person(jupyter)
    cookies = {"Cookie": person.cookies}
    assert handshake(jupyter, path, {}) == 403
    assert handshake(jupyter, path, {"Authorization": "token a-wrong-one"}) == 403
    assert handshake(jupyter, f"{path}?token=a-wrong-one", {}) == 403
    assert handshake(jupyter, path, cookies, origin="http://evil.example") == 403
    assert handshake(jupyter, path, cookies) == 101
    assert handshake(jupyter, path, {"Authorization": f"token {TOKEN}"}) == 101
    assert handshake(jupyter, f"{path}?token={TOKEN}", {}) == 101


def test_a_preflight_lets_no_other_site_in(jupyter: Jupyter) -> None:
    for path in PATHS.values():
        answer = jupyter.ask("OPTIONS", path, headers={"Origin": "http://evil.example"}, token=None)
        assert answer.headers["Access-Control-Allow-Origin"] is None
        assert (answer.status, answer.body) == (200, b"") or answer.status == 405
