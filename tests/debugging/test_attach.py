"""Debugging a real worker: all ways in from Python, and `nbserve attach` in a terminal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import pexpect
import pytest

from nbserve.errors import Conflict, DebugError, PredictError

pytestmark = [pytest.mark.process]

STEPS = """\
class H(nbserve.Handler):
    def initialize(self, context):
        self.added = 1
        self.parts = {"weights": [1, 2], "words": "ab"}
    def preprocess(self, requests):
        xs = []
        for request in requests:
            xs.append(float(request))
        return xs
    def inference(self, xs):
        total = [x + self.added for x in xs]
        return total
"""
BREAKPOINT = STEPS.replace("        total =", "        breakpoint()\n        total =")
STUCK = """\
import time
class H(nbserve.Handler):
    def preprocess(self, requests):
        return requests
    def inference(self, xs):
        if xs[0] == "wait":
            time.sleep(600)
        return xs
"""


DEAF = """\
import ctypes, os, time
class H(nbserve.Handler):
    def preprocess(self, requests):
        return requests
    def inference(self, paths):
        # A PyDLL keeps the GIL; opening a pipe waits for its writer, through signals too.
        os.close(ctypes.PyDLL(None).open(paths[0].encode(), os.O_RDONLY))
        time.sleep(600)
"""


def held(endpoint):
    return [worker["held"] for worker in endpoint.stats()["workers"] if worker["held"]]


def test_the_worker_at_a_breakpoint_is_attached_to(serve_cell, client):
    endpoint = serve_cell(BREAKPOINT, workers=2)
    request = client(endpoint, 2)
    text = endpoint.debug(commands="p xs; !self.added = 77; n; n; p total; c")
    assert "stopped in inference, test.ipynb, cell 1, line 12, request " in text
    assert "p xs\n[2.0]\n" in text
    assert "p total\n[79.0]\n" in text
    assert request.answer() == 79.0


def test_a_place_and_a_condition_stop_without_a_change_to_the_code(serve_cell, client, wait_until):
    endpoint = serve_cell(STEPS)
    with pytest.raises(DebugError, match=r"did not stop within 0.5 s"):
        endpoint.debug(at="preprocess", wait_s=0.5)
    with pytest.raises(DebugError, match="99"):
        endpoint.debug(at=99, commands="c")
    wait_until(lambda: len(endpoint.stats()["workers"]) == 1)
    assert endpoint.predict(1) == 2.0
    text = endpoint.debug(at=12, condition="xs[0] > 2", request=3, commands=["p xs, self.added", "c"])
    assert "(3.0" not in text
    assert "([3.0], 1)" in text
    assert text.endswith("-- the answer: 200 4.0\n")
    text = endpoint.debug(at=12, condition="xs[0] > 2", request=1, commands=["c"])
    assert "stopped" not in text
    assert text.endswith("-- the answer: 200 2.0\n")


def test_a_request_of_ones_own_is_stopped_in_at_its_first_line(serve_cell):
    text = serve_cell(STEPS).debug(request=[1, 2], commands="p requests; c")
    assert "stopped in preprocess, test.ipynb, cell 1, line 7" in text
    assert "p requests\n[[1, 2]]\n" in text
    assert re.search(r"-- the answer: 500 .*HandlerFailed", text)


def test_a_worker_that_dies_at_the_prompt_ends_session_and_request(serve_cell, wait_until):
    endpoint = serve_cell(STEPS)
    pid = endpoint.stats()["workers"][0]["pid"]
    text = endpoint.debug(request=[1], commands=["import os", "os._exit(3)", "p 1"])
    assert "-- the worker has hung up\n" in text
    assert re.search(r"-- the answer: 50\d .*WorkerDied", text)
    assert "p 1" not in text
    wait_until(lambda: endpoint.stats()["workers"][0]["pid"] not in (None, pid))
    assert endpoint.predict(1) == 2.0


def test_the_newest_failure_is_looked_at_while_the_endpoint_serves_and_is_replayed(serve_cell):
    endpoint = serve_cell(STEPS)
    with pytest.raises(DebugError, match=r"no request of h\d+ has failed"):
        endpoint.debug(last_error=True, commands="p 1")
    with pytest.raises(PredictError):
        endpoint.predict("one")
    assert "p requests\n['one']\n" in endpoint.debug(last_error=True, commands="p requests")
    assert endpoint.predict(1) == 2.0
    text = endpoint.debug(replay=True, commands="p requests; c; p requests; c")
    assert "ValueError" in text
    assert text.count("['one']") == 2
    assert re.search(r"-- the answer: 500 ", text)


def test_a_hanging_request_is_shown_and_ended(serve_cell, client, wait_until):
    endpoint = serve_cell(STUCK)
    with pytest.raises(DebugError, match="runs a request now"):
        endpoint.debug(interrupt=True, commands="w")
    pid = endpoint.stats()["workers"][0]["pid"]
    request = client(endpoint, "wait")
    wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "BUSY")
    text = endpoint.debug(interrupt=True, commands="w; p xs; fail enough")
    assert "line 8" in text.partition("-- worker 0 stopped")[0]
    assert "['wait']" in text
    answer = request.answer()
    assert (answer.status, "enough" in str(answer)) == (500, True)
    assert endpoint.predict("go") == "go"
    assert endpoint.stats()["workers"][0]["pid"] == pid


def test_a_worker_in_c_code_that_keeps_the_gil_is_seen_from_outside(serve_cell, client, terminal, wait_until, tmp_path):
    endpoint = serve_cell(DEAF)
    os.mkfifo(pipe := tmp_path / "pipe")
    request = client(endpoint, str(pipe))
    wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "BUSY")
    shell = terminal("attach", endpoint.name, "--interrupt")
    shell.expect_exact("line 8 in inference")
    shell.expect_exact("worker 0 itself does not answer: C code holds its GIL")
    shell.expect_exact("no prompt yet")
    os.close(os.open(pipe, os.O_WRONLY))
    shell.expect_exact("(Pdb) ")
    shell.sendline("fail enough")
    shell.expect(pexpect.EOF)
    assert "enough" in str(request.answer())


def test_each_matching_call_is_stopped_in_until_one_leaves(serve_cell, client, terminal):
    endpoint = serve_cell(STEPS)
    shell = terminal("attach", endpoint.name, "--at", "inference", "--if", "xs[0] > 1", "--repeat")
    shell.expect_exact("worker 0 will stop in inference")
    for body in (1, 2, 3):
        request = client(endpoint, body)
        if body > 1:
            shell.expect_exact("(Pdb) ")
            shell.sendline("p xs")
            shell.expect_exact(f"[{float(body)}]")
            shell.expect_exact("(Pdb) ")
            shell.sendline("c")
        assert request.answer() == body + 1
    shell.sendintr()
    shell.expect_exact("-- detached")
    shell.expect(pexpect.EOF)


def test_a_condition_that_raises_is_told_and_does_not_stop(serve_cell):
    text = serve_cell(STEPS).debug(at="inference", condition="nonsense > 1", request=1, commands="c")
    assert "NameError" in text
    assert "stopped" not in text
    assert text.endswith("-- the answer: 200 2.0\n")


def test_nobody_is_held(serve_cell):
    with pytest.raises(DebugError, match=r"no worker of h\d+ was held within 0.2 s; other ways in: --at"):
        serve_cell(STEPS).debug(wait_s=0.2)


def test_the_terminal_debugs(serve_cell, client, terminal):
    endpoint = serve_cell(BREAKPOINT)
    shell = terminal("attach", endpoint.name)
    shell.expect_exact("no worker of")
    request = client(endpoint, 2)
    shell.expect_exact("stopped in inference")
    shell.expect_exact("(Pdb) ")
    shell.sendline("w")
    shell.expect_exact("-> breakpoint()")
    shell.expect_exact("(Pdb) ")
    shell.sendline("l")
    shell.expect_exact("def inference(self, xs):")
    shell.expect_exact("(Pdb) ")
    shell.send("p self.par\t")
    shell.expect_exact("self.parts")
    shell.sendline("")
    shell.expect_exact("{'weights': [1, 2], 'words': 'ab'}")
    shell.expect_exact("(Pdb) ")
    shell.send("p nonsense")
    shell.expect_exact("p nonsense")
    # send() waits a little: a signal that comes while readline draws is taken with the next key only.
    shell.send("\x03")
    shell.expect_exact("(Pdb) ")
    shell.sendline("p xs")
    shell.expect_exact("[2.0]")
    shell.expect_exact("(Pdb) ")
    shell.sendeof()
    shell.expect_exact("detached: the request goes on")
    shell.expect(pexpect.EOF)
    assert request.answer() == 3.0
    shell.close()
    assert shell.exitstatus == 0


def test_ctrl_c_leaves_a_terminal_that_waits_or_whose_worker_runs(serve_cell, client, terminal, wait_until):
    endpoint = serve_cell(STUCK, workers=1)
    waiting = terminal("attach", endpoint.name)
    waiting.expect_exact("other ways in")
    waiting.sendintr()
    waiting.expect_exact("left")
    armed = terminal("attach", endpoint.name, "--at", "inference")
    armed.expect("-- .*inference")
    request = client(endpoint, "wait")
    armed.expect_exact("(Pdb) ")
    armed.sendline("c")
    wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "BUSY")
    armed.sendintr()
    armed.expect_exact("-- detached")
    armed.expect(pexpect.EOF)
    endpoint.debug(interrupt=True, commands="fail enough")
    assert request.answer().status == 500


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_terminal_that_is_gone_lets_the_worker_go(serve_cell, client, terminal, wait_until, number):
    endpoint = serve_cell(BREAKPOINT)
    request = client(endpoint, 2)
    shell = terminal("attach", endpoint.name)
    shell.expect_exact("(Pdb) ")
    assert held(endpoint)
    shell.kill(number)
    wait_until(lambda: not held(endpoint), limit_s=1.0)
    assert request.answer() == 3.0


def test_a_second_debugger_is_told_who_has_it(serve_cell, client, terminal):
    endpoint = serve_cell(BREAKPOINT)
    request = client(endpoint, 2)
    shell = terminal("attach", endpoint.name)
    shell.expect_exact("(Pdb) ")
    who = f"terminal, pid {shell.pid}"
    with pytest.raises(Conflict, match=who):
        endpoint.debug(worker=0, commands="w")
    other = terminal("attach", endpoint.name, "--worker", "0")
    other.expect_exact(who)
    other.expect(pexpect.EOF)
    listed = subprocess.run(
        [sys.executable, "-m", "nbserve", "ps"], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"held in inference, test.ipynb, cell 1, line 12: debugged by {who}" in listed.stdout
    shell.sendline("p xs")
    shell.expect_exact("[2.0]")
    shell.sendline("q")
    shell.expect(pexpect.EOF)
    assert request.answer() == 3.0


def test_commands_of_a_terminal_are_shown_as_they_run(serve_cell):
    endpoint = serve_cell(STEPS)
    words = ["attach", endpoint.name, "--request", "3", "--at", "inference", "--commands", "p xs; c"]
    done = subprocess.run(
        [sys.executable, "-m", "nbserve", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "p xs\n[3.0]\n" in done.stdout
    assert done.stdout.endswith("-- the answer: 200 4.0\n")


def test_an_editor_connects_and_ctrl_c_leaves(serve_cell, terminal, wait_until):
    pytest.importorskip("debugpy")
    endpoint = serve_cell(STEPS)
    shell = terminal("attach", endpoint.name, "--port", "0")
    shell.expect(r'"port": (\d+)')
    with socket.create_connection(("127.0.0.1", int(shell.match[1])), timeout=10):
        assert endpoint.predict(1) == 2.0
    shell.sendintr()
    shell.expect(pexpect.EOF)
    wait_until(lambda: [w["state"] for w in endpoint.stats()["workers"]] == ["READY"])
    assert endpoint.predict(1) == 2.0
