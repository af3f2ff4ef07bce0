"""A small editor: the client's end of the debug adapter protocol, as VS Code speaks it to debugpy."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEADLINE_S = 30.0


class Dap:
    """An editor's end of the debug adapter protocol."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._file = self._socket.makefile("rb")
        self._numbers = itertools.count(1)
        self._kept: list[dict[str, Any]] = []

    def say(self, command: str, **arguments: Any) -> int:
        number = next(self._numbers)
        message = {"seq": number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return number

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The answer's body."""
        return self.answer(self.say(command, **arguments))

    def answer(self, number: int) -> dict[str, Any]:
        found = self._next(lambda message: message.get("request_seq") == number)
        assert found["success"], found
        body: dict[str, Any] = found.get("body", {})
        return body

    def event(self, name: str) -> dict[str, Any]:
        body: dict[str, Any] = self._next(lambda message: message.get("event") == name)["body"]
        return body

    def attach(self, breakpoints: dict[Path, list[int]]) -> list[bool]:
        """As VS Code does; gives which breakpoints were accepted."""
        self.ask("initialize", clientID="vscode", adapterID="debugpy", pathFormat="path")
        attach = self.say("attach", justMyCode=False)
        self._next(lambda message: message.get("event") == "initialized")
        verified = []
        for file, lines in breakpoints.items():
            wanted = [{"line": line} for line in lines]
            answer = self.ask("setBreakpoints", source={"path": str(file)}, breakpoints=wanted)
            verified += [each["verified"] for each in answer["breakpoints"]]
        self.ask("configurationDone")
        self.answer(attach)
        return verified

    def stop(self) -> tuple[int, list[dict[str, Any]]]:
        """The thread that stops next, and its frames."""
        thread = self.event("stopped")["threadId"]
        return thread, self.ask("stackTrace", threadId=thread)["stackFrames"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _next(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            for message in self._kept:
                if is_wanted(message):
                    self._kept.remove(message)
                    return message
            self._kept.append(self._read())

    def _read(self) -> dict[str, Any]:
        length = 0
        while line := self._file.readline().strip():
            length = int(line.partition(b":")[2])
        assert length, "the worker hung up"
        message: dict[str, Any] = json.loads(self._file.read(length))
        return message


def places(frames: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    return [(frame["name"], frame["line"], frame["source"]["path"]) for frame in frames]
