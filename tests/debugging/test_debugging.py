"""Debugging from outside: what is asked, said and shown, against an agent that follows a script on a real socket."""

from __future__ import annotations

import argparse
import base64
import io
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from nbserve.debugging import DebugOptions, debug, split_commands, ways
from nbserve.debugging import session as session_module
from nbserve.debugging.console import Completer, Script, Silent
from nbserve.debugging.link import Link
from nbserve.debugwire import PROTOCOL, LineReader, address, encode
from nbserve.errors import DebugError, NbserveError, Unavailable
from nbserve.options import add_debug_options, debug_options_of

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


@pytest.fixture
def agent(tmp_path: Path) -> Callable[..., Any]:
    """An agent with a script, and an endpoint that leads to it."""

    @contextmanager
    def make(script: Callable[[Agent], None], **place: Any) -> Iterator[Endpoint]:
        with Agent(tmp_path / "w0-1.sock", script) as found:
            yield Endpoint({**PLACE, "socket": found.path, **place})

    return make


def held_then_prompt(agent: Agent) -> None:
    agent.expect("attach")
    agent.say("held", **HELD)
    agent.say("out", text="> cell 3(12)preprocess()\n")
    assert agent.prompt() == "p x"
    agent.say("out", text="3\n")
    assert agent.prompt() == "c"
    agent.say("resumed")
    agent.say("ended", text="request ab-1 was answered")


def test_a_session_of_commands_reads_like_one_that_was_typed(agent):
    with agent(held_then_prompt) as endpoint:
        text = debug(endpoint, DebugOptions(commands=["p x", "c"]))
    assert text == (
        "-- worker 0 stopped in preprocess, cell 3, line 12, request ab-1\n"
        "> cell 3(12)preprocess()\n(Pdb) p x\n3\n(Pdb) c\n-- request ab-1 was answered\n"
    )
    assert endpoint.server.asked == [("/endpoints/digits/debug", {"mode": "attach", "worker": None})]


def test_a_person_at_a_console_gets_the_same(agent):
    person = Person("p x", "c")
    with agent(held_then_prompt) as endpoint:
        text = debug(endpoint, DebugOptions(), person)
    assert "(Pdb) p x\n3\n" in text
    assert person.notes[-1] == "request ab-1 was answered"


def test_without_a_console_it_is_the_terminal(agent, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("p x\nc\n"))
    with agent(held_then_prompt) as endpoint:
        debug(endpoint, DebugOptions())
    shown = capsys.readouterr().out
    assert shown.startswith("-- worker 0 stopped in preprocess, cell 3, line 12, request ab-1\n> cell 3(12)")
    assert shown.endswith("(Pdb) -- request ab-1 was answered\n")


def test_the_end_of_a_terminals_input_detaches(agent, monkeypatch, capsys):
    def script(agent: Agent) -> None:
        agent.expect("attach")
        agent.say("held", **HELD)
        agent.say("prompt", text="(Pdb) ")
        agent.expect("detach")

    monkeypatch.setattr("sys.stdin", io.StringIO())
    with agent(script) as endpoint:
        debug(endpoint, DebugOptions())
    assert capsys.readouterr().out.endswith("(Pdb) \n-- detached: the request goes on\n")


def test_the_agent_is_told_who_it_is(agent):
    names = []

    def script(agent: Agent) -> None:
        names.append(agent.who)
        agent.expect("attach")
        agent.say("ended", text="")

    with agent(script) as endpoint:
        debug(endpoint, DebugOptions(who="kernel 7 (a.ipynb)", commands=[]))
    assert names == ["kernel 7 (a.ipynb)"]


@pytest.mark.parametrize("exception", [EOFError, KeyboardInterrupt])
def test_leaving_at_the_prompt_detaches(agent, exception):
    def script(agent: Agent) -> None:
        agent.expect("attach")
        agent.say("held", **HELD)
        agent.say("prompt", text="(Pdb) ")
        agent.expect("detach")
        agent.say("ended", text="")
        agent.expect_hangup()

    person = Person(exception)
    with agent(script) as endpoint:
        debug(endpoint, DebugOptions(), person)
    assert person.notes[-1] == "detached: the request goes on"


