"""The head of an HTTP request: parsed by httptools, checked, and remembered. Pure; runs in the server process."""

from __future__ import annotations

from typing import Any

import httptools

from nbserve.errors import HttpError

CHUNKED = -1

_FRAMING = frozenset((b"host", b"connection", b"content-type", b"expect", b"transfer-encoding", b"content-length"))


class Head:
    """A valid request head. Many requests share one: `memo` is where the routes keep what they derived from it.

    `path` is still percent-encoded; `body_length` is CHUNKED when only the body itself can tell.
    `connection_line` is what HTTP/1.0 clients that want to keep the connection must be told.
    """

    __slots__ = (
        "body_length",
        "connection_line",
        "content_type",
        "expects_continue",
        "headers",
        "keep_alive",
        "memo",
        "method",
        "path",
        "query",
        "target",
    )

    def __init__(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], version: str, keep_alive: bool
    ) -> None:
        framing = _framing(headers, version)
        self.method = method
        self.target = target
        self.path, self.query = _split_target(method, target)
        self.headers = headers
        self.content_type = framing.get(b"content-type", b"")
        self.body_length = _body_length(framing, version)
        self.expects_continue = version == "1.1" and _expects_continue(framing)
        self.keep_alive = keep_alive
        self.connection_line = b"Connection: keep-alive\r\n" if keep_alive and version == "1.0" else b""
        self.memo: Any = None


class HeadParser:
    """Turns the bytes up to the empty line into a Head; raises HttpError for bytes that are none.

    Busy clients repeat their head byte for byte, and the same bytes always mean the same Head, so the last few
    hundred are looked up in `known` instead of parsed: that halves the Python time of a small request.
    """

    max_known = 1024
    max_known_bytes = 2048

    def __init__(self, max_header_bytes: int, max_body_bytes: int) -> None:
        self.known: dict[bytes, Head] = {}
        self._max_header_bytes = max_header_bytes
        self._max_body_bytes = max_body_bytes
        self._parser: Any = None
        self._start()

    def parse(self, data: bytes) -> Head:
        head = self.known.get(data)
        if head is None:
            head = self._parse(data)
            self._remember(data, head)
        return head

    def _parse(self, data: bytes) -> Head:
        if len(data) > self._max_header_bytes:
            raise head_too_large()
        self._start()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # refused by ignoring it: the request is answered as plain HTTP/1.1
        except httptools.HttpParserError as error:
            raise HttpError(400, f"this is no valid HTTP request: {error}") from None
        if not self._is_complete:
            raise HttpError(400, "this is no valid HTTP request: its head ends too early")
        head = Head(self._parser.get_method(), self._target, self._headers, self._version, self._keep_alive)
        if head.body_length > self._max_body_bytes:
            raise body_too_large()
        return head

    def _remember(self, data: bytes, head: Head) -> None:
        if len(data) <= self.max_known_bytes:
            if len(self.known) >= self.max_known:
                self.known.clear()
            self.known[data] = head

    def _start(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._version = ""
        self._keep_alive = False
        self._is_complete = False

    def on_url(self, target: bytes) -> None:
        self._target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        # Only here: once the message is complete the parser has forgotten its flags.
        self._version = self._parser.get_http_version()
        self._keep_alive = self._parser.should_keep_alive()
        self._is_complete = True


def head_too_large() -> HttpError:
    return HttpError(431, "the head of the request is larger than this server takes (max_header_bytes)")


def body_too_large() -> HttpError:
    return HttpError(413, "the body is larger than this server takes (max_body_bytes)")


def _framing(headers: list[tuple[bytes, bytes]], version: str) -> dict[bytes, bytes]:
    """The headers that decide how the request is read."""
    if version not in ("1.1", "1.0"):
        raise HttpError(505, f"this server speaks HTTP/1.1, not HTTP/{version}")
    framing: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _FRAMING:
            if name == b"host" and name in framing:
                raise HttpError(400, "a request has one Host header; this one has more")
            framing[name] = value
    if b"host" not in framing and version == "1.1":
        raise HttpError(400, "a request has one Host header; this one has none")
    return framing


def _split_target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    if target[:1] != b"/":
        if method == b"CONNECT":
            raise HttpError(501, "this server is no proxy")
        target = _origin_form(target)
    if b"#" in target:
        raise HttpError(400, "a request target has no fragment")
    path, _, query = target.partition(b"?")
    if path[:1] != b"/" and (path, method) != (b"*", b"OPTIONS"):
        raise HttpError(400, "a request target starts with /")
    return path, query


def _origin_form(target: bytes) -> bytes:
    """`http://host/path?query` as clients send it to proxies, without scheme and authority."""
    if not target[:8].lower().startswith((b"http://", b"https://")):
        return target
    rest = target.partition(b"://")[2]
    ends = [at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0]
    origin = rest[min(ends) :] if ends else b""
    return origin if origin.startswith(b"/") else b"/" + origin


def _body_length(framing: dict[bytes, bytes], version: str) -> int:
    coding = framing.get(b"transfer-encoding")
    if coding is None:
        return int(framing.get(b"content-length", b"0"))
    # The two ways to smuggle a request past a proxy that reads them differently.
    if b"content-length" in framing:
        raise HttpError(400, "a request has Content-Length or Transfer-Encoding, never both")
    if version == "1.0":
        raise HttpError(400, "HTTP/1.0 has no Transfer-Encoding")
    if coding.lower() != b"chunked":
        raise HttpError(501, "the only Transfer-Encoding this server decodes is chunked")
    return CHUNKED


def _expects_continue(framing: dict[bytes, bytes]) -> bool:
    expectation = framing.get(b"expect")
    if expectation is None:
        return False
    if expectation.lower() != b"100-continue":
        raise HttpError(417, "the only expectation this server meets is 100-continue")
    return True


# Stands in where a request broke off before it had a head.
NO_HEAD = Head(b"GET", b"/", [(b"host", b"")], "1.1", keep_alive=False)
