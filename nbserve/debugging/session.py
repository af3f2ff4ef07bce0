"""One session with a worker: the agent's events to the console, the console's lines to the agent."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from nbserve.debugging.console import Console
from nbserve.debugging.link import Event, Link, can_read
from nbserve.debugwire import PROTOCOL
from nbserve.errors import DebugError

COMPLETION_LIMIT_S = 2.0
DETACH_LIMIT_S = 1.0
LAST_WORDS_S = 1.0
LAUNCH = """\
{"name": "nbserve", "type": "debugpy", "request": "attach", "justMyCode": false,
 "connect": {"host": "127.0.0.1", "port": %d}}"""


class Session:
    """One command to an agent and all that follows, until one of the two sides ends it.

    `wait_s` limits how long the worker may run without a stop, and `hint` is told when it runs longer than so many
    seconds. `answered` can be read once the request that this session is about has its answer. `is_done` says, when
    the worker goes on, that there is nothing left to stop it for.
    """

    def __init__(
        self,
        link: Link,
        console: Console,
        *,
        worker: int,
        wait_s: float | None = None,
        hint: tuple[float, str] | None = None,
        when_armed: Callable[[], None] = lambda: None,
        answered: socket.socket | None = None,
        is_done: Callable[[], bool] = lambda: False,
    ) -> None:
        self._link = link
        self._console = console
        self._worker = worker
        self._wait_s = wait_s
        self._hint = hint
        self._when_armed = when_armed
        self._answered = answered
        self._is_answered = False
        self._is_done = is_done
        self._is_held = self._has_stopped = self._is_over = False
        self._alarms: list[tuple[float, Callable[[], None]]] = []
        self._completions = 0
        self.was_interrupted = False

    def run(self, command: str, **fields: Any) -> None:
        """Returns when the session is over; raises DebugError when it never got anywhere."""
        if (offer := getattr(self._console, "complete_with", None)) is not None:
            offer(self.complete)
        try:
            self._set_alarms()
            self._link.send(command, **fields)
            while not self._is_over:
                self._step()
        except (EOFError, KeyboardInterrupt) as end:
            self.was_interrupted = isinstance(end, KeyboardInterrupt)
            self._leave("detached: the request goes on" if self._is_held else "detached")

    def complete(self, line: str, begin: int, end: int) -> list[str]:
        """What line[begin:end] may become, asked while the agent waits at its prompt."""
        self._completions += 1
        wanted = {"id": self._completions}
        self._link.send("complete", line=line, begin=begin, end=end, **wanted)
        event = self._link.await_event("completions", COMPLETION_LIMIT_S, **wanted)
        return list(event["items"]) if event else []

    def _step(self) -> None:
        event = self._link.receive(self._limit_s(), self._answered)
        if event is None:
            self._on_silence()
        elif (act := getattr(self, f"_on_{event['event']}", None)) is not None:
            act(event)

    def _set_alarms(self) -> None:
        """What is to happen when the worker runs on and on."""
        now = time.monotonic()
        if self._is_answered:
            # After a stop the agent's last words may still be on their way; without one there are none.
            self._alarms = [(now + LAST_WORDS_S, self._detach) if self._has_stopped else (now, self._tell_no_stop)]
            return
        self._alarms = [] if self._wait_s is None else [(now + self._wait_s, self._give_up)]
        if self._hint is not None:
            self._alarms.append((now + self._hint[0], self._tell_hint))

    def _limit_s(self) -> float | None:
        return max(0.0, min(at for at, _ in self._alarms) - time.monotonic()) if self._alarms else None

    def _on_silence(self) -> None:
        if self._answered is not None and can_read(self._answered):
            self._answered, self._is_answered = None, True
            if not self._is_held:
                self._set_alarms()
        now = time.monotonic()
        due = [alarm for alarm in self._alarms if alarm[0] <= now]
        for alarm in due:
            self._alarms.remove(alarm)
            alarm[1]()

    def _tell_hint(self) -> None:
        if self._hint is not None:
            self._console.note(self._hint[1])
            self._hint = None

    def _tell_no_stop(self) -> None:
        self._leave(
            "the request was answered without a stop: it did not come to that place, or the condition was false"
        )

    def _give_up(self) -> None:
        if not self._has_stopped:
            self._detach()
            raise DebugError(f"worker {self._worker} did not stop within {self._wait_s:g} s")
        self._leave(f"detached: no further stop within {self._wait_s:g} s")

    def _leave(self, text: str) -> None:
        self._detach()
        self._console.note(text)

    def _detach(self) -> None:
        self._is_over = True
        self._link.send("detach")
        with suppress(KeyboardInterrupt):
            self._link.await_event("ended", DETACH_LIMIT_S)

    def _on_hello(self, event: Event) -> None:
        if event["protocol"] != PROTOCOL:
            raise DebugError(
                f"the worker's debugger speaks protocol {event['protocol']}, this one {PROTOCOL}: use the nbserve that"
                " the server runs"
            )

    def _on_armed(self, event: Event) -> None:
        self._console.note(f"worker {self._worker} will stop in {event['text']}")
        self._when_armed()

    def _on_refused(self, event: Event) -> None:
        self._is_over = True
        raise DebugError(event["text"])

    def _on_listening(self, event: Event) -> None:
        port = event["port"]
        self._console.note(f"debugpy listens at 127.0.0.1:{port} until you interrupt; then this worker is replaced")
        self._console.write(f"for VS Code's launch.json:\n{LAUNCH % port}\n")

    def _on_held(self, event: Event) -> None:
        self._is_held = self._has_stopped = True
        self._alarms, self._hint = [], None
        self._console.note(f"worker {self._worker} stopped in {where(event)}{_requests(event)}")

    def _on_out(self, event: Event) -> None:
        self._console.write(event["text"])

    def _on_note(self, event: Event) -> None:
        self._console.note(event["text"])

    def _on_prompt(self, event: Event) -> None:
        self._has_stopped = True
        self._alarms = []
        self._link.send("reply", text=self._console.read_line(event["text"]))

    def _on_resumed(self, event: Event) -> None:
        self._is_held = False
        self._set_alarms()
        if self._is_done():
            self._leave("detached: the commands are done")

    def _on_ended(self, event: Event) -> None:
        self._is_over = True
        if event.get("text"):
            self._console.note(event["text"])


def where(held: Event) -> str:
    """The place of a Held in words."""
    return f"{held['function']}, {held['file']}, line {held['line']}"


def _requests(held: Event) -> str:
    ids = held["request_ids"]
    return f", request{'s' * (len(ids) > 1)} {', '.join(ids)}" if ids else ""