def test_an_interrupt_while_the_worker_runs_detaches_at_once(agent):
    def script(agent: Agent) -> None:
        agent.expect("stop")
        agent.say("armed", text="stops at preprocess")
        agent.say("note", text="go")
        os.kill(os.getpid(), signal.SIGINT)
        agent.expect("detach")
        agent.say("ended", text="")

    with agent(script) as endpoint:
        text = debug(endpoint, DebugOptions(at="preprocess"), Person())
    assert text.endswith("-- detached\n")


def test_commands_that_run_out_detach(agent):
    def script(agent: Agent) -> None:
        agent.expect("attach")
        agent.say("held", **HELD)
        agent.prompt()
        agent.say("prompt", text="(Pdb) ")
        agent.expect("detach")
        agent.say("ended", text="")

    with agent(script) as endpoint:
        text = debug(endpoint, DebugOptions(commands=["p 1"]))
    assert text.endswith("(Pdb) p 1\n-- detached: the request goes on\n")


def test_commands_that_repeat_leave_when_the_last_one_let_the_worker_go(agent):
    def script(agent: Agent) -> None:
        assert agent.expect("stop")["repeat"] is True
        for _ in range(2):
            agent.say("held", **HELD)
            assert agent.prompt() == "c"
            agent.say("resumed")
        agent.expect("detach")

    with agent(script) as endpoint:
        text = debug(endpoint, DebugOptions(at="12", repeat=True, commands=["c", "c"]))
    assert text.endswith("-- detached: the commands are done\n")


def test_a_worker_that_dies_ends_the_session(agent):
    def script(agent: Agent) -> None:
        agent.expect("attach")
        agent.say("held", **HELD)
        agent.prompt()

    with agent(script) as endpoint:
        assert debug(endpoint, DebugOptions(commands=["n", "n"])).endswith("-- the worker has hung up\n")


def test_an_agent_that_talks_nonsense_ends_the_session(agent):
    def script(agent: Agent) -> None:
        agent.expect("attach")
        agent._peer.sendall(b"[1]\n")

    with agent(script) as endpoint:
        assert "what nobody understands" in debug(endpoint, DebugOptions(commands=["n"]))


def test_a_refusal_is_an_error_with_the_agents_words(agent):
    def script(agent: Agent) -> None:
        agent.expect("attach")
        agent.say("refused", text="worker 0 is being debugged by kernel 7 since 12:00:00")

    with agent(script) as endpoint, pytest.raises(DebugError, match="by kernel 7 since"):
        debug(endpoint, DebugOptions(commands=["p 1"]))


def test_another_protocol_is_refused(agent):
    def script(agent: Agent) -> None:
        agent.expect("attach")
        agent.say("hello", protocol=PROTOCOL + 1, worker=0, pid=1, held=None, debugger=None)

    with agent(script) as endpoint, pytest.raises(DebugError, match="use the nbserve that the server runs"):
        debug(endpoint, DebugOptions(commands=[]))


def test_a_socket_without_an_agent_is_told(tmp_path):
    endpoint = Endpoint({**PLACE, "socket": str(tmp_path / "none.sock")})
    with pytest.raises(DebugError, match=r"does not answer at .*none\.sock"):
        debug(endpoint, DebugOptions(commands=[]))


