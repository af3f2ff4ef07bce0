"""Golden pairs asked again: what counts as a difference, how it is put into words, and who is asked."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nbserve.bundle.bundle import Golden
from nbserve.errors import ConfigError, GoldenMismatch, ServerGone
from nbserve.replay import Difference, Received, Tolerance, difference, replay
from nbserve.replay.client import address_of

JSON = "application/json"
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
FLOATS = st.floats(-1e30, 1e30)


def answer(value: Any, content_type: str = JSON, status: int = 200) -> Received:
    return Received(status, content_type, value if isinstance(value, bytes) else json.dumps(value).encode())


def between(one: Any, other: Any, tolerance: Tolerance | None = None) -> Difference | None:
    return difference(answer(one), answer(other), tolerance or Tolerance())


@given(VALUES)
def test_an_answer_is_equal_to_itself_however_it_is_written(value: Any) -> None:
    spaced = json.dumps(value, indent=2, sort_keys=True).encode()
    assert difference(answer(value), answer(spaced), Tolerance(0, 0, 0)) is None


@given(VALUES, VALUES)
def test_a_difference_is_one_from_both_sides(one: Any, other: Any) -> None:
    assert (between(one, other) is None) == (between(other, one) is None)


@given(st.lists(FLOATS, min_size=1), st.data())
def test_noise_of_float32_is_no_difference(numbers: list[float], data: st.DataObject) -> None:
    largest = max(map(abs, numbers))
    noisy = [number + largest * data.draw(st.floats(-5e-6, 5e-6)) for number in numbers]
    assert between({"scores": numbers}, {"scores": noisy}) is None


@given(VALUES, st.data())
def test_one_changed_leaf_is_found_where_it_is(value: Any, data: st.DataObject) -> None:
    places = list(leaves(value))
    assume(places)
    place, leaf = data.draw(st.sampled_from(places))
    found = between(value, replaced(value, place, "another" if leaf != "another" else "one more"))
    assert found is not None
    assert found.place == "$" + "".join(map(in_words, place))
    assert found.others == 0


@given(st.integers(), st.integers())
def test_whole_numbers_are_exact(one: int, other: int) -> None:
    assert (between([one], [other]) is None) == (one == other)


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*place, key))
    else:
        yield place, value


def replaced(value: Any, place: tuple[Any, ...], leaf: Any) -> Any:
    if not place:
        return leaf
    copy = value.copy()
    copy[place[0]] = replaced(value[place[0]], place[1:], leaf)
    return copy


def in_words(key: Any) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    is_name = key.isascii() and key.replace("-", "_").isidentifier() and key[0] != "-"
    return f".{key}" if is_name else f"[{json.dumps(key, ensure_ascii=False)}]"


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"scores": [1.0, 2.0, 3.0, 0.5]}, {"scores": [1.0, 2.0, 3.0, 0.9]}, "$.scores[3]: expected 0.5, got 0.9"),
        (
            [1.0, 2.0, 3.0],
            [1.5, 2.5, 3.0],
            "$[0]: expected 1.0, got 1.5 (1 other differs)",
        ),
        ([1, 2, 3], [2, 3, 4], "$[0]: expected 1, got 2 (2 others differ)"),
        ({"a": 1}, {"a": 1, "b": 2}, "$.b: expected nothing, got 2"),
        ({"a b": 1}, {}, '$["a b"]: expected 1, got nothing'),
        ([1, 2], [1, 2, 3], "$: expected a list of 2, got one of 3"),
        ("cat", "dog", '$: expected "cat", got "dog"'),
        (True, 1, "$: expected true, got 1"),
        (None, 0.0, "$: expected null, got 0.0"),
        (0.5, "0.5", '$: expected 0.5, got "0.5"'),
        (1e6, 1.1e6, "$: expected 1000000.0, got 1100000.0"),
        ({"label": 7}, {"label": 8}, "$.label: expected 7, got 8"),
        ("x" * 200, "y" * 200, f'$: expected "{"x" * 58}…, got "{"y" * 58}…'),
    ],
)
def test_a_difference_says_where_and_what(one: Any, other: Any, said: str) -> None:
    assert str(between(one, other)) == said


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (2, 2.0),
        (0.5, 0.500001),
        ([100.0, 1e-9], [100.0, -1e-9]),
        ([100.0, 1e-4], [100.0, 9e-4]),
        (math.nan, math.nan),
        (math.inf, math.inf),
        (10**400, 10**400),
    ],
)
def test_what_is_near_enough(one: Any, other: Any) -> None:
    assert between(one, other) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.5, 0.502),
        (math.inf, -math.inf),
        (math.nan, 0.0),
        (10**400, 1.5),
        # A detector's row: pixels leave no room for another score.
        ([620.0, 480.0, 0.90], [620.0, 480.0, 0.91]),
    ],
)
def test_what_is_not(one: Any, other: Any) -> None:
    assert between(one, other) is not None


def test_types_of_few_bits_have_more_room() -> None:
    rounded = [[0.5, 0.508], [0.001, 0.004]]
    assert between(*zip(*rounded, strict=True), Tolerance.of_dtype("bfloat16")) is None
    assert between(*zip(*rounded, strict=True), Tolerance.of_dtype("float16")) is not None
    assert Tolerance.of_dtype("") == Tolerance.of_dtype("float32") == Tolerance()


def test_places_can_be_left_out() -> None:
    one = {"id": "a", "rows": [{"t": 1, "x": 2}, {"t": 3, "x": 4}]}
    other = {"id": "b", "rows": [{"t": 5, "x": 2}, {"t": 6, "x": 4}]}
    assert between(one, other, Tolerance(ignore=frozenset(["$.id", "$.rows[*].t"]))) is None
    with pytest.raises(ConfigError, match=r"'id' is no place of an answer to ignore; one is \$\.id"):
        Tolerance(ignore=frozenset(["id"]))
    found = between(one, other, Tolerance(ignore=frozenset(["$.id", "$.rows[0].t"])))
    assert str(found) == "$.rows[1].t: expected 3, got 6"


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (answer(1), answer(1, "text/plain"), "content type: expected application/json, got text/plain"),
        (answer(1), answer({"message": "no"}, status=500), "status: expected 200, got 500 (no)"),
        (answer(1), answer(b"<p>busy</p>", "text/html", 502), "status: expected 200, got 502 (<p>busy</p>)"),
        (answer(1), answer(b"", status=404), "status: expected 200, got 404"),
        (
            answer(b"one two", "text/plain"),
            answer(b"one too", "text/plain"),
            "byte 5: expected one two, got one too",
        ),
        (answer(b"one", "text/plain"), answer(b"one two", "text/plain"), "byte 3: expected one, got one two"),
        (answer(b"\xff\x00\x01", "image/png"), answer(b"\xff\x00\x02", "image/png"), "byte 2: expected 01, got 02"),
        (answer(b"{", JSON), answer(b"[", JSON), "byte 0: expected {, got ["),
        (answer(b"1.0", "text/plain"), answer(b"1.00", "text/plain"), "byte 3: expected 1.0, got 1.00"),
    ],
)
def test_what_is_not_json_is_compared_byte_for_byte(one: Received, other: Received, said: str) -> None:
    assert str(difference(one, other)) == said


def test_parameters_of_a_media_type_do_not_count_and_json_has_many_names() -> None:
    assert difference(answer(0.5, "application/json; charset=utf-8"), answer(0.5000001, "Application/JSON")) is None
    assert difference(answer(0.5, "application/ld+json"), answer(0.5000001, "application/ld+json")) is None


def test_json_too_deep_to_read_is_compared_as_bytes() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert difference(answer(deep), answer(deep)) is None
    assert difference(answer(deep), answer(deep + b" ")) is not None


Answer = Callable[[str, bytes], tuple[int, bytes]]


class Web:
    """A server whose answers a test decides; it keeps what it was asked."""

    def __init__(self, answers: Answer) -> None:
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                web.asked.append((self.command, self.path, body, dict(self.headers)))
                status, said = answers(self.path, body)
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", JSON)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: object) -> None:
                """Clients that hang up are what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def web() -> Iterator[Callable[[Answer], Web]]:
    started: list[Web] = []

    def start(answers: Answer) -> Web:
        started.append(Web(answers))
        return started[-1]

    yield start
    for each in started:
        each.stop()


