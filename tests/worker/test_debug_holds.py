"""Holds in odd places, holds that nobody takes, and debuggers that are gone at odd moments."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

pytestmark = pytest.mark.process

WriteBundle = Callable[..., Path]
BREAKPOINT = """
    import nbserve.handler as nbserve

    class Echo(nbserve.Handler):
        def handle(self, requests, context):
            for _ in range(2):
                breakpoint()
            return requests
"""
IN_INITIALIZE = """
    import nbserve.handler as nbserve

    class Echo(nbserve.Handler):
        def initialize(self, context):
            self.ready = False
            breakpoint()

        def handle(self, requests, context):
            return [self.ready]
"""
IN_A_THREAD = """
    import threading
    import nbserve.handler as nbserve

    class Echo(nbserve.Handler):
        def count(self):
            counted = 0
            breakpoint()
            counted += 1
            self.counted = counted

        def handle(self, requests, context):
            thread = threading.Thread(target=self.count)
            thread.start()
            if requests[0] == "wait":
                thread.join()
                return [self.counted]
            self.thread = thread
            return requests
"""
IN_A_FORK = """
    import os
    import nbserve.handler as nbserve

    class Echo(nbserve.Handler):
        def handle(self, requests, context):
            pid = os.fork()
            if pid == 0:
                breakpoint()
                os._exit(7)
            return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
"""
COMPILED = """
    import torch
    import nbserve.handler as nbserve

    class Model(torch.nn.Module):
        def forward(self, x):
            shifted = x + 1
            return shifted * 2

    class Compiled(nbserve.Handler):
        def initialize(self, context):
            self.model = torch.compile(Model(), backend="eager")
            self.model(torch.ones(1))

        def preprocess(self, requests):
            return torch.tensor(requests, dtype=torch.float32)

        def postprocess(self, outputs):
            return outputs
"""
CELLS = '''
    # %% story.ipynb, cell 3, line 2
    def helper(value):
        """Add one."""
        return value + 1

    # %% story.ipynb, cell 7, line 11
    import nbserve.handler as nbserve

    # %% story.ipynb, cell 7, line 13
    class Story(nbserve.Handler):
        def handle(self, requests, context):
            import pdb; pdb.set_trace(header="here we are")
            values = [helper(value) for value in requests]
            return values
'''
IN_C = """
    import ctypes
    import pathlib
    import threading
    import time
    import nbserve.handler as nbserve

    libc = ctypes.CDLL(None)

    class InC(nbserve.Handler):
        def handle(self, requests, context):
            # A wait that no signal interrupts, as in a long operation of a library.
            mutex = ctypes.create_string_buffer(64)
            libc.pthread_mutex_lock(mutex)
            threading.Thread(target=self.unlock, args=(mutex, pathlib.Path(requests[0]))).start()
            libc.pthread_mutex_lock(mutex)
            return [1]

        def unlock(self, mutex, file):
            while not file.exists():
                time.sleep(0.01)
            libc.pthread_mutex_unlock(mutex)
"""
LEGACY = """
    class Legacy:
        def handle(self, data, context):
            value = data[0]["body"]
            return [value + 1]
"""
SLOW = """
    import sys
    import time
    import nbserve.handler as nbserve

    class Slow(nbserve.Handler):
        def handle(self, requests, context):
            breakpoint()
            time.sleep(requests[0])
            for _ in range(1000):
                pass
            return [sys.gettrace() is None]