def test_long_paths_are_reached(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with (
        Agent(folder / "w0-1.sock", lambda agent: agent.say("ended", text="")) as found,
        Link(found.path, "me") as link,
    ):
        assert link.receive(5) == {"event": "ended", "text": ""}


def test_with_nobody_held_it_waits_for_a_hold_without_a_debugger(agent):
    with agent(held_then_prompt, worker=None) as endpoint:
        free = {**PLACE, **HELD, "socket": endpoint.server.place["socket"]}
        endpoint._holds = [[], [{**free, "worker": 1, "debugger": "someone", "socket": "elsewhere"}], [free]]
        text = debug(endpoint, DebugOptions(commands=["p x", "c"]))
    assert text.startswith(
        "-- no worker of digits is held; waiting for 60 s for a breakpoint() in it\n-- other ways in: --at"
    )


@pytest.mark.parametrize(
    ("options", "said"), [({"wait_s": 0.5}, "within 0.5 s; other ways in: --at"), ({}, "digits was stopped")]
)
def test_a_wait_in_vain_says_what_else_there_is(options, said):
    with pytest.raises(DebugError, match=said):
        debug(Endpoint({**PLACE, "worker": None}), DebugOptions(**options), Person())


def test_an_interrupt_while_waiting_leaves():
    endpoint = Endpoint({**PLACE, "worker": None})

    def interrupted(limit_s: float | None) -> Iterator[list[dict[str, Any]]]:
        raise KeyboardInterrupt
        yield []

    endpoint.holds = interrupted  # type: ignore[method-assign]
    assert debug(endpoint, DebugOptions(), Person()).endswith("-- left\n")


def test_a_request_is_sent_once_the_stop_is_armed_and_its_answer_shown(agent):
    tokens = []

    def script(agent: Agent) -> None:
        stop = agent.expect("stop")
        tokens.append(stop["token"])
        assert (stop["at"], stop["if"]) == ("inference", "x > 2")
        assert not endpoint.server.sent
        endpoint.server.may_answer.clear()
        agent.say("armed", text="stops at inference")
        agent.say("held", **HELD)
        assert agent.prompt() == "c"
        agent.say("resumed")
        endpoint.server.may_answer.set()
        agent.say("ended", text="")

    with agent(script) as endpoint:
        text = debug(endpoint, DebugOptions(at="inference", condition="x > 2", request=b"[1]", commands=["c"]))
    assert text.endswith("(Pdb) c\n-- the answer: 200 [3]\n")
    assert endpoint.server.sent == {
        "path": "/endpoints/digits/workers/0/request",
        "body": b"[1]",
        "Content-Type": "application/json",
        "X-Nbserve-Debug": tokens[0],
    }


def test_a_request_that_is_answered_without_a_stop_ends_the_session(agent):
    def script(agent: Agent) -> None:
        agent.expect("stop")
        agent.say("armed", text="inference (cell 3, line 9)")
        agent.expect("detach")

    with agent(script) as endpoint:
        endpoint.server.answer = {"status": 500, "content_type": "image/png", "body": base64.b64encode(b"abc").decode()}
        text = debug(endpoint, DebugOptions(request=b"1"), Person())
    assert text.startswith("-- worker 0 will stop in inference (cell 3, line 9)\n-- the request was answered without")
    assert text.endswith("-- the answer: 500, 3 bytes of image/png\n")


def test_a_session_whose_request_is_answered_waits_for_the_agents_last_words_only_so_long(agent, monkeypatch):
    monkeypatch.setattr(session_module, "LAST_WORDS_S", 0.05)

    def script(agent: Agent) -> None:
        agent.expect("stop")
        agent.say("armed", text="inference")
        agent.say("held", **HELD)
        assert agent.prompt() == "c"
        agent.say("resumed")
        agent.expect("detach")

    with agent(script) as endpoint:
        text = debug(endpoint, DebugOptions(request=b"1", commands=["c"]))
    assert text.endswith("(Pdb) c\n-- the answer: 200 [3]\n")


def test_a_request_that_fails_is_told_and_leaving_waits_for_its_answer(agent):
    def script(agent: Agent) -> None:
        endpoint.server.may_answer.clear()
        agent.expect("stop")
        agent.say("armed", text="stops")
        agent.say("held", **HELD)
        agent.say("prompt", text="(Pdb) ")
        agent.expect("detach")
        agent.say("ended", text="")
        agent.expect_hangup()
        endpoint.server.may_answer.set()

    with agent(script) as endpoint:
        endpoint.server.answer = Unavailable("the endpoint was stopped")
        text = debug(endpoint, DebugOptions(request=b"1"), Person(EOFError))
    assert text.endswith("-- detached: the request goes on\n-- no answer: the endpoint was stopped\n")


def test_nothing_is_waited_for_when_nothing_was_sent(agent):
    def script(agent: Agent) -> None:
        agent.expect("stop")
        agent.say("refused", text="line 99 has no code; 12 is the nearest that has")

    with agent(script) as endpoint, pytest.raises(DebugError, match="12 is the nearest"):
        debug(endpoint, DebugOptions(at="99", request=b"1", commands=["c"]))
    assert not endpoint.server.sent


def test_a_replay_says_what_failed_and_runs_it_on_its_worker(agent):
    def script(agent: Agent) -> None:
        assert agent.expect("stop")["at"] is None
        agent.say("armed", text="stops in the request")
        agent.say("ended", text="")

    failure = {"request_id": "ab-7", "error": "ValueError: bad", "content_type": "text/plain", "body_bytes": 3}
    with agent(script, worker=4, failure=failure) as endpoint:
        text = debug(endpoint, DebugOptions(replay=True, commands=["c"]))
    assert "-- replaying request ab-7, which failed: ValueError: bad\n" in text
    assert endpoint.server.sent["path"] == "/endpoints/digits/workers/4/request?replay=1"


def test_a_post_mortem_is_a_prompt(agent):
    def script(agent: Agent) -> None:
        agent.expect("post_mortem")
        assert agent.prompt() == "p x"
        agent.say("ended", text="")

    with agent(script) as endpoint:
        assert "(Pdb) p x\n" in debug(endpoint, DebugOptions(last_error=True, commands=["p x"]))
    assert endpoint.server.asked[0][1]["mode"] == "post_mortem"


def test_an_interrupt_shows_the_stack_and_prompts(agent):
    def script(agent: Agent) -> None:
        agent.expect("stack")
        agent.say("hello", protocol=PROTOCOL, worker=0, pid=1, held=None, debugger=None)
        agent.say("stack", text="cell 3, line 5")
        agent.expect("interrupt")
        agent.say("held", **{**HELD, "reason": "interrupt"})
        assert agent.prompt() == "fail too slow"
        agent.say("ended", text="request ab-1 was failed")

    with agent(script) as endpoint:
        text = debug(endpoint, DebugOptions(interrupt=True, commands=["fail too slow"]))
    assert text.startswith("cell 3, line 5\n-- worker 0 stopped")


def test_a_worker_whose_c_code_holds_the_gil_is_seen_from_outside(agent, monkeypatch):
    monkeypatch.setattr(ways, "STACK_LIMIT_S", 0.05)
    monkeypatch.setattr(ways, "HINT_AFTER_S", 0.05)

    def script(agent: Agent) -> None:
        agent.expect("stack")
        agent.expect("interrupt")
        agent.expect("detach")

    with agent(script) as endpoint:
        debug(endpoint, DebugOptions(interrupt=True, wait_s=0.3), person := Person())
    assert endpoint.server.asked[1][0] == "/endpoints/digits/workers/0/stack"
    assert person.notes == [
        "worker 0 itself does not answer: C code holds its GIL",
        ways.NO_PROMPT,
        "worker 0 did not stop within 0.3 s",
    ]


def test_debugpy_says_where_and_how_to_connect(agent):
    def script(agent: Agent) -> None:
        assert agent.expect("debugpy")["port"] == 0
        agent.say("listening", port=5678)
        agent.say("ended", text="the editor has left")

    with agent(script, standin=True) as endpoint:
        text = debug(endpoint, DebugOptions(port=0), Person())
    assert "-- a stand-in serves meanwhile" in text
    assert '"connect": {"host": "127.0.0.1", "port": 5678}' in text


def test_tab_is_answered_while_the_prompt_waits(agent):
    class Typist(Person):
        def read_line(self, prompt: str) -> str:
            assert self.completer is not None
            self.found = self.completer("p x.sh", 2, 6)
            return super().read_line(prompt)

    def script(agent: Agent) -> None:
        agent.expect("attach")
        agent.say("prompt", text="(Pdb) ")
        asked = agent.expect("complete")
        assert (asked["line"], asked["begin"], asked["end"]) == ("p x.sh", 2, 6)
        agent.say("note", text="meanwhile")
        agent.say("completions", id=asked["id"], items=["x.shape"])
        assert agent.expect("reply")["text"] == "p x.shape"
        agent.say("ended", text="")

    with agent(script) as endpoint:
        debug(endpoint, DebugOptions(), typist := Typist("p x.shape"))
    assert typist.found == ["x.shape"]
    assert "meanwhile" in typist.notes


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("p x; w; c", ["p x", "w", "c"]),
        ("p x;; w\nc", ["p x", "w", "c"]),
        ("p 'a;b'; p \"c;'d\"", ["p 'a;b'", 'p "c;\'d"']),
        (r"p 'it\'s; so'; c", [r"p 'it\'s; so'", "c"]),
        ("p f(1,\n 2); p {1: ';'}", ["p f(1,\n 2)", "p {1: ';'}"]),
        ('p """a;\n"b";"""; c', ['p """a;\n"b";"""', "c"]),
        ("p x); c", ["p x)", "c"]),
        ("fail don't; c", ["fail don't; c"]),
        (" ; ", []),
    ],
)
def test_commands_are_cut_where_no_quote_or_bracket_is_open(text, commands):
    assert split_commands(text) == commands


