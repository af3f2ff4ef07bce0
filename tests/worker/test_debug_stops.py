"""Stops that no line of code asks for: armed ones, interrupts, the newest error, and the server's part in them."""

from __future__ import annotations

import contextlib
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

pytestmark = pytest.mark.process

WriteBundle = Callable[..., Path]
PLAIN = """
    import sys
    import nbserve.handler as nbserve

    class Inverse(nbserve.Handler):
        def preprocess(self, requests):
            values = list(requests)
            return values

        def inference(self, batch):
            doubled = []
            for value in batch:
                doubled.append(2 / value)
            return doubled

        def postprocess(self, outputs):
            return [[output, sys.gettrace() is None] for output in outputs]
"""
STUCK = """
    import threading
    import time
    import nbserve.handler as nbserve

    class Stuck(nbserve.Handler):
        def handle(self, requests, context):
            if requests[0] == "sleep":
                time.sleep(20)
            elif requests[0] == "lock":
                lock = threading.Lock()
                lock.acquire()
                lock.acquire()
            elif requests[0] == "loop":
                while True:
                    pass
            elif requests[0] == "event":
                threading.Event().wait()
            return requests
"""
TOKEN = b"\0application/json\0x-nbserve-debug:secret"


@pytest.fixture
def worker(nursery: Any, bundle: WriteBundle, agent_of: Any) -> Any:
    return nursery.start_ready(bundle(PLAIN), debug_socket=agent_of.path)


@pytest.fixture
def stuck(nursery: Any, bundle: WriteBundle, agent_of: Any) -> Any:
    return nursery.start_ready(bundle(STUCK), debug_socket=agent_of.path)


def armed(agent_of: Any, **values: Any) -> Any:
    client = agent_of.client()
    client.say("stop", **values)
    client.armed = client.event("armed")["text"]
    return client


def test_a_stop_at_a_method(worker: Any, agent_of: Any) -> None:
    client = armed(agent_of, at="inference")
    assert client.armed.startswith("inference (")
    worker.send(b"4")
    held = worker.hear("held")
    assert (held["reason"], held["function"], held["line"], held["wait_s"]) == ("stop", "inference", 11, None)
    assert "doubled = []" in client.prompt()
    assert client.reply("p batch") == "[4]\n"
    assert "for value in batch" in client.reply("n")
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, [0.5, True])
    assert client.event("ended")["text"] == "the request has been answered"
    worker.send(b"4")
    assert worker.answer() == (200, [0.5, True])


def test_a_stop_goes_on_from_its_condition(worker: Any, agent_of: Any) -> None:
    client = armed(agent_of, at="13", **{"if": "value > 5"})
    worker.send(b"1", b"2")
    assert worker.answer() == (200, [2.0, False])
    worker.send(b"4", b"8", b"9")
    client.prompt()
    assert client.reply("p value, doubled") == "(8, [0.5])\n"
    client.last_reply("q")
    assert worker.answer() == (200, [0.5, True])


def test_a_condition_that_raises_is_told_once(worker: Any, agent_of: Any) -> None:
    client = armed(agent_of, at="inference", **{"if": "nothing > 5"})
    for _ in range(2):
        worker.send(b"1", b"2")
        assert worker.answer()[0] == 200
    other = agent_of.client("another")
    assert other.hello["debugger"] == "a test"
    client.say("detach")
    client.event("ended")
    assert len(client.notes) == 1
    assert "NameError" in client.notes[0]


@pytest.mark.parametrize(
    ("wanted", "text"),
    [({"at": "inferenc"}, "inference"), ({"at": "1"}, "nearest"), ({"at": "inference", "if": "1 +"}, "no expression")],
)
def test_a_stop_that_cannot_be_is_refused(worker: Any, agent_of: Any, wanted: dict[str, Any], text: str) -> None:
    client = agent_of.client()
    client.say("stop", **wanted)
    assert text in client.event("refused")["text"]
    assert client.next() is None
    worker.send(b"1")
    assert worker.answer() == (200, [2.0, True])
    assert armed(agent_of)


def test_with_repeat_it_stops_again_and_keeps_breakpoints(worker: Any, agent_of: Any) -> None:
    client = armed(agent_of, at="preprocess", repeat=True)
    for _ in range(2):
        worker.send(b"4")
        client.prompt()
        client.last_reply("c", "resumed")
        assert worker.answer()[0] == 200
    worker.send(b"4")
    client.prompt()
    client.reply("b postprocess")
    assert "postprocess" in client.reply("c")
    client.last_reply("c", "resumed")
    assert worker.answer()[0] == 200
    worker.send(b"4")
    client.prompt()
    client.close()
    assert worker.answer() == (200, [0.5, True])


