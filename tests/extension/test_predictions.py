"""Predictions through Jupyter's server: the same request to the inference API, and its answer, but for the login."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from nbserve.deployment import Server
from nbserve.runfile import RunFile

from .conftest import JSON, TOKEN, Jupyter, Person

pytestmark = pytest.mark.process

ECHO = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return requests
"""
# Says what it got.
HEARS = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return [{"headers": dict(r.headers), "query": dict(r.query), "type": r.content_type} for r in context.requests]
"""
ANSWERS = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return [self.answer(text) for text in requests]
    def answer(self, text):
        if text == "bad":
            raise nbserve.BadRequest("no such thing")
        if text == "gone":
            return nbserve.Error(410, "it is gone")
        if text == "boom":
            raise RuntimeError("a secret of the traceback")
        headers = {"X-Mine": "yes", "Set-Cookie": "_xsrf=stolen", "Content-Security-Policy": "default-src *",
                   "Access-Control-Allow-Origin": "*"}
        return nbserve.Response(b"<b>made</b>", "text/html; charset=utf-8", headers, status=201)
"""
TEXT = {"Content-Type": "text/plain"}


@dataclass(frozen=True)
class Gate:
    """Holds a handler's batches until it is opened, and knows what was handled."""

    folder: Path

    @property
    def cell(self) -> str:
        return f"""
import os, time
class H(nbserve.Handler):
    def handle(self, requests, context):
        while not os.path.exists({str(self.folder / "open")!r}):
            time.sleep(0.01)
        with open({str(self.folder / "handled")!r}, "a") as file:
            file.write(str(requests))
        return requests
"""

    def open(self) -> None:
        (self.folder / "open").touch()

    @property
    def handled(self) -> str:
        return (self.folder / "handled").read_text()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_bodies_go_and_come_byte_for_byte(jupyter: Jupyter, serve_cell) -> None:
    path = f"nbserve/endpoints/{serve_cell(ECHO).name}"
    answer = jupyter.ask("POST", path, b'[ 1, {"a": "\xc3\xbc"} ]', JSON)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.body == '[1,{"a":"ü"}]'.encode()
    data = os.urandom(1_000_000)
    answer = jupyter.ask("POST", path, data, {"Content-Type": "application/octet-stream"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/octet-stream")
    assert answer.body == data
    assert jupyter.ask("POST", path, b"", TEXT).body == b""


def test_a_further_path_is_a_version(jupyter: Jupyter, serve_cell) -> None:
    endpoint = serve_cell(ECHO)
    path = f"nbserve/endpoints/{endpoint.name}"
    assert jupyter.ask("POST", f"{path}/{endpoint.version}", b"[1]", JSON).body == b"[1]"
    for wrong in ("/no-such-version", f"/{endpoint.version}/x", "/"):
        answer = jupyter.ask("POST", path + wrong, b"[1]", JSON)
        assert (answer.status, json.loads(answer.body)["type"]) == (404, "NotFound")


def test_headers_and_query_go_along_but_the_login_does_not(jupyter: Jupyter, serve_cell) -> None:
    path = f"nbserve/endpoints/{serve_cell(HEARS).name}"
    sent = {
        "Content-Type": "text/csv; x=1",
        "X-Request-Id": "mine-7",
        "X-Customer": "ann",
        "Referer": "http://j/?token=x",
    }
    person = Person(jupyter)
    by_cookie = person.ask("POST", f"{path}?a=1&b=%20&_xsrf={person.xsrf}", b"x", {**sent, "X-XSRFToken": person.xsrf})
    by_header = jupyter.ask("POST", f"{path}?a=1&b=%20", b"x", {**sent, "Cookie": "a=b"})
    by_query = jupyter.ask("POST", f"{path}?a=1&token={TOKEN}&b=%20", b"x", sent, token=None)
    for answer in (by_cookie, by_header, by_query):
        assert (answer.status, answer.headers["X-Request-Id"]) == (200, "mine-7")
        heard = json.loads(answer.body)
        assert heard["type"] == "text/csv; x=1"
        assert heard["query"] == {"a": "1", "b": " "}
        assert heard["headers"]["x-customer"] == "ann"
        assert not {"authorization", "cookie", "x-xsrftoken", "referer"} & set(heard["headers"])
        for secret in (TOKEN, person.xsrf):
            assert secret not in answer.body.decode()


def test_a_login_in_the_body_is_refused_since_the_handler_reads_it(jupyter: Jupyter, serve_cell) -> None:
    endpoint, person = serve_cell(HEARS), Person(jupyter)
    path, form = f"nbserve/endpoints/{endpoint.name}", {"Content-Type": "application/x-www-form-urlencoded"}
    before = endpoint.stats()["requests"]
    in_body = [
        jupyter.ask("POST", path, f"x=1&token={TOKEN}".encode(), form, token=None),
        person.ask("POST", path, f"x=1&_xsrf={person.xsrf}".encode(), form),
    ]
    for answer in in_body:
        assert (answer.status, json.loads(answer.body)["type"]) == (400, "BadRequest")
        assert "Authorization: token TOKEN" in json.loads(answer.body)["message"]
    assert endpoint.stats()["requests"] == before
    # A field of that name is no login when there is another one.
    assert person.ask("POST", path, b"x=1&token=abc", {**form, "X-XSRFToken": person.xsrf}).status == 200


def test_answers_come_as_the_handler_made_them_but_jupyters_own_headers_stay(jupyter: Jupyter, serve_cell) -> None:
    path = f"nbserve/endpoints/{serve_cell(ANSWERS).name}"
    answer = jupyter.ask("POST", path, b"make", TEXT)
    assert (answer.status, answer.body) == (201, b"<b>made</b>")
    assert answer.headers.get_all("Content-Type") == ["text/html; charset=utf-8"]
    assert answer.headers["X-Mine"] == "yes"
    assert "stolen" not in str(answer.headers)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Access-Control-Allow-Origin"] != "*"


@pytest.mark.parametrize(
    ("text", "status", "kind"), [("bad", 400, "BadRequest"), ("gone", 410, None), ("boom", 500, "HandlerFailed")]
)
def test_errors_of_the_handler_are_answers_like_others(jupyter, serve_cell, text, status, kind) -> None:
    answer = jupyter.ask("POST", f"nbserve/endpoints/{serve_cell(ANSWERS).name}", text.encode(), TEXT)
    assert answer.status == status
    assert kind in (None, json.loads(answer.body)["type"])
    assert b"secret" not in answer.body


def test_what_there_is_not_is_said(jupyter: Jupyter, serve_cell) -> None:
    endpoint = serve_cell(ECHO)
    answer = jupyter.ask("POST", "nbserve/endpoints/nobody", b"[1]", JSON)
    assert json.loads(answer.body) == {
        "code": 404,
        "type": "NotFound",
        "message": f"no running server has an endpoint 'nobody'; there are: {endpoint.name}",
    }
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        answer = jupyter.ask(method, f"nbserve/endpoints/{endpoint.name}")
        assert (answer.status, answer.headers["Allow"]) == (405, "POST, OPTIONS")


def test_a_full_queue_says_when_to_come_back(jupyter: Jupyter, serve_cell, gate: Gate, wait_until) -> None:
    endpoint = serve_cell(gate.cell, queue_size=1)
    path = f"nbserve/endpoints/{endpoint.name}"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(jupyter.ask, "POST", path, b"[1]", JSON)
        wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "BUSY")
        second = pool.submit(jupyter.ask, "POST", path, b"[2]", JSON)
        wait_until(lambda: endpoint.stats()["queued"] == 1)
        refused = jupyter.ask("POST", path, b"[3]", JSON)
        gate.open()
        assert (first.result().body, second.result().body) == (b"[1]", b"[2]")
    assert (refused.status, json.loads(refused.body)["type"]) == (503, "Overloaded")
    assert refused.headers["Retry-After"] == "1"


def test_many_at_once(jupyter: Jupyter, serve_cell, gate: Gate, wait_until) -> None:
    endpoint = serve_cell(gate.cell, max_batch_size=64)
    path = f"nbserve/endpoints/{endpoint.name}"
    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(jupyter.ask, "POST", path, b"[%d]" % number, JSON) for number in range(50)]
        # None waits for another one to be relayed, and Jupyter goes on meanwhile.
        wait_until(lambda: connections(jupyter, endpoint.url) == 50)
        assert jupyter.call("GET", f"nbserve/api/endpoints/{endpoint.name}")["name"] == endpoint.name
        gate.open()
        assert [each.result().body for each in asked] == [b"[%d]" % number for number in range(50)]


