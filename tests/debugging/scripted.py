"""The other ends of a debugger, each of which follows a script: an agent on a real socket, a server, a person."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from nbserve.debugging.console import Completer, Silent
from nbserve.debugwire import PROTOCOL, LineReader, address, encode

HELD = {"reason": "breakpoint", "file": "cell 3", "line": 12, "function": "preprocess", "request_ids": ["ab-1"]}
PLACE = {"worker": 0, "pid": 1, "held": HELD, "standin": False, "failure": None, "debugger": None}


class Agent:
    """The other end: a thread that says and expects what its script tells it to."""

    def __init__(self, path: Path, script: Callable[[Agent], None]) -> None:
        self.path = str(path)
        self.failure: BaseException | None = None
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX)
        with address(self.path) as where:
            self._listener.bind(where)
        self._listener.listen()
        self._reader = LineReader()
        self._commands: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._run)

    def say(self, event: str, **fields: Any) -> None:
        self._peer.sendall(encode({"event": event, **fields}))

    def expect(self, command: str) -> dict[str, Any]:
        while not self._commands:
            data = self._peer.recv(65536)
            assert data, f"hung up instead of {command}"
            self._commands.extend(self._reader.feed(data))
        found = self._commands.pop(0)
        assert found["cmd"] == command, found
        return found

    def prompt(self, text: str = "(Pdb) ") -> str:
        self.say("prompt", text=text)
        return str(self.expect("reply")["text"])

    def expect_hangup(self) -> None:
        assert not self._peer.recv(1)

    def _run(self) -> None:
        try:
            self._peer, _ = self._listener.accept()
            with self._peer:
                hello = self.expect("hello")
                assert hello["protocol"] == PROTOCOL
                self.who = hello["who"]
                self._script(self)
        except BaseException as error:
            self.failure = error

    def __enter__(self) -> Agent:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure


class Answer:
    def __init__(self, value: Any) -> None:
        self._value = value

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def read(self) -> bytes:
        return orjson.dumps(self._value)


class Server:
    """The management API's side: places for the asked modes, an answer for the driven request."""

    def __init__(self, place: dict[str, Any]) -> None:
        self.place = place
        self.asked: list[tuple[str, Any]] = []
        self.sent: dict[str, Any] = {}
        self.may_answer = threading.Event()
        self.answer: Any = {
            "status": 200,
            "content_type": "application/json",
            "body": base64.b64encode(b"[3]").decode(),
        }
        self.may_answer.set()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.asked.append((path, body))
        return {"text": "File cell 3, line 5 in inference"} if path.endswith("/stack") else self.place

    def send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.sent = {"path": path, "body": body, **headers}
        assert self.may_answer.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        return Answer(self.answer)


class Endpoint:
    name = "digits"
    path = "/endpoints/digits"

    def __init__(self, place: dict[str, Any], holds: Sequence[list[dict[str, Any]]] = ()) -> None:
        self.server = Server(place)
        self._holds = holds

    def holds(self, limit_s: float | None = None) -> Iterator[list[dict[str, Any]]]:
        yield from self._holds
        if limit_s is not None:
            raise TimeoutError


class Person(Silent):
    """A console whose lines are given; an exception among them is raised in the line's place."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        self._lines = list(lines)
        self.notes: list[str] = []
        self.completer: Completer | None = None

    def read_line(self, prompt: str) -> str:
        line = self._lines.pop(0)
        if isinstance(line, str):
            return line
        raise line

    def note(self, text: str) -> None:
        self.notes.append(text)

    def complete_with(self, completer: Completer) -> None:
        self.completer = completer
