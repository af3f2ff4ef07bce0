"""What people type and print that would break a lesser debugger, and what must not be left of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbserve.worker.debug.link import SEND_CHARACTERS, SHOWN_CHARACTERS

pytestmark = pytest.mark.process

WriteBundle = Callable[..., Path]
SOURCE = """
    import sys
    import weakref
    import nbserve.handler as nbserve

    class Big(list):
        pass

    class Odd(nbserve.Handler):
        def initialize(self, context):
            self.seen = []

        def preprocess(self, requests):
            if requests[0] == "alive":
                return [sum(ref() is not None for ref in self.seen)]
            big = Big(requests)
            self.seen.append(weakref.ref(big))
            breakpoint()
            if requests[0] == "raise":
                raise ValueError("no")
            return big

        def inference(self, batch):
            return batch

        def postprocess(self, outputs):
            for number in range(3):
                continue
            return list(outputs)
"""
TRACED = """
    import sys
    import nbserve.handler as nbserve

    def tracer(frame, event, arg):
        return None

    class Traced(nbserve.Handler):
        def initialize(self, context):
            sys.settrace(tracer)

        def handle(self, requests, context):
            was_traced = sys.gettrace() is tracer
            breakpoint()
            return [was_traced]
"""
FOREVER = "(print('goes on', file=sys.stderr) or sum(0 for _ in iter(int, 1)))"


@pytest.fixture
def worker(nursery: Any, bundle: WriteBundle, agent_of: Any) -> Any:
    return nursery.start_ready(bundle(SOURCE), debug_socket=agent_of.path)


@pytest.fixture
def client(worker: Any, agent_of: Any) -> Any:
    """A debugger at the prompt of a breakpoint()."""
    worker.send(b"1")
    worker.hear("held")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    return client


def alive(worker: Any) -> int:
    """How many batches of earlier requests are still in memory, without help from the garbage collector."""
    worker.send(b'"alive"')
    count: int = worker.answer()[1]
    return count


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("!raise SystemExit(3)", "*** SystemExit: 3\n"),
        ("!raise KeyboardInterrupt", "*** KeyboardInterrupt\n"),
        ("!raise GeneratorExit", "*** GeneratorExit\n"),
        ("p exit()", "*** SystemExit: None\n"),
        ("display exit()", "** raised SystemExit"),
        ("debug exit()\nc", "*** SystemExit: None\n"),
        ("!print('\\ud800')", "?\n"),
        ("!raise ValueError('\\ud800')", "*** ValueError: ?\n"),
        ("p 'é', chr(0x1F600)", "('é', '\N{GRINNING FACE}')\n"),
        ("jump 3", "*** Jump failed"),
        ("!del big\np big", "*** NameError: name 'big' is not defined\n"),
        ("interact\nimport sys; sys.exit(3)\nexit()", "SystemExit: 3\n"),
        ("p self.preprocess([5])", "[5]\n"),
        ("p self.context.requests", "<requests: ab-64 application/json>\n"),
    ],
)
def test_a_command_that_breaks_breaks_nothing_else(worker: Any, client: Any, typed: str, shown: str) -> None:
    assert shown in "".join(client.reply(line) for line in typed.split("\n"))
    assert client.reply("!big = [2]") == ""
    client.last_reply("c", "ended")
    assert worker.answer() == (200, 2)


def test_a_prompt_may_be_no_unicode(worker: Any, client: Any) -> None:
    client.reply("!print('\\ud800', end='')")
    assert client.last_prompt == "?(Pdb) "
    client.last_reply("c")
    assert worker.answer() == (200, 1)


def test_what_is_too_long_to_look_at_is_cut(worker: Any, client: Any) -> None:
    client.say("reply", text="p list(range(10**6))")
    events = iter(client.next, None)
    texts = [event["text"] for event in iter(lambda: next(events), {"event": "prompt", "text": "(Pdb) "})]
    assert max(map(len, texts)) <= SEND_CHARACTERS
    shown = "".join(texts)
    assert len(shown) < SHOWN_CHARACTERS + 100
    assert shown.endswith("... (7,888,890 characters)\n")
    assert client.reply(f"p len('{'x' * 2**20}')") == f"{2**20}\n"
    client.last_reply("c")
    assert worker.answer() == (200, 1)


@pytest.mark.parametrize(
    "typed",
    [
        "n",
        "display big\nn\nn",
        "interact\nbig\n1/0\nexit()",
        "debug len(big)\ns\nc",
        "b 29\nc",
        "up\n!also = big\n!1/0",
    ],
)
def test_no_batch_outlives_its_session(worker: Any, client: Any, typed: str) -> None:
    for line in typed.split("\n"):
        client.reply(line)
    client.last_reply("c", "ended")
    assert worker.answer()[0] == 200
    assert alive(worker) == 0


def test_no_batch_outlives_its_stop(worker: Any, agent_of: Any) -> None:
    worker.tell("breakpoints", on=False)
    client = agent_of.client()
    client.say("stop", at="postprocess", repeat=True)
    client.event("armed")
    worker.send(b"1")
    client.prompt()
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 1)
    worker.send(b'"alive"')
    client.prompt()
    assert client.reply("p outputs") == "[0]\n"
    client.last_reply("fail", "resumed")
    assert worker.answer()[0] == 500
    client.close()
    assert alive(worker) == 0


def test_only_the_batch_of_the_newest_error_is_kept(worker: Any, agent_of: Any) -> None:
    worker.tell("breakpoints", on=False)
    for _ in range(2):
        worker.send(b'"raise"')
        assert worker.answer()[0] == 500
    assert alive(worker) == 1
    client = agent_of.client()
    client.say("post_mortem")
    client.prompt()
    assert client.reply("p big") == "['raise']\n"
    client.last_reply("q")
    worker.send(b'"raise"')
    assert worker.answer()[0] == 500
    assert alive(worker) == 1


@pytest.mark.parametrize(
    "typed",
    [
        f"!import sys; {FOREVER}",
        f"!import sys\ndisplay len(self.seen) > 1 and {FOREVER}\n!self.seen *= 2\nn",
        f"!import sys\nb 29, {FOREVER}\nc",
        f"!import sys\ninteract\n{FOREVER}",
        "!import sys\nalias x x\n!print('goes on', file=sys.stderr)\nx",
    ],
)
def test_what_never_ends_ends_with_its_debugger(worker: Any, client: Any, typed: str) -> None:
    *lines, last = typed.split("\n")
    for line in lines:
        client.reply(line)
    client.say("reply", text=last)
    worker.wait_for_log("goes on")
    client.close()
    assert worker.answer() == (200, 1)


def test_a_condition_that_never_ends_ends_with_its_debugger(worker: Any, agent_of: Any) -> None:
    worker.tell("breakpoints", on=False)
    client = agent_of.client()
    client.say("stop", **{"at": "preprocess", "if": FOREVER})
    client.event("armed")
    worker.send(b"1")
    worker.wait_for_log("goes on")
    client.close()
    assert worker.answer() == (200, 1)


@pytest.mark.parametrize("last", ["!while True: pass", "x", "interact\nwhile True: pass\n"])
def test_a_debugger_that_leaves_right_after_its_line(worker: Any, client: Any, last: str) -> None:
    client.reply("alias x x")
    client.say("reply", text=last)
    client.close()
    assert worker.answer() == (200, 1)


def test_a_worker_that_dies_at_the_prompt_hangs_up_at_once(worker: Any, client: Any, nursery: Any) -> None:
    client.say("reply", text="!import os; os._exit(3)")
    assert client.next() is None
    assert nursery.exit_code(worker) == 3


def test_the_handlers_own_tracing_goes_on(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(TRACED), debug_socket=agent_of.path)
    for _ in range(2):
        worker.send(b"1")
        client = agent_of.client()
        client.say("attach")
        client.prompt()
        client.reply("n")
        client.last_reply("c", "ended")
        assert worker.answer() == (200, True)


def test_a_request_that_failed_in_the_debugger_is_said_to_have_failed(worker: Any, client: Any) -> None:
    assert client.last_reply("fail for a reason")["text"] == "the request has failed: for a reason"
    assert worker.answer()[1]["message"] == "for a reason"


def test_a_worker_that_is_stopped_says_so_to_its_debugger(worker: Any, agent_of: Any) -> None:
    client = agent_of.client()
    client.say("stop", at="postprocess")
    client.event("armed")
    worker.tell("stop")
    assert client.event("ended")["text"] == "the worker has ended"
