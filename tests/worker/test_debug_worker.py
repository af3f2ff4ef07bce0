"""A real worker under a real debugger: breakpoint() holds it, pdb works there, and nothing is left of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

WriteBundle = Callable[..., Path]
SOURCE = """
    import sys
    import nbserve.handler as nbserve
    import torch

    class Doubler(torch.nn.Module):
        def forward(self, x):
            doubled = x * 2
            return doubled

    class Scale(nbserve.Handler):
        def initialize(self, context):
            self.factor = 2
            self.model = Doubler()

        def preprocess(self, requests):
            total = sum(requests)
            breakpoint()
            mean = total / len(requests)
            for value in requests:
                total += value
            return torch.tensor(requests)

        def inference(self, batch):
            outputs = self.model(batch) * self.factor
            return outputs

        def postprocess(self, outputs):
            is_traced = sys.gettrace() is not None
            return [{"value": value.item(), "is_traced": is_traced} for value in outputs]
"""


@pytest.fixture
def worker(nursery: Any, bundle: WriteBundle, agent_of: Any) -> Any:
    return nursery.start_ready(bundle(SOURCE), debug_socket=agent_of.path)


@pytest.fixture
def at_breakpoint(worker: Any, agent_of: Any) -> Iterator[Any]:
    """A debugger at the prompt of a breakpoint(); afterwards the request is answered and nothing is left."""
    worker.send(b"1", b"2")
    worker.hear("held")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    yield client
    client.close()
    status, answer = worker.answer()
    assert status == 200
    assert answer["is_traced"] is False
    worker.send(b"5")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    client.close()
    assert worker.answer() == (200, {"value": 20, "is_traced": False})


def test_a_breakpoint_tells_where_it_holds(worker: Any, agent_of: Any) -> None:
    worker.send(b"1", b"2")
    held = worker.hear("held")
    assert (held["reason"], held["line"], held["function"]) == ("breakpoint", 18, "preprocess")
    assert held["file"].endswith("app.py")
    assert held["request_ids"] == [100, 101]
    assert held["wait_s"] == 120.0
    client = agent_of.client()
    assert client.hello["held"]["request_ids"] == ["ab-64", "ab-65"]
    assert client.hello["debugger"] is None
    client.say("attach")
    assert "breakpoint()" in client.prompt()
    came = worker.hear("debugger")
    assert (came["who"], came["kind"]) == ("a test", "pdb")
    assert abs(came["since_s"] - time.time()) < 60
    assert client.reply("p total") == "3\n"
    client.last_reply("c", "resumed")
    worker.hear("resumed")
    assert worker.answer()[0] == 200
    assert client.event("ended")["text"] == "the request has been answered"
    assert worker.hear("debugger") == {"event": "debugger", "who": None, "kind": None}
    assert client.next() is None


def test_nothing_of_the_worker_is_in_the_stack(at_breakpoint: Any) -> None:
    shown = at_breakpoint.reply("w")
    assert "preprocess()" in shown
    assert "nbserve/worker" not in shown
    assert at_breakpoint.reply("u") == "*** Oldest frame\n"


def test_stepping_goes_from_the_users_code_to_the_users_code(at_breakpoint: Any) -> None:
    assert "mean = total" in at_breakpoint.reply("n")
    assert "for value in requests" in at_breakpoint.reply("n")
    assert "--Return--" in at_breakpoint.reply("r")
    assert "--Call--" in (shown := at_breakpoint.reply("n"))
    assert "inference()" in shown
    assert "self.model(batch)" in at_breakpoint.reply("s")
    assert "forward()" in (shown := at_breakpoint.reply("s"))
    assert "--Call--" in shown
    assert "doubled = x * 2" in at_breakpoint.reply("n")
    assert "inference()" in at_breakpoint.reply("w")
    assert "inference()" in at_breakpoint.reply("u 3")
    assert "forward()" in at_breakpoint.reply("d 3")


def test_step_at_once_from_the_breakpoint(at_breakpoint: Any) -> None:
    assert "mean = total" in at_breakpoint.reply("s")
    assert "total += value" in at_breakpoint.reply("unt 21")
    assert "return torch" in at_breakpoint.reply("until 22")


def test_breakpoints_by_line_function_and_condition(at_breakpoint: Any) -> None:
    assert at_breakpoint.reply("b 21, total > 3").startswith("Breakpoint 1 at ")
    assert at_breakpoint.reply("tbreak inference").startswith("Breakpoint 2 at ")
    assert at_breakpoint.reply("b postprocess").startswith("Breakpoint 3 at ")
    at_breakpoint.say("reply", text="c")
    assert at_breakpoint.event("resumed")
    assert at_breakpoint.event("held")["line"] == 21
    at_breakpoint.prompt()
    assert at_breakpoint.reply("p total") == "4\n"
    assert "outputs = " in at_breakpoint.reply("c")
    assert "breakpoint already hit 2 times" in at_breakpoint.reply("b")
    assert "postprocess()" in at_breakpoint.reply("c")
    assert at_breakpoint.reply("cl 1 3").count("Deleted") == 2


def test_a_breakpoint_in_torch_holds_all_the_same(at_breakpoint: Any) -> None:
    at_breakpoint.reply("b torch.nn.Module._call_impl")
    assert "_call_impl()" in at_breakpoint.reply("c")
    assert "_call_impl()" in at_breakpoint.reply("w")


def test_commands_of_a_breakpoint(at_breakpoint: Any) -> None:
    at_breakpoint.reply("b inference")
    at_breakpoint.reply("commands")
    assert at_breakpoint.last_prompt == "(com) "
    at_breakpoint.reply("p batch + 40")
    at_breakpoint.reply("end")
    assert at_breakpoint.last_prompt == "(Pdb) "
    assert "tensor([41, 42])" in at_breakpoint.reply("c")


def test_aliases_displays_and_several_commands_on_a_line(at_breakpoint: Any) -> None:
    at_breakpoint.reply("alias twice p 2 * %1")
    assert at_breakpoint.reply("twice total") == "6\n"
    assert at_breakpoint.reply("display total") == "display total: 3\n"
    assert at_breakpoint.reply("p 1 ;; p 2") == "1\n2\n"
    at_breakpoint.reply("until 21")
    assert "display total: 4  [old: 3]" in at_breakpoint.reply("n")


def test_assignments_stick_at_once(at_breakpoint: Any, worker: Any) -> None:
    at_breakpoint.reply("!self.factor = 77")
    at_breakpoint.reply("requests = [10, 20]")
    at_breakpoint.reply("x = total + 1")
    assert at_breakpoint.reply("p x, requests") == "(4, [10, 20])\n"
    at_breakpoint.reply("n")
    assert at_breakpoint.reply("p requests") == "[10, 20]\n"
    at_breakpoint.reply("!self.factor = 2")


def test_statements_of_several_lines(at_breakpoint: Any) -> None:
    assert at_breakpoint.reply("def more(n):") == ""
    assert at_breakpoint.last_prompt == "...   "
    at_breakpoint.reply("    return n + total")
    at_breakpoint.reply("")
    assert at_breakpoint.last_prompt == "(Pdb) "
    assert at_breakpoint.reply("more(1)") == "4\n"
    assert at_breakpoint.reply("for n in range(2):\n    print(n, total)\n") == "0 3\n1 3\n"
    assert at_breakpoint.reply("[value * self.factor for value in requests]") == "[2, 4]\n"


def test_interact_sees_the_frame_and_closes_over_it(at_breakpoint: Any) -> None:
    assert "exit() goes back" in at_breakpoint.reply("interact")
    assert at_breakpoint.last_prompt == ">>> "
    at_breakpoint.reply("def plus(n):")
    assert at_breakpoint.last_prompt == "... "
    at_breakpoint.reply("    return n + total")
    at_breakpoint.reply("")
    assert at_breakpoint.reply("plus(1)") == "4\n"
    assert at_breakpoint.reply("print('here')") == "here\n"
    at_breakpoint.reply("exit()")
    assert at_breakpoint.last_prompt == "(Pdb) "


def test_what_is_printed_and_read_at_the_prompt_is_the_debuggers(at_breakpoint: Any, worker: Any) -> None:
    assert at_breakpoint.reply("p print('shown')") == "shown\nNone\n"
    assert at_breakpoint.reply("name = input('who? ')") == ""
    assert at_breakpoint.last_prompt == "who? "
    at_breakpoint.reply("me")
    assert at_breakpoint.reply("p name") == "'me'\n"
    assert "shown" not in worker.log()


def test_completion(at_breakpoint: Any) -> None:
    at_breakpoint.say("complete", id=7, line="p self.fac", begin=2, end=10)
    assert at_breakpoint.event("completions") == {"event": "completions", "id": 7, "items": ["self.factor"]}
    assert at_breakpoint.reply("self.fac?") == "self.factor\n"
    assert "self.factor" in at_breakpoint.reply("self.?")
    assert "total" in at_breakpoint.reply("p tot?")


def test_help_and_commands_that_make_no_sense_here(at_breakpoint: Any) -> None:
    assert "fail" in (shown := at_breakpoint.reply("help"))
    assert "detach" in shown
    assert "500" in at_breakpoint.reply("help fail")
    assert "cannot be started again" in at_breakpoint.reply("run")
    assert "NameError" in at_breakpoint.reply("p nothing_of_that_name")
    assert "SystemExit" in at_breakpoint.reply("import sys; sys.exit()")
    assert "zzz" in at_breakpoint.reply("zzz.?")


def test_a_debugger_in_the_debugger(at_breakpoint: Any) -> None:
    at_breakpoint.reply("debug self.model(torch.tensor([1]))")
    assert at_breakpoint.last_prompt.startswith("((")
    at_breakpoint.reply("q")
    assert at_breakpoint.last_prompt == "(Pdb) "
    assert "mean = total" in at_breakpoint.reply("n")


@pytest.mark.parametrize("word", ["q", "quit", "exit", "detach"])
def test_leaving_lets_the_request_go_on(at_breakpoint: Any, word: str) -> None:
    at_breakpoint.reply("b inference")
    assert at_breakpoint.last_reply(word)["text"] == "detached"


def test_a_debugger_that_is_gone_leaves_nothing(at_breakpoint: Any, worker: Any) -> None:
    at_breakpoint.reply("b postprocess")
    began = time.monotonic()
    at_breakpoint.close()
    worker.hear("resumed")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("typed", ["commands 1", "def f():", "interact", "debug 1", "name = input()"])
def test_a_debugger_may_go_within_a_command(at_breakpoint: Any, worker: Any, typed: str) -> None:
    at_breakpoint.reply("b inference")
    at_breakpoint.reply(typed)
    at_breakpoint.close()
    worker.hear("resumed")


def test_a_debugger_may_go_while_its_statement_runs_forever(at_breakpoint: Any, worker: Any) -> None:
    at_breakpoint.say("reply", text="while True: pass")
    at_breakpoint.close()
    worker.hear("resumed")


def test_fail_ends_the_requests_of_the_batch(worker: Any, agent_of: Any) -> None:
    worker.send(b"1", b"2")
    worker.hear("held")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    client.last_reply("fail not today", "resumed")
    rows = worker._next(lambda kind, payload: kind == 2)
    assert rows[1] == 2
    assert bytes(rows[2]).count(b"not today") == 2
    assert bytes(rows[2]).count(b"FailedInDebugger") == 2