StartWeb = Callable[[Answer], Web]


def doubled(path: str, body: bytes) -> tuple[int, bytes]:
    return 200, json.dumps(json.loads(body) * 2).encode()


def pair(request: Any, answer: Any) -> Golden:
    return Golden(json.dumps(request).encode(), "application/json; v=1", 200, json.dumps(answer).encode(), JSON)


def test_all_equal(web: StartWeb) -> None:
    server = web(doubled)
    said: list[str] = []
    found = replay(server.url, [pair(1, 2), pair(2.5, 5.000001)], headers={"X-Key": "k"}, on_progress=said.append)
    found.raise_for_difference()
    assert (found.checked, found.asked, len(found.ms)) == (2, 2, 2)
    assert str(found).startswith(f"{server.url}/invocations: all 2 answers are equal to what was recorded; ")
    assert said == ["asking request 1 of 2", "asking request 2 of 2"]
    method, path, body, headers = server.asked[1]
    assert (method, path, body) == ("POST", "/invocations", b"2.5")
    assert (headers["Content-Type"], headers["X-Key"]) == ("application/json; v=1", "k")


def test_the_first_that_differs_is_named_and_nothing_is_asked_after_it(web: StartWeb) -> None:
    server = web(doubled)
    found = replay(f"{server.url}/predictions/h", [pair(1, 2), pair(3, 6), pair(2, 5), pair(4, 9)])
    assert found.checked == 2
    assert found.mismatch is not None
    assert found.mismatch.number == 3
    # The third is asked again, to see whether it answers the same.
    assert [body for _, _, body, _ in server.asked] == [b"1", b"3", b"2", b"2"]
    with pytest.raises(GoldenMismatch) as failure:
        found.raise_for_difference()
    assert str(failure.value) == "request 3 (application/json 2) is answered in another way: $: expected 5, got 4"