def test_a_body_that_is_too_large_is_refused_by_the_server(jupyter: Jupyter, serve_cell) -> None:
    path = f"nbserve/endpoints/{serve_cell(ECHO).name}"
    answer = jupyter.ask("POST", path, bytes(257 * 1024 * 1024), {"Content-Type": "application/octet-stream"})
    assert (answer.status, json.loads(answer.body)["code"]) == (413, 413)
    assert jupyter.ask("POST", path, b"[1]", JSON).status == 200


def test_a_client_that_hangs_up_is_not_waited_for(jupyter: Jupyter, serve_cell, gate: Gate, wait_until) -> None:
    endpoint = serve_cell(gate.cell)
    path = f"nbserve/endpoints/{endpoint.name}"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(jupyter.ask, "POST", path, b"[1]", JSON)
        wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "BUSY")
        with half_asked(jupyter, path):
            wait_until(lambda: endpoint.stats()["queued"] == 1)
            assert connections(jupyter, endpoint.url) == 2
        wait_until(lambda: connections(jupyter, endpoint.url) == 1)
        gate.open()
        assert first.result().body == b"[1]"
    assert jupyter.ask("POST", path, b"[3]", JSON).body == b"[3]"
    assert gate.handled == "[[1]][[3]]"


def connections(jupyter: Jupyter, url: str) -> int:
    """How many Jupyter's server has open to a model server."""
    address = urlsplit(url)
    opened = psutil.Process(jupyter.pid).net_connections()
    return sum(1 for connection in opened if connection.raddr == (address.hostname, address.port))


