"""Debugging from outside: what is asked, said and shown, against an agent that follows a script on a real socket."""

from __future__ import annotations

import base64
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nbserve.debugging import DebugOptions, debug, ways
from nbserve.debugging import session as session_module
from nbserve.debugging.link import Link
from nbserve.debugwire import PROTOCOL
from nbserve.errors import DebugError, Unavailable
from tests.debugging.scripted import HELD, PLACE, Agent, Endpoint, Person


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
