"""A real worker under a real debugger: breakpoint() holds it, pdb works there, and nothing is left of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

WriteBundle = Callable[..., Path]
BREAKPOINT = """
    import nbserve.handler as nbserve

    class Scale(nbserve.Handler):
        def initialize(self, context):
            self.factor = 2

        def preprocess(self, requests):
            total = sum(requests)
            breakpoint()
            return [value * self.factor for value in requests]

        def inference(self, batch):
            import sys
            self.trace = sys.gettrace()
            return [[value, self.trace is None] for value in batch]

        def postprocess(self, outputs):
            return outputs
"""


def test_a_breakpoint_holds_and_the_request_goes_on(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(BREAKPOINT), debug_socket=agent_of.path)
    worker.send(b"1", b"2")
    held = worker.event()
    assert (held["event"], held["reason"], held["line"], held["function"]) == ("held", "breakpoint", 10, "preprocess")
    assert held["file"].endswith("app.py")
    assert held["request_ids"] == [100, 101]
    assert held["wait_s"] == 120.0
    client = agent_of.client()
    assert client.hello["held"]["request_ids"] == ["ab-64", "ab-65"]
    client.say("attach")
    assert "breakpoint()" in client.prompt()
    assert worker.event() == {"event": "debugger", "who": "a test", "kind": "pdb"}
    assert client.reply("p total") == "3\n"
    assert client.reply("p [value * self.factor for value in requests]") == "[2, 4]\n"
    assert "preprocess" in client.reply("w")
    client.say("reply", text="!self.factor = 77")
    client.prompt()
    client.last_reply("c", "resumed")
    assert worker.event() == {"event": "resumed"}
    assert worker.results().rows[1].body == b"[154,true]"
    worker.tell("hold_taken", dropped=[])
    assert client.event("ended")["text"] == "the request has been answered"
    assert worker.event() == {"event": "debugger", "who": None, "kind": None}
