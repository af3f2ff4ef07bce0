"""One HTTP exchange with a server, and bodies as bytes and back. Runs in the kernel and the CLI."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from nbserve.errors import PredictError, ServerGone


class Answer:
    """One HTTP exchange on a connection of its own."""

    def __init__(self, base_url: str, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(base_url).netloc)
        try:
            self._connection.connect()
            self._socket = self._connection.sock
            self._connection.request(method, path, body, dict(headers))
            self._response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ServerGone(f"the server at {base_url} does not answer: {error}") from None
        except KeyboardInterrupt:
            self._connection.close()
            raise
        self.status = self._response.status
        self.content_type = self._response.headers.get("Content-Type", "")

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._response)

    def lines(self, limit_s: float | None = None) -> Iterator[bytes]:
        """The lines of an answer that goes on; ends with it, and raises TimeoutError after `limit_s`."""
        deadline = None if limit_s is None else time.monotonic() + limit_s
        while True:
            if deadline is not None:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                line = self._response.readline()
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException) as error:
                raise ServerGone(f"the server broke off its answer: {error}") from None
            if not line:
                return
            yield line

    def read(self) -> bytes:
        try:
            return self._response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerGone(f"the server broke off its answer: {error}") from None


def encode(body: Any) -> tuple[bytes, str]:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(body, default=_as_list, option=options), "application/json"


def _as_list(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is neither JSON nor an array")


def decode(body: bytes, content_type: str) -> Any:
    if content_type.startswith("application/json"):
        return orjson.loads(body)
    return body.decode(errors="replace") if content_type.startswith("text/") else body


def predict_error(status: int, body: bytes) -> PredictError:
    try:
        return PredictError(status, str(orjson.loads(body)["message"]))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return PredictError(status, body.decode(errors="replace"))
