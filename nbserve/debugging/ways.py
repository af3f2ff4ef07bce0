"""The ways into a live worker: ask the server which one, connect to its agent, and talk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbserve.debugging.console import Console, Script, Silent, Transcript
from nbserve.debugging.link import Link
from nbserve.debugging.options import DebugOptions
from nbserve.debugging.request import DrivenRequest
from nbserve.debugging.session import Session
from nbserve.debugging.terminal import TerminalConsole
from nbserve.errors import DebugError

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint

STACK_LIMIT_S = 1.0
HINT_AFTER_S = 2.0
# Who interrupts wants to leave: an answer that is there by then is shown all the same.
ANSWER_LIMIT_S = 0.5

OTHER_WAYS = "--at METHOD or LINE, --request JSON, --last-error, --replay, --interrupt"
NO_PROMPT = (
    "no prompt yet: it comes when the C code returns to Python. Interrupt to leave; a worker that never comes back is"
    " replaced after response_timeout_s"
)


def debug(endpoint: Endpoint, options: DebugOptions, console: Console | None = None) -> str:
    """Debug a worker of the endpoint until one side ends it; gives what was shown.

    Without a console, `commands` run silently and people get the terminal. Raises DebugError, NotFound or Conflict.
    """
    if console is None:
        console = TerminalConsole() if options.commands is None else Silent()
    script = None if options.commands is None else Script(console, options.commands)
    shown = Transcript(script or console)
    debugging = Debugging(endpoint, options, shown, script)
    try:
        getattr(debugging, options.way)()
    except KeyboardInterrupt:
        shown.note("left")
    return shown.text


@dataclass(frozen=True)
class Debugging:
    """The ways in; each is a method that returns when its session is over."""

    endpoint: Endpoint
    options: DebugOptions
    console: Console
    script: Script | None = None

    def attach(self) -> None:
        """Take the worker that is held, or wait for one that will be."""
        place = self._ask("attach")
        if place["worker"] is None or place["held"] is None:
            place = self._wait_for_a_hold()
        with self._link(place) as link:
            self._session(link, place).run("attach", repeat=self.options.repeat)

    def stop(self) -> None:
        """Stop at the next call that matches, in a request of our own when there is one."""
        place = self._ask("stop")
        if self.options.request is None:
            with self._link(place) as link:
                self._session(link, place).run("stop", **self._target())
            return
        kind = self.options.content_type or "application/json"
        self._drive(place, DrivenRequest(self.endpoint, place["worker"], self.options.request, kind))

    def replay(self) -> None:
        """Run the newest failing request again, on a worker of its own."""
        self.console.note("starting a worker for the replay")
        place = self._ask("replay")
        failure = place["failure"]
        self.console.note(f"replaying request {failure['request_id']}, which failed: {failure['error']}")
        self._drive(place, DrivenRequest(self.endpoint, place["worker"], is_replay=True))

    def last_error(self) -> None:
        place = self._ask("post_mortem")
        with self._link(place) as link:
            self._session(link, place).run("post_mortem")

    def interrupt(self) -> None:
        """Show where a worker is, even one that cannot answer, then prompt there."""
        place = self._ask("interrupt")
        with self._link(place) as link:
            link.send("stack")
            event = link.await_event("stack", STACK_LIMIT_S)
            if event is None:
                self._show_stack_from_outside(place["worker"])
            else:
                self.console.write(_as_lines(event["text"]))
            # An agent that answers tells by itself when the prompt is late.
            session = self._session(link, place, hint=(HINT_AFTER_S, NO_PROMPT) if event is None else None)
            try:
                session.run("interrupt")
            except DebugError as error:
                # The stack has been shown, and that is the better part.
                self.console.note(str(error))

    def port(self) -> None:
        """Start debugpy in a worker and stay until the editor or the person leaves."""
        place = self._ask("debugpy")
        with self._link(place) as link:
            self._session(link, place).run("debugpy", port=self.options.port)

    def _ask(self, mode: str) -> dict[str, Any]:
        """Which worker; makes the server bring up a stand-in or a replay worker where that is needed."""
        wish = {"mode": mode, "worker": self.options.worker}
        place: dict[str, Any] = self.endpoint.server.call("POST", f"{self.endpoint.path}/debug", wish)
        if place.get("standin"):
            self.console.note(f"a stand-in serves meanwhile: worker {place['worker']} was the only one")
        return place

    def _wait_for_a_hold(self) -> dict[str, Any]:
        name, limit_s = self.endpoint.name, self.options.limit_s
        until = "until you interrupt" if limit_s is None else f"for {limit_s:g} s"
        self.console.note(f"no worker of {name} is held; waiting {until} for a breakpoint() in it")
        self.console.note(f"other ways in: {OTHER_WAYS}")
        try:
            for held in self.endpoint.holds(limit_s):
                for place in held:
                    if place["debugger"] is None and self.options.worker in (None, place["worker"]):
                        return place
        except TimeoutError:
            raise DebugError(
                f"no worker of {name} was held within {limit_s:g} s; other ways in: {OTHER_WAYS}"
            ) from None
        raise DebugError(f"the endpoint {name} was stopped")

    def _drive(self, place: Mapping[str, Any], request: DrivenRequest) -> None:
        """A session about one request, sent once the stop is armed; at the end its answer is shown."""
        with request:
            with self._link(place) as link:
                session = self._session(link, place, when_armed=request.start, answered=request.answered)
                session.run("stop", token=request.token, **self._target())
            if request.is_sent:
                self.console.note(request.wait(ANSWER_LIMIT_S if session.was_interrupted else None))

    def _target(self) -> dict[str, Any]:
        return {"at": self.options.at, "if": self.options.condition, "repeat": self.options.repeat}

    def _link(self, place: Mapping[str, Any]) -> Link:
        return Link(place["socket"], self.options.who or f"process {os.getpid()}")

    def _session(self, link: Link, place: Mapping[str, Any], **settings: Any) -> Session:
        if self.script is not None and self.options.repeat:
            settings["is_done"] = self.script.is_spent
        return Session(link, self.console, worker=place["worker"], wait_s=self.options.limit_s, **settings)

    def _show_stack_from_outside(self, worker: int) -> None:
        found = self.endpoint.server.call("POST", f"{self.endpoint.path}/workers/{worker}/stack")
        self.console.write(_as_lines(found["text"]))
        self.console.note(f"worker {worker} itself does not answer: C code holds its GIL")


def _as_lines(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"