def test_an_open_statement_of_a_script_is_ended():
    script = Script(Silent(), ["for x in xs: print(x)", "def f():\n    return 1", "c"])
    lines = [script.read_line(prompt) for prompt in ("(Pdb) ", "... ", "(Pdb) ", "... ", "... ", "(Pdb) ")]
    assert lines == ["for x in xs: print(x)", "", "def f():", "    return 1", "", "c"]
    assert script.is_spent()
    with pytest.raises(EOFError):
        script.read_line("(Pdb) ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"last_error": True, "at": "inference"}, "--last-error and --at do not go together"),
        ({"replay": True, "request": b"1"}, "--replay and --request"),
        ({"replay": True, "worker": 0}, "--replay and --worker"),
        ({"interrupt": True, "condition": "x"}, "--interrupt and --if"),
        ({"interrupt": True, "replay": True}, "--replay and --interrupt"),
        ({"port": 0, "commands": ("c",)}, "--port and --commands"),
        ({"last_error": True, "wait_s": 3}, "--last-error and --wait"),
        ({"condition": "x"}, "give --at too"),
        ({"content_type": "text/plain"}, "there is none"),
        ({"repeat": True, "request": b"1"}, "--repeat and --request"),
    ],
)
def test_options_that_do_not_go_together_are_told_at_once(options, said):
    with pytest.raises(DebugError, match=said):
        DebugOptions(**options)


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({}, "attach"),
        ({"worker": 0, "repeat": True}, "attach"),
        ({"at": "12", "condition": "x"}, "stop"),
        ({"request": b""}, "stop"),
        ({"replay": True, "at": "12"}, "replay"),
        ({"last_error": True, "worker": 1, "who": "me"}, "last_error"),
        ({"interrupt": True, "wait_s": 1}, "interrupt"),
        ({"port": 0}, "port"),
    ],
)
def test_the_options_say_which_way(options, way):
    assert DebugOptions(**options).way == way