"""


def test_a_hold_that_nobody_takes_goes_on_by_itself(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(BREAKPOINT), debug_socket=agent_of.path, hold_timeout_s=0.1)
    worker.send(b"1")
    assert worker.hear("held")["wait_s"] == 0.1
    worker.hear("resumed")
    worker.hear("held")
    assert worker.answer() == (200, 1)
    assert "app.py:7: nobody attached" in worker.wait_for_log("going on")
    worker.tell("configure", isolate_errors=True, threads=1, hold_timeout_s=0.2)
    worker.send(b"1")
    assert worker.hear("held")["wait_s"] == 0.2
    assert worker.answer() == (200, 1)


def test_without_an_agent_a_breakpoint_is_logged_once(nursery: Any, bundle: WriteBundle) -> None:
    worker = nursery.start_ready(bundle(BREAKPOINT))
    assert worker.ask(1) == [1]
    assert worker.ask(2) == [2]
    worker.wait_for_log("passed")
    [line] = [line for line in worker.log().splitlines() if "breakpoint()" in line]
    assert line.endswith("app.py:7 passed: this server runs without --debug")


def test_breakpoints_can_be_off(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(BREAKPOINT), debug_socket=agent_of.path, breakpoints=False)
    assert worker.ask(1) == [1]
    worker.wait_for_log("passed: breakpoints are off in this worker now")
    worker.tell("breakpoints", on=True)
    worker.send(b"1")
    assert worker.hear("held")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    client.reply("c")
    client.last_reply("q")
    assert worker.answer() == (200, 1)


def test_initialize_can_be_held(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start(bundle(IN_INITIALIZE), debug_socket=agent_of.path)
    held = worker.hear("held")
    assert (held["function"], held["line"], held["request_ids"]) == ("initialize", 7, [])
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    assert "nbserve/worker" not in client.reply("w")
    client.reply("!self.ready = True")
    assert "--Return--" in client.reply("n")
    client.last_reply("n", "resumed")
    assert worker.hear("ready")
    assert client.event("ended")["text"] == "the handler has been initialized"
    worker.send(b"1")
    assert worker.answer() == (200, True)


def test_fail_in_initialize_is_why_the_worker_does_not_start(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start(bundle(IN_INITIALIZE), debug_socket=agent_of.path)
    worker.hear("held")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    client.last_reply("fail no model", "resumed")
    assert worker.hear("failed")["error"] == "FailedInDebugger: no model"
    assert client.event("ended")["text"] == "initialize has failed: no model"
    assert nursery.exit_code(worker) == 3


def test_a_breakpoint_in_another_thread(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(IN_A_THREAD), debug_socket=agent_of.path)
    worker.send(b'"wait"')
    assert worker.hear("held")["request_ids"] == [100]
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    assert "counted += 1" in client.reply("n")
    client.reply("!counted = 10")
    assert "self.counted" in client.reply("n")
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 11)
    client.event("ended")


def test_a_thread_that_outlives_its_request_holds_nobody_else(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(IN_A_THREAD), debug_socket=agent_of.path)
    worker.send(b"1")
    worker.hear("held")
    assert worker.answer() == (200, 1)
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    client.reply("n")
    client.reply("n")
    assert "--Return--" in client.reply("n")
    assert client.last_reply("n")["text"] == "the thread goes on"
    worker.hear("resumed")


def test_a_fork_of_the_worker_is_not_debugged(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(IN_A_FORK), debug_socket=agent_of.path)
    assert worker.ask(1) == [7]
    worker.wait_for_log("this process was forked off the worker")


def test_a_fork_under_a_debugger_leaves_it_to_the_worker(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(IN_A_FORK), debug_socket=agent_of.path)
    client = agent_of.client()
    client.say("stop", at="handle")
    client.event("armed")
    worker.send(b"1")
    client.prompt()
    assert "if pid == 0" in client.reply("n")
    assert "return [" in client.reply("n")
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 7)
    client.event("ended")


def test_a_compiled_handler_is_stepped_through_as_it_is_written(
    nursery: Any, bundle: WriteBundle, agent_of: Any
) -> None:
    worker = nursery.start_ready(bundle(COMPILED), debug_socket=agent_of.path)
    client = agent_of.client()
    client.say("stop", at="Model.forward")
    client.event("armed")
    worker.send(b"3")
    assert "shifted = x + 1" in client.prompt()
    assert "return shifted * 2" in client.reply("n")
    assert client.reply("p shifted") == "tensor([4.])\n"
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 8.0)
    client.event("ended")
    worker.send(b"4")
    assert worker.answer() == (200, 10.0)


def test_a_breakpoint_in_what_is_compiled_says_so(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    source = COMPILED.replace("shifted = x + 1", "breakpoint(); shifted = x + 1")
    source = source.replace("            self.model(torch.ones(1))\n", "")
    worker = nursery.start_ready(bundle(source), debug_socket=agent_of.path)
    worker.send(b"3")
    assert worker.hear("held")["function"] == "forward"
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    assert "torch.compile" in client.notes[0]
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 8.0)
    client.event("ended")
    client = agent_of.client()
    client.say("stop")
    client.event("armed")
    worker.send(b"3")
    client.prompt()
    assert "forward()" in client.reply("c")
    assert not client.notes
    assert client.reply("p x") == "tensor([3.])\n"
    client.last_reply("q")
    assert worker.answer() == (200, 8.0)


def test_cells_are_known_by_their_names(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(CELLS), debug_socket=agent_of.path)
    worker.send(b"1")
    held = worker.hear("held")
    assert (held["file"], held["line"]) == ("story.ipynb, cell 7", 15)
    client = agent_of.client()
    client.say("attach")
    shown = client.prompt()
    assert "here we are" in shown
    assert "> story.ipynb, cell 7(15)handle()" in shown
    assert "values = [helper" in client.reply("l")
    assert client.reply("b 17") == "Breakpoint 1 at story.ipynb, cell 7:17\n"
    assert client.reply("b cell 3:4") == "Breakpoint 2 at story.ipynb, cell 3:4\n"
    assert client.reply("tbreak helper").startswith("Breakpoint 3 at story.ipynb, cell 3:")
    assert "cell 3(4)helper()" in client.reply("c")
    assert "cell 7(17)handle()" in client.reply("c")
    assert "def handle" in client.reply("ll")
    assert "Deleted breakpoint 2" in client.reply("cl cell 3:4")
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 2)


def test_a_stop_at_a_line_of_another_cell(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(CELLS), debug_socket=agent_of.path, breakpoints=False)
    client = agent_of.client()
    client.say("stop", at="cell 3:4", **{"if": "value == 2"})
    assert client.event("armed")["text"] == "helper (story.ipynb, cell 3, line 4)"
    worker.send(b"1", b"2")
    client.prompt()
    assert client.reply("p value") == "2\n"
    client.last_reply("q")
    assert worker.answer() == (200, 2)


def test_c_code_has_to_come_back_first(
    nursery: Any, bundle: WriteBundle, agent_of: Any, wait_until: Any, tmp_path: Path
) -> None:
    worker = nursery.start_ready(bundle(IN_C), debug_socket=agent_of.path)
    worker.send(orjson.dumps(str(tmp_path / "go on")))
    looking = agent_of.client()

    def is_in_c() -> bool:
        looking.say("stack")
        return "libc.pthread_mutex_lock(mutex)" in looking.event("stack")["text"]

    wait_until(is_in_c, "the handler")
    client = agent_of.client()
    client.say("interrupt")
    assert "C code" in client.event("note")["text"]
    (tmp_path / "go on").touch()
    assert "handle()" in client.prompt()
    client.last_reply("q")
    assert worker.answer() == (200, 1)


def test_a_handler_for_torchserve_is_debugged_too(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(LEGACY), debug_socket=agent_of.path)
    client = agent_of.client()
    client.say("stop")
    assert client.event("armed")["text"].startswith("handle (")
    worker.send(b"4")
    client.prompt()
    assert client.reply("p data") == "[{'body': 4}]\n"
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 5)


def test_a_debugger_may_go_before_anything_stopped(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(SLOW), debug_socket=agent_of.path, breakpoints=False)
    for words in ({"cmd": "attach"}, {"cmd": "stop", "at": "handle"}):
        client = agent_of.client()
        client.say(**words)
        assert worker.hear("debugger")["who"] == "a test"
        client.close()
        assert worker.hear("debugger")["who"] is None
    worker.send(b"0")
    assert worker.answer() == (200, True)


@pytest.mark.parametrize("command", ["n", "c"])
def test_a_debugger_may_go_while_the_handler_runs(
    nursery: Any, bundle: WriteBundle, agent_of: Any, command: str
) -> None:
    worker = nursery.start_ready(bundle(SLOW), debug_socket=agent_of.path)
    worker.send(b"1")
    worker.hear("held")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    client.reply("b 12")
    client.say("reply", text=command)
    began = time.monotonic()
    client.close()
    worker.hear("resumed")
    worker.hear("debugger")
    assert time.monotonic() - began < 0.9
    assert worker.answer() == (200, True)


def test_a_post_mortem_may_be_left_while_its_statement_runs_forever(
    nursery: Any, bundle: WriteBundle, agent_of: Any
) -> None:
    worker = nursery.start_ready(bundle(IN_A_FORK), debug_socket=agent_of.path, breakpoints=False)
    worker.send(b"1")
    worker.answer()
    source = (
        "import nbserve.handler as nbserve\n\nclass Bad(nbserve.Handler):\n    def handle(self, r, c):\n        1 / 0\n"
    )
    worker = nursery.start_ready(bundle(source, name="bad"), debug_socket=agent_of.path)
    worker.send(b"1")
    worker.answer()
    client = agent_of.client()
    client.say("post_mortem")
    client.prompt()
    client.say("reply", text="while True: pass")
    client.close()
    assert worker.hear("debugger")["who"] == "a test"
    assert worker.hear("debugger")["who"] is None
    client = agent_of.client()
    client.say("post_mortem")
    client.prompt()
    client.last_reply("q")


def test_stepping_onto_a_breakpoint_prompts_once(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(BREAKPOINT), debug_socket=agent_of.path)
    worker.send(b"1")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    assert "for _ in range" in client.reply("n")
    assert "breakpoint()" in client.reply("n")
    assert "for _ in range" in client.reply("n")
    assert "return requests" in client.reply("n")
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 1)


def test_an_error_for_lack_of_memory_is_not_kept(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    source = """
        import nbserve.handler as nbserve

        class Greedy(nbserve.Handler):
            def handle(self, requests, context):
                raise MemoryError
    """
    worker = nursery.start_ready(bundle(source), debug_socket=agent_of.path)
    worker.send(b"1")
    assert worker.answer()[0] == 500
    client = agent_of.client()
    client.say("post_mortem")
    assert "out of memory" in client.event("refused")["text"]


def test_a_handler_that_takes_the_signal_cannot_be_interrupted(
    nursery: Any, bundle: WriteBundle, agent_of: Any
) -> None:
    source = """
        import signal
        import nbserve.handler as nbserve

        class Selfish(nbserve.Handler):
            def initialize(self, context):
                signal.signal(signal.SIGUSR2, signal.SIG_IGN)

            def handle(self, requests, context):
                return requests
    """
    worker = nursery.start_ready(bundle(source), debug_socket=agent_of.path)
    client = agent_of.client()
    client.say("interrupt")
    assert "SIGUSR2" in client.event("refused")["text"]
    worker.send(b"1")
    assert worker.answer() == (200, 1)


def test_a_spawned_worker_is_debugged_too(own_nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = own_nursery(NBSERVE_START_METHOD="spawn").start_ready(bundle(BREAKPOINT), debug_socket=agent_of.path)
    worker.send(b"1")
    worker.hear("held")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    assert client.reply("p requests") == "[1]\n"
    client.reply("c")
    client.last_reply("q")
    assert worker.answer() == (200, 1)


def test_fail_gets_past_a_handler_that_catches_exceptions(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    source = """
        import nbserve.handler as nbserve

        class Careful(nbserve.Handler):
            def handle(self, requests, context):
                try:
                    breakpoint()
                    done = True
                except Exception:
                    done = False
                return [done]
    """
    worker = nursery.start_ready(bundle(source), debug_socket=agent_of.path)
    worker.send(b"1")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    client.reply("n")
    client.last_reply("fail", "resumed")
    status, answer = worker.answer()
    assert (status, answer["message"]) == (500, "ended in the debugger")
    worker.send(b"1")
    worker.hear("held")


def test_a_token_outlasts_what_stops_before_it(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    worker = nursery.start_ready(bundle(BREAKPOINT), debug_socket=agent_of.path)
    worker.send(b"1")
    worker.hear("held")
    client = agent_of.client()
    client.say("stop", token="secret", at="8")
    client.prompt()
    client.reply("c")
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 1)
    worker.tell("breakpoints", on=False)
    worker.send(b"2", meta=b"\0application/json\0x-nbserve-debug:secret")
    assert "return requests" in client.prompt()
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 2)
    client.event("ended")


def test_a_folder_of_any_length(nursery: Any, bundle: WriteBundle, tmp_path: Path, agent_of: Any) -> None:
    agent_of.path = str(tmp_path / ("long" * 30) / "w0-1.sock")
    worker = nursery.start_ready(bundle(BREAKPOINT), debug_socket=agent_of.path, breakpoints=False)
    assert agent_of.client().hello["pid"] == worker.pid
    worker.send(b"1")
    assert worker.answer() == (200, 1)