def test_a_token_stops_the_request_that_carries_it(worker: Any, agent_of: Any) -> None:
    client = armed(agent_of, token="secret")
    worker.send(b"4")
    assert worker.answer() == (200, [0.5, True])
    worker.send(b"8", meta=TOKEN)
    assert worker.hear("held")["function"] == "preprocess"
    assert "values = list" in client.prompt()
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, [0.25, True])
    client.event("ended")


def test_an_error_of_the_request_that_was_asked_for_gives_a_prompt_before_it_fails(worker: Any, agent_of: Any) -> None:
    client = armed(agent_of, token="secret")
    worker.send(b"0", meta=TOKEN)
    client.prompt()
    client.say("reply", text="c")
    assert client.event("resumed")
    held = client.event("held")
    assert (held["reason"], held["function"], held["line"]) == ("exception", "inference", 13)
    assert "ZeroDivisionError: division by zero" in client.prompt()
    assert client.reply("p value, doubled") == "(0, [])\n"
    assert client.reply("n") == "*** the handler has raised: c lets it fail\n"
    assert "preprocess" not in client.reply("w")
    client.last_reply("c", "resumed")
    status, answer = worker.answer()
    assert (status, answer["type"]) == (500, "HandlerFailed")
    client.event("ended")


@pytest.mark.parametrize("text", ["sleep", "lock", "loop", "event"])
def test_an_interrupt_prompts_at_once_and_fail_breaks_out(
    stuck: Any, agent_of: Any, wait_until: Any, text: str
) -> None:
    stuck.send(orjson.dumps(text))
    wait_until(lambda: "in handle" in _stack(agent_of), "the handler")
    client = agent_of.client()
    began = time.monotonic()
    client.say("interrupt")
    assert "handle()" in client.prompt()
    assert time.monotonic() - began < 1
    held = stuck.hear("held")
    assert (held["reason"], held["function"], held["request_ids"]) == ("interrupt", "handle", [100])
    assert client.reply("p requests[0]") == f"{text!r}\n"
    client.last_reply("fail it hangs", "resumed")
    status, answer = stuck.answer()
    assert (status, answer["message"], answer["type"]) == (500, "it hangs", "FailedInDebugger")
    client.event("ended")
    stuck.send(b"7")
    assert stuck.answer() == (200, 7)


def _stack(agent_of: Any) -> str:
    client = agent_of.client()
    client.say("stack")
    text: str = client.event("stack")["text"]
    client.close()
    return text


def _interrupted(stuck: Any, agent_of: Any, wait_until: Any) -> Any:
    """A debugger at the prompt of a handler that goes round and round."""
    stuck.send(b'"loop"')
    wait_until(lambda: "in handle" in _stack(agent_of), "the handler")
    client = agent_of.client()
    client.say("interrupt")
    client.prompt()
    return client


def test_one_can_step_on_from_an_interrupt(stuck: Any, agent_of: Any, wait_until: Any) -> None:
    client = _interrupted(stuck, agent_of, wait_until)
    client.reply("n")
    assert "handle()" in client.reply("n")
    client.close()
    stuck.hear("resumed")
    client = agent_of.client()
    client.say("interrupt")
    client.prompt()
    client.last_reply("fail", "resumed")
    assert stuck.answer()[0] == 500


def test_an_interrupt_waits_until_an_earlier_prompt_is_left(stuck: Any, agent_of: Any, wait_until: Any) -> None:
    """What is evaluated there may go on for a while after its debugger has gone."""
    client = _interrupted(stuck, agent_of, wait_until)
    slow = "try:\n time.sleep(20)\nexcept KeyboardInterrupt:\n time.sleep(0.5)"
    client.say("reply", text=f"!exec({slow!r})")
    wait_until(lambda: "<string>" in _stack(agent_of), "the evaluation")
    client.close()
    stuck.hear("resumed")
    client = agent_of.client()
    client.say("interrupt")
    held = client.event("held")
    assert held["function"] == "handle"
    client.prompt()
    assert "handle()" in client.reply("n")
    client.last_reply("fail", "resumed")
    assert stuck.answer()[0] == 500