def test_the_options_of_the_command_line_are_those_of_python(tmp_path):
    parser = argparse.ArgumentParser()
    add_debug_options(parser)
    assert debug_options_of(parser.parse_args([])) == DebugOptions()
    words = [
        "--at",
        "12",
        "--if",
        "x > 1",
        "--request",
        "[1]",
        "--worker",
        "1",
        "--commands",
        "p x; c",
        "--wait",
        "2.5",
    ]
    assert debug_options_of(parser.parse_args(words)) == DebugOptions(
        at="12",
        condition="x > 1",
        request=b"[1]",
        content_type="application/json",
        worker=1,
        commands=["p x", "c"],
        wait_s=2.5,
    )
    (tmp_path / "digit.png").write_bytes(b"png")
    found = debug_options_of(parser.parse_args(["--request", f"@{tmp_path / 'digit.png'}"]))
    assert (found.request, found.content_type) == (b"png", "application/octet-stream")
    with pytest.raises(NbserveError, match=r"cannot read .*none"):
        debug_options_of(parser.parse_args(["--request", f"@{tmp_path / 'none'}"]))


def test_only_scripts_have_a_limit_by_themselves():
    assert DebugOptions().limit_s is None
    assert DebugOptions(commands=["c"]).limit_s == 60
    assert DebugOptions(commands=["c"], wait_s=5).limit_s == 5
