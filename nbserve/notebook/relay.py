"""The panel's way to its server where the browser has none of its own: by comm, in threads. Runs in the kernel."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from nbserve.errors import NbserveError
from nbserve.verbs import Endpoint, Relayed

JSON = "application/json"
logger = logging.getLogger(__name__)

# A message for the browser, and its binary buffers.
Send = Callable[[dict[str, Any], Sequence[bytes]], None]


class Relay:
    """Answers the messages of a panel; all of its views share one stream.

    Messages come from whichever thread the kernel takes them in, so hearing one never waits for anything.
    """

    def __init__(self, endpoint: Endpoint, send: Send) -> None:
        self._endpoint = endpoint
        self._send = send
        self._views: set[Any] = set()
        self._over = threading.Event()
        self._lock = threading.Lock()

    def hear(self, message: Mapping[str, Any]) -> None:
        if message["op"] == "follow":
            self._follow(message.get("view"))
        elif message["op"] == "unfollow":
            self._unfollow(message.get("view"))
        elif message["op"] == "call":
            self._start(self._call, message["id"], message["method"], message["path"], message.get("body"))

    def end(self) -> None:
        """Send nothing more, until a view asks for it again."""
        with self._lock:
            self._views.clear()
            self._over.set()

    def _follow(self, view: Any) -> None:
        """Begin anew for all: whoever comes later needs what came before, too; one that heard nothing asks again."""
        with self._lock:
            self._views.add(view)
            self._over.set()
            self._over = threading.Event()
            self._start(self._stream, self._over)

    def _unfollow(self, view: Any) -> None:
        with self._lock:
            self._views.discard(view)
            if not self._views:
                self._over.set()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        name = f"nbserve-panel-{self._endpoint.name}"
        threading.Thread(target=_guarded, args=(work, *arguments), name=name, daemon=True).start()

    def _stream(self, over: threading.Event) -> None:
        with contextlib.suppress(NbserveError), contextlib.closing(self._endpoint.stream()) as lines:
            for line in lines:
                if over.is_set():
                    return
                self._send({"op": "line", "line": line}, ())
                if line["event"] == "gone":
                    return
        # The server ended without a word.
        if not over.is_set():
            self._send({"op": "line", "line": {"event": "gone"}}, ())

    def _call(self, number: int, method: str, path: str, body: Any) -> None:
        try:
            answer = self._profile(body or {}) if path == "/profile" else self._relay(method, path, body)
        except NbserveError as error:
            answer = _refusal(error.status, error.kind, error.client_text)
        except Exception as error:
            # A thread's edge: who asked waits for an answer.
            answer = _refusal(500, "InternalError", f"{type(error).__name__}: {error}")
        reply = {"op": "reply", "id": number, "status": answer.status, "content_type": answer.content_type}
        if answer.content_type.startswith(JSON):
            self._send({**reply, "body": orjson.loads(answer.body or b"null")}, ())
        else:
            self._send({**reply, "body": None}, (answer.body,))

    def _relay(self, method: str, path: str, body: Any) -> Relayed:
        return self._endpoint.relay(method, path, b"" if body is None else orjson.dumps(body))

    def _profile(self, asked: Mapping[str, Any]) -> Relayed:
        """The page of a profile, which no server has: it is put together here."""
        from nbserve.trace import pack, page

        profile = self._endpoint.profile(
            seconds=asked.get("seconds"), batches=asked.get("batches"), load=asked.get("load")
        )
        document = page.document(pack.pack(profile.timeline, profile.findings), title=profile.name)
        return Relayed(200, "text/html; charset=utf-8", document.encode())


def _refusal(status: int, kind: str, text: str) -> Relayed:
    return Relayed(status, JSON, orjson.dumps({"code": status, "type": kind, "message": text}))


def _guarded(work: Callable[..., None], *arguments: Any) -> None:
    try:
        work(*arguments)
    except Exception:
        # A thread's edge: nothing of it may appear in somebody's notebook.
        logger.debug("%s ended", threading.current_thread().name, exc_info=True)
