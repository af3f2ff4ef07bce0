"""The request that a debugging session is about, sent from a thread while the console is busy with the worker."""

from __future__ import annotations

import base64
import secrets
import socket
import threading
from typing import TYPE_CHECKING

import orjson

from nbserve.debugging.link import can_read
from nbserve.errors import NbserveError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbserve.verbs import Endpoint

SHOWN_CHARS = 2_000


class DrivenRequest:
    """One request to one worker. `answered` can be read once the answer is there; the answer is kept in words."""

    def __init__(
        self, endpoint: Endpoint, worker: int, body: bytes = b"", content_type: str = "", *, is_replay: bool = False
    ) -> None:
        self.token = secrets.token_hex(8)
        self.answered, self._done = socket.socketpair()
        self._server = endpoint.server
        self._path = f"{endpoint.path}/workers/{worker}/request" + ("?replay=1" if is_replay else "")
        self._body = body
        self._headers = {"Content-Type": content_type, "X-Nbserve-Debug": self.token}
        self._text = ""
        self._thread: threading.Thread | None = None

    def __enter__(self) -> DrivenRequest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.answered.close()
        if self._thread is None:
            self._done.close()

    def start(self) -> None:
        # A daemon: a program that ends does not wait for an answer.
        self._thread = threading.Thread(target=self._run, name="nbserve-debug-request", daemon=True)
        self._thread.start()

    @property
    def is_sent(self) -> bool:
        return self._thread is not None

    def wait(self, limit_s: float | None = None) -> str:
        """The answer in words, waited for; KeyboardInterrupt gets through."""
        # Not join(): on some versions of Python no signal interrupts it.
        is_answered = can_read(self.answered, limit_s)
        return self._text if is_answered else "the request goes on; its answer is not waited for"

    def _run(self) -> None:
        try:
            with self._server.send("POST", self._path, self._body, self._headers) as answer:
                self._text = _in_words(orjson.loads(answer.read()))
        except NbserveError as error:
            self._text = f"no answer: {error}"
        finally:
            self._done.close()


def _in_words(answer: Mapping[str, object]) -> str:
    body = base64.b64decode(str(answer["body"]))
    kind = str(answer["content_type"])
    if not kind.startswith(("application/json", "text/")):
        return f"the answer: {answer['status']}, {len(body)} bytes of {kind}"
    text = body.decode(errors="replace").strip()
    more = "" if len(text) <= SHOWN_CHARS else f"... ({len(text)} characters)"
    return f"the answer: {answer['status']} {text[:SHOWN_CHARS]}{more}"