def test_an_answer_that_is_new_each_time_is_told_apart(web: StartWeb) -> None:
    numbers = iter(range(1, 100))
    server = web(lambda path, body: (200, json.dumps({"id": next(numbers)}).encode()))
    found = replay(server.url, [pair(1, {"id": 77})])
    assert found.mismatch is not None
    assert found.mismatch.changes
    assert found.mismatch.hint.startswith("Asked again it answers 2: what is new in each answer")


@pytest.mark.parametrize(("status", "hint"), [(401, "--header"), (503, "--wait"), (308, "https://"), (500, "")])
def test_an_error_says_what_can_be_done(web: StartWeb, status: int, hint: str) -> None:
    found = replay(web(lambda *_: (status, b'{"message": "so"}')).url + "/predictions/h", [pair(1, 2)])
    assert found.mismatch is not None
    assert f"status: expected 200, got {status}" in str(found)
    assert hint in found.mismatch.hint


def test_a_server_without_the_route_is_told_from_one_that_answers_otherwise(web: StartWeb) -> None:
    server = web(lambda *_: (404, b'{"message": "nothing there"}'))
    with pytest.raises(
        ConfigError, match=r"has no /invocations .* give the URL of predictions, such as .*/predictions"
    ):
        replay(server.url, [pair(1, 2)])
    with pytest.raises(ConfigError, match=r"nothing answers predictions at .*/predictions/h: 404 nothing there"):
        replay(f"{server.url}/predictions/h", [pair(1, 2)])


def test_it_waits_until_the_server_is_ready(web: StartWeb) -> None:
    pings = iter([503, 503, 200])
    server = web(lambda path, body: (next(pings), b"{}") if path == "/ping" else doubled(path, body))
    assert replay(server.url, [pair(1, 2)], wait_s=60).checked == 1
    assert [path for _, path, *_ in server.asked] == ["/ping"] * 3 + ["/invocations"]


def test_a_gateway_without_ping_is_ready_when_it_answers(web: StartWeb) -> None:
    server = web(lambda path, body: (404, b"") if path == "/ping" else doubled(path, body))
    assert replay(f"{server.url}/digits", [pair(1, 2)], wait_s=60).checked == 1


def test_it_says_what_it_waited_for_in_vain(web: StartWeb) -> None:
    server = web(lambda *_: (503, b'{"message": "no worker is ready"}'))
    with pytest.raises(ServerGone, match=r"is not ready after 0.2 s: 503 no worker is ready"):
        replay(server.url, [pair(1, 2)], wait_s=0.2)


def test_a_connection_that_was_closed_meanwhile_is_opened_again(web: StartWeb) -> None:
    count = iter(range(100))
    server = web(lambda path, body: (0, b"") if next(count) == 1 else doubled(path, body))
    assert replay(server.url, [pair(1, 2), pair(2, 4)]).checked == 2


def test_nobody_there(web: StartWeb) -> None:
    server = web(doubled)
    server.stop()
    with pytest.raises(ServerGone, match=r"does not answer: Connection refused"):
        replay(server.url, [pair(1, 2)])
    server = web(lambda *_: (0, b""))
    with pytest.raises(ServerGone, match="does it want https"):
        replay(server.url, [pair(1, 2)])


def test_an_answer_that_does_not_come(web: StartWeb) -> None:
    let_go = threading.Event()
    server = web(lambda *_: (200, b"1") if let_go.wait(30) else (500, b""))
    with pytest.raises(ServerGone, match=r"nothing came within 0.1 s"):
        replay(server.url, [pair(1, 2)], limit_s=0.1)
    let_go.set()


def test_https_where_there_is_none(web: StartWeb) -> None:
    server = web(doubled)
    with pytest.raises(ServerGone, match="does not speak TLS"):
        replay(server.url.replace("http:", "https:"), [pair(1, 2)])


@pytest.mark.parametrize("url", ["", "digits", "127.0.0.1:8080", "ftp://x", "http://", "http://x:99999/", "http://a b"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL such as"):
        replay(url, [])


def test_routes_of_other_shapes_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="give http://h:1/predictions/NAME"):
        address_of("http://h:1/v1/models/m:predict")
    assert str(address_of("https://h/a?b=1")) == "https://h/a?b=1"
    assert str(address_of("https://h")) == "https://h/invocations"