def test_an_idle_worker_cannot_be_interrupted(worker: Any, agent_of: Any) -> None:
    client = agent_of.client()
    client.say("interrupt")
    assert client.event("refused")["text"] == "worker 0 is idle: no request is running"
    worker.send(b"1")
    assert worker.answer() == (200, [2.0, True])


def test_a_post_mortem_while_the_worker_goes_on(worker: Any, agent_of: Any) -> None:
    worker.send(b"1", b"0")
    worker.answer()
    client = agent_of.client()
    client.say("post_mortem")
    shown = client.prompt()
    assert "ZeroDivisionError: division by zero" in shown
    assert "request ab-65, " in shown
    assert "body: 0\n" in shown
    assert "live objects" in shown
    assert "doubled.append(2 / value)" in shown
    assert client.reply("p value, batch") == "(0, [0])\n"
    for _ in range(50):
        worker.send(b"4")
        assert worker.answer() == (200, [0.5, True])
    for command in ("n", "s", "c", "r", "fail"):
        assert "nothing runs here" in client.reply(command)
    assert "inference" in client.reply("w")
    assert "nbserve/worker" not in client.shown
    assert client.last_reply("q")["text"] == "the post-mortem is over"


def test_a_post_mortem_of_nothing(worker: Any, agent_of: Any) -> None:
    client = agent_of.client()
    client.say("post_mortem")
    assert "no request has failed" in client.event("refused")["text"]


def test_batches_that_the_server_took_back_are_not_run(worker: Any, agent_of: Any) -> None:
    client = armed(agent_of)
    worker.dropped = [2]
    worker.send(b"1")
    worker.send(b"2")
    worker.send(b"4")
    client.prompt()
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, [2.0, True])
    assert worker.answer() == (200, [0.5, True])


def test_stop_and_settings_that_came_during_a_hold_count(worker: Any, agent_of: Any, nursery: Any) -> None:
    client = armed(agent_of)
    worker.send(b"1")
    worker.tell("configure", isolate_errors=True, threads=1, hold_timeout_s=3.0)
    worker.tell("stop")
    client.prompt()
    client.last_reply("c", "resumed")
    assert worker.answer()[0] == 200
    assert nursery.exit_code(worker) == 0
    assert not Path(agent_of.path).exists()


def test_the_socket_is_its_owners_alone(worker: Any, agent_of: Any) -> None:
    path = Path(agent_of.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_second_debugger_is_told_who_has_it(worker: Any, agent_of: Any) -> None:
    first = armed(agent_of)
    worker.send(b"1")
    first.prompt()
    second = agent_of.client("another")
    second.say("attach")
    assert second.event("refused")["text"].startswith("worker 0 is being debugged by a test since ")
    assert "preprocess" in _stack(agent_of)
    assert first.reply("p values") == "*** NameError: name 'values' is not defined\n"
    first.last_reply("c", "resumed")
    assert worker.answer()[0] == 200


def test_who_says_nonsense_is_refused(worker: Any, agent_of: Any) -> None:
    client = agent_of.client()
    client.say("dance")
    assert "'dance'" in client.event("refused")["text"]
    client = agent_of.client()
    client._socket.sendall(b"[1]\n")
    assert client.next() is None
    worker.send(b"1")
    assert worker.answer()[0] == 200


def test_debuggers_that_come_and_go_at_any_moment_leave_the_worker_as_it_was(worker: Any, agent_of: Any) -> None:
    chance = random.Random(3)
    for number in range(200):
        client = agent_of.client(f"number {number}")
        verb = chance.choice(["attach", "interrupt", "stop", "stop", "stop", "post_mortem", "stack"])
        if chance.random() < 0.3:
            worker.send(b"1", b"0", b"4")
        # It may be refused while it still speaks.
        with contextlib.suppress(ConnectionError):
            client.say(verb, repeat=chance.random() < 0.3)
            for line in chance.sample(["b 13", "b postprocess", "c", "n", "s", "r", "p 1", "q", "fail", "w"], 4):
                client.say("reply", text=line)
            if verb in ("stop", "stack") and chance.random() < 0.8:
                client.read_something()
        worker.send(b"1", b"2", b"4")
        if chance.random() < 0.3:
            assert _stack(agent_of)
        client.close()
        while worker.answers < worker.sent:
            assert worker.answer()[0] in (200, 500)
    worker.send(b"1", b"2", b"4")
    assert worker.answer() == (200, [2.0, True])
    client = armed(agent_of, at="inference")
    worker.send(b"8")
    client.prompt()
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, [0.25, True])