def half_asked(jupyter: Jupyter, path: str, body: bytes = b"[2]") -> socket.socket:
    """A connection that has asked, and does not read."""
    address = urlsplit(jupyter.url + path)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    lines = [f"POST {address.path} HTTP/1.1", f"Host: {address.netloc}", f"Authorization: token {TOKEN}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
    connection.sendall("\r\n".join(lines).encode() + body)
    return connection


def test_a_server_that_dies_meanwhile(jupyter: Jupyter, make_bundle, gate: Gate, wait_until) -> None:
    server = Server.start().ready()
    endpoint = server.deploy(make_bundle(gate.cell, "mortal").path)
    info = server.info()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(jupyter.ask, "POST", "nbserve/endpoints/mortal", b"[1]", JSON)
        wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "BUSY")
        os.kill(info["pid"], signal.SIGKILL)
        answer = asked.result()
    assert answer.status == 503
    assert json.loads(answer.body) == {
        "code": 503,
        "type": "ServerGone",
        "message": "the model server does not answer any more: it has ended, or is about to",
    }
    wait_until(lambda: not server.is_alive())
    wait_until(lambda: jupyter.ask("POST", "nbserve/endpoints/mortal", b"[1]", JSON).status == 404)


class HalfAnswer(BaseHTTPRequestHandler):
    """Both APIs of a model server that dies in the middle of its answers."""

    def do_GET(self) -> None:
        body = b'{"endpoints": [{"name": "cut"}]}'
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def do_POST(self) -> None:
        parts = {
            "/predictions/cut": b"Content-Length: 9\r\n\r\nhello",
            "/predictions/cut/v1": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        }
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + parts[self.path])

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing to tell."""


@pytest.fixture
def dying() -> Iterator[None]:
    """Such a server, with a run file."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HalfAnswer)
    url = f"http://127.0.0.1:{server.server_port}"
    run_file = RunFile("0123456789abcdef", os.getpid(), psutil.Process().create_time(), url, url, "token")
    run_file.write()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()
    run_file.path.unlink()


@pytest.mark.parametrize("version", ["", "/v1"], ids=["length", "chunks"])
def test_an_answer_that_breaks_off_does_not_look_whole(jupyter: Jupyter, dying: None, version: str) -> None:
    with pytest.raises(http.client.IncompleteRead):
        jupyter.ask("POST", f"nbserve/endpoints/cut{version}", b"[1]", JSON)
    assert "Traceback" not in jupyter.log.read_text()


def test_of_two_servers_the_newest_answers(jupyter: Jupyter, serve_cell, make_bundle) -> None:
    says = (
        'class H(nbserve.Handler):\n    def handle(self, requests, context):\n        return ["{}"] * len(requests)\n'
    )
    serve_cell(says.format("old"), "twin")
    newer = Server.start().ready()
    newer.deploy(make_bundle(says.format("new"), "twin").path)
    try:
        assert jupyter.ask("POST", "nbserve/endpoints/twin", b"[1]", JSON).body == b"new"
    finally:
        newer.stop()


def test_nothing_waits_for_somebody_who_reads_slowly(jupyter: Jupyter, serve_cell) -> None:
    path = f"nbserve/endpoints/{serve_cell(ECHO).name}"
    address, data = urlsplit(jupyter.url + path), bytes(20_000_000)
    head = [f"POST {address.path} HTTP/1.1", f"Host: {address.netloc}", f"Authorization: token {TOKEN}"]
    head += ["Content-Type: application/octet-stream", f"Content-Length: {len(data)}", "Connection: close", "", ""]
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall("\r\n".join(head).encode() + data)
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert jupyter.ask("POST", path, b"[1]", JSON).body == b"[1]"
        received = sum(len(piece) for piece in iter(lambda: connection.recv(1 << 20), b""))
    assert received > len(data)
