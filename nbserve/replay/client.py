"""Asks a URL, over HTTP or HTTPS, on one connection that is kept. Runs in the kernel and the CLI."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from nbserve.errors import ConfigError, ServerGone
from nbserve.replay.difference import Received, error_text

ANSWER_LIMIT_S = 60.0
POLL_S = 0.1
POLL_LIMIT_S = 5.0
# Of a proxy or a server that is not ready yet.
NOT_YET = (429, 502, 503, 504)
# Asked when nothing but a server's address is given: SageMaker's route to the only endpoint there is.
ONLY_ENDPOINT = "/invocations"


@dataclass(frozen=True)
class Address:
    """Where requests go: `path` with its query, and `base` without either. `is_guessed`: the URL had no path."""

    scheme: str
    netloc: str
    path: str
    is_guessed: bool

    @property
    def base(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    def __str__(self) -> str:
        return self.base + self.path


def address_of(url: str) -> Address:
    """Raises ConfigError for what is no URL of predictions."""
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole, parts = False, urlsplit("")
    if not is_whole or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{url!r} is no URL such as http://127.0.0.1:8080 or http://HOST:PORT/predictions/NAME")
    if parts.path.endswith((":predict", "/infer")):
        raise ConfigError(
            f"{url} takes bodies of another shape than those that were recorded: "
            f"give {parts.scheme}://{parts.netloc}/predictions/NAME"
        )
    return Address(parts.scheme, parts.netloc, _path_of(parts), is_guessed=parts.path in ("", "/"))


def _path_of(parts: SplitResult) -> str:
    path = ONLY_ENDPOINT if parts.path in ("", "/") else parts.path
    return f"{path}?{parts.query}" if parts.query else path


class Client:
    """One connection, opened anew when the other side closed it; every failure is a ServerGone that says why."""

    def __init__(
        self, address: Address, headers: Mapping[str, str] | None = None, limit_s: float = ANSWER_LIMIT_S
    ) -> None:
        self._address = address
        self._headers = dict(headers or {})
        self._limit_s = limit_s
        self._connection = self._new(limit_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def post(self, body: bytes, content_type: str) -> Received:
        headers = {"Content-Type": content_type, **self._headers}
        was_open = self._connection.sock is not None
        try:
            return self._exchange(self._connection, "POST", self._address.path, body, headers)
        except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected) as error:
            if not was_open:
                raise self._gone(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from None
        # A server may close an idle connection at any time.
        self._connection.close()
        try:
            return self._exchange(self._connection, "POST", self._address.path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from None

    def wait_until_ready(self, limit_s: float) -> None:
        """Until `GET /ping` says so, or shows that there is no such route; raises ServerGone after `limit_s`."""
        deadline = time.monotonic() + limit_s
        while said := self.not_ready(max(0.1, min(POLL_LIMIT_S, deadline - time.monotonic()))):
            if time.monotonic() > deadline:
                raise ServerGone(f"{self._address.base} is not ready after {limit_s:g} s: {said}")
            time.sleep(POLL_S)

    def not_ready(self, limit_s: float) -> str:
        """Why it is not; nothing when it is."""
        connection = self._new(limit_s)
        try:
            answer = self._exchange(connection, "GET", "/ping", b"", self._headers)
        except ssl.SSLCertVerificationError as error:
            raise self._gone(error) from None
        except (OSError, http.client.HTTPException) as error:
            return _reason(error, limit_s)
        finally:
            connection.close()
        return f"{answer.status} {error_text(answer.body)}" if answer.status in NOT_YET else ""

    def _new(self, limit_s: float) -> http.client.HTTPConnection:
        if self._address.scheme == "https":
            return http.client.HTTPSConnection(self._address.netloc, timeout=limit_s)
        return http.client.HTTPConnection(self._address.netloc, timeout=limit_s)

    @staticmethod
    def _exchange(
        connection: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Received:
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return Received(answer.status, answer.headers.get("Content-Type", ""), answer.read())
        except BaseException:
            connection.close()
            raise

    def _gone(self, error: Exception) -> ServerGone:
        return ServerGone(f"{self._address} does not answer: {_reason(error, self._limit_s)}")


def _reason(error: Exception, limit_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came within {limit_s:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); name its authority in SSL_CERT_FILE"
    if isinstance(error, ssl.SSLError):
        return f"it does not speak TLS, so try http:// ({error.reason})"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection; does it want https://?"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
