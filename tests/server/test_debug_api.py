"""What debuggers ask of the management API: workers, stand-ins, replays, requests of their own. Real processes."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest
import tornado.web
from tornado.httputil import HTTPServerRequest, RequestStartLine
from tornado.iostream import StreamClosedError

from nbserve.deployment import Server
from nbserve.errors import BadRequest, Conflict, DebugError, NotFound, Unavailable
from nbserve.server.debug_api import HoldsHandler
from nbserve.server.endpoint import Endpoint
from nbserve.server.metrics import Metrics
from nbserve.server.spans import SpanStore

pytestmark = pytest.mark.process

TELLS = """
import os, time
class H(nbserve.Handler):
    def handle(self, requests, context):
        for x in requests:
            if x == "fail":
                raise ValueError("no good")
            if x == "wait":
                time.sleep(3600)
            if x == "die":
                os._exit(9)
        return [[x, os.getpid(), r.headers.get("x-nbserve-debug")] for x, r in zip(requests, context.requests)]
"""


def workers(endpoint, role="worker"):
    return [worker for worker in endpoint.stats()["workers"] if worker["role"] == role]


def direct(endpoint, index, body, token=None, query=""):
    """Send a request to that worker; gives the status and the decoded answer."""
    run_file = endpoint.server.run_file
    connection = http.client.HTTPConnection(urlsplit(run_file.management_url).netloc, timeout=60)
    headers = {"Authorization": f"Bearer {run_file.token}", "Content-Type": "application/json"}
    if token is not None:
        headers["X-Nbserve-Debug"] = token
    try:
        connection.request("POST", f"{endpoint.path}/workers/{index}/request{query}", json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        return answer["status"], json.loads(base64.b64decode(answer["body"]))
    finally:
        connection.close()


def test_who_stops_requests_of_the_only_worker_gets_a_stand_in_first(serve_cell, ask_debug, attach, asked, wait_until):
    endpoint = serve_cell(TELLS)
    answer = ask_debug(endpoint, "stop")
    assert (answer["worker"], answer["standin"], answer["held"], answer["failure"]) == (0, True, None, None)
    assert [worker["state"] for worker in workers(endpoint, "stand-in")] == ["READY"]
    debugger = attach(answer["socket"])
    debugger.link.send("stop", at="handle")
    debugger.next("armed")
    request = asked(endpoint.url, "mine")
    debugger.next("prompt")
    others = [endpoint.predict(number) for number in range(20)]
    assert answer["pid"] not in {pid for _, pid, _ in others}
    assert endpoint.stats()["state"] == "READY"
    [standin] = workers(endpoint, "stand-in")
    assert standin["held"] is None
    debugger.link.send("reply", text="c")
    assert request.answer() == (200, ["mine", answer["pid"], None])
    wait_until(lambda: not workers(endpoint, "stand-in"))
    wait_until(lambda: not psutil.pid_exists(standin["pid"]))


def test_the_next_request_meets_the_debugger_that_waits_for_it(serve_cell, ask_debug, attach, asked):
    endpoint = serve_cell(TELLS, workers=3)
    answer = ask_debug(endpoint, "stop", 2)
    assert not answer["standin"]
    debugger = attach(answer["socket"])
    debugger.link.send("stop", at="handle")
    debugger.next("armed")
    request = asked(endpoint.url, 1)
    debugger.next("prompt")
    debugger.link.send("detach")
    assert request.answer() == (200, [1, answer["pid"], None])
    assert not workers(endpoint, "stand-in")


def test_a_second_debugger_is_told_who_is_there(serve_cell, ask_debug, attach, wait_until):
    endpoint = serve_cell(TELLS)
    debugger = attach(ask_debug(endpoint, "stop")["socket"], "Ada")
    debugger.link.send("stop", at="handle")
    debugger.next("armed")
    wait_until(lambda: workers(endpoint)[0]["debugger"] == "Ada")
    with pytest.raises(Conflict, match="worker 0 is being debugged by Ada"):
        ask_debug(endpoint, "stop", 0)
    # Nobody debugs the stand-in.
    assert ask_debug(endpoint, "stop")["worker"] == 1


def test_what_cannot_be_asked_is_refused_by_name(serve_cell, server, ask_debug):
    endpoint = serve_cell(TELLS)
    with pytest.raises(NotFound, match="has no worker 7; there are: 0"):
        ask_debug(endpoint, "attach", 7)
    with pytest.raises(DebugError, match=r"no worker of .* runs a request now"):
        ask_debug(endpoint, "interrupt")
    with pytest.raises(DebugError, match=r"no request of .* has failed"):
        ask_debug(endpoint, "post_mortem")
    with pytest.raises(DebugError, match=r"no request of .* has failed"):
        ask_debug(endpoint, "replay")
    with pytest.raises(BadRequest, match="mode is 'jump'"):
        ask_debug(endpoint, "jump")
    with pytest.raises(BadRequest, match="worker is 'one'"):
        server.call("POST", f"{endpoint.path}/debug", {"mode": "stop", "worker": "one"})
    with pytest.raises(NotFound):
        server.call("POST", "/endpoints/nobody/debug", {"mode": "stop"})
    with pytest.raises(NotFound):
        server.call("GET", "/endpoints/nobody/holds")
    with pytest.raises(NotFound, match="has no worker 7"):
        server.call("POST", f"{endpoint.path}/workers/7/request")
    assert ask_debug(endpoint, "attach")["worker"] is None


def test_a_request_of_ones_own_goes_to_that_worker_and_carries_the_token(serve_cell):
    endpoint = serve_cell(TELLS, "own", workers=2)
    for worker in workers(endpoint):
        assert direct(endpoint, worker["index"], "mine", "T1") == (200, ["mine", worker["pid"], "T1"])
    assert direct(endpoint, 0, "plain")[1][2] is None
    assert direct(endpoint, 0, "fail", "T2")[0] == 500
    assert endpoint.stats()["requests"] == {}, "a debugger's request is no client's"
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=10)
    connection.request(
        "POST",
        urlsplit(endpoint.url).path,
        b'"x"',
        {"X-NBSERVE-debug": "T1", "Content-Type": "application/json"},
    )
    assert json.loads(connection.getresponse().read())[2] is None
    connection.close()


def test_a_request_of_ones_own_is_not_tried_again(serve_cell, wait_until):
    endpoint = serve_cell(TELLS)
    status, error = direct(endpoint, 0, "die")
    assert (status, error["type"]) == (500, "WorkerDied")
    wait_until(lambda: endpoint.stats()["state"] == "READY")
    assert workers(endpoint)[0]["restarts"] == 1


def test_post_mortem_finds_the_worker_that_failed_last_while_it_lives(serve_cell, ask_debug, attach, post, wait_until):
    endpoint = serve_cell(TELLS, workers=2)
    assert direct(endpoint, 1, "fail")[0] == 500
    assert ask_debug(endpoint, "post_mortem")["worker"] == 1
    assert direct(endpoint, 0, "fail")[0] == 500
    found = ask_debug(endpoint, "post_mortem")
    assert found["worker"] == 0
    debugger = attach(found["socket"])
    debugger.link.send("post_mortem")
    debugger.next("prompt")
    assert post(endpoint.url, "x")[0] == 200
    for worker in workers(endpoint):
        os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: sum(worker["restarts"] for worker in workers(endpoint)) == 2)
    with pytest.raises(DebugError, match="has ended: run that request again with --replay"):
        ask_debug(endpoint, "post_mortem")


def test_a_failed_request_is_replayed_on_a_worker_of_its_own(serve_cell, ask_debug, attach, post, wait_until):
    endpoint = serve_cell(TELLS, "again")
    assert post(endpoint.url, "fail")[0] == 500
    answer = ask_debug(endpoint, "replay")
    failure = answer["failure"]
    assert (failure["error"], failure["content_type"]) == ("ValueError: no good", "application/json")
    assert failure["body_bytes"] == len('"fail"')
    [replay] = workers(endpoint, "replay")
    assert (replay["index"], replay["pid"], replay["state"]) == (1, answer["pid"], "READY")
    debugger = attach(answer["socket"])
    debugger.link.send("stop", at="handle", token="T9")
    debugger.next("armed")
    answers = []
    sending = threading.Thread(target=lambda: answers.append(direct(endpoint, 1, "", "T9", "?replay=1")))
    sending.start()
    debugger.prompted("p requests")
    debugger.next("prompt")
    assert "['fail']" in debugger.shown()
    pids = {endpoint.predict(number)[1] for number in range(10)}
    assert pids == {workers(endpoint)[0]["pid"]}, "the replaying worker is out of rotation"
    debugger.close()
    sending.join()
    assert answers[0][0] == 500
    wait_until(lambda: not workers(endpoint, "replay"))
    wait_until(lambda: not psutil.pid_exists(replay["pid"]))
    assert ask_debug(endpoint, "replay")["failure"]["request_id"] == failure["request_id"]


def test_requests_that_were_lost_or_timed_out_can_be_replayed(serve_cell, ask_debug, post):
    endpoint = serve_cell(TELLS, response_timeout_s=0.5, workers=2)
    assert post(endpoint.url, "wait")[0] == 504
    assert "gave no answer within 0.5 s" in ask_debug(endpoint, "replay")["failure"]["error"]
    assert post(endpoint.url, "die")[0] == 500
    assert "ended twice" in ask_debug(endpoint, "replay")["failure"]["error"]


def test_interrupt_finds_the_request_that_runs_longest_and_the_stack_shows_it(serve_cell, ask_debug, asked, wait_until):
    endpoint = serve_cell(TELLS, workers=2, max_batch_size=1)
    first = asked(endpoint.url, "wait")
    wait_until(lambda: [worker["state"] for worker in workers(endpoint)].count("BUSY") == 1)
    [busy] = [worker for worker in workers(endpoint) if worker["state"] == "BUSY"]
    assert ask_debug(endpoint, "interrupt")["worker"] == busy["index"]
    text = endpoint.server.call("POST", f"{endpoint.path}/workers/{busy['index']}/stack")["text"]
    assert "line 10 in handle" in text
    assert "most recent call first" in text
    endpoint.configure(response_timeout_s=0.1)
    assert first.answer()[0] == 504


def test_holds_tell_each_change_until_the_endpoint_is_gone(serve_cell, server, asked):
    text = TELLS.replace("import os, time", "import os, time\n").replace("time.sleep(3600)", "breakpoint()")
    endpoint = serve_cell(text, "followed")
    lines = endpoint.holds()
    assert next(lines) == []
    request = asked(endpoint.url, "wait")
    [hold] = next(lines)
    assert hold["request_ids"][0].startswith(server.server_id[:6])
    endpoint.stop()
    assert all(line == [] for line in lines), "nothing is held any more, then the stream ends"
    assert request.answer()[0] == 503
    serve_cell(text, "followed")


def test_sockets_are_private_and_go_with_their_workers(serve_cell, server, ask_debug):
    endpoint = serve_cell(TELLS, "private")
    path = Path(ask_debug(endpoint, "attach", 0)["socket"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    endpoint.stop()
    assert not path.exists()
    serve_cell(TELLS, "private")


def test_without_debug_nobody_can_attach(make_bundle, ask_debug, post):
    bundle = make_bundle(TELLS.replace("time.sleep(3600)", "breakpoint()"), "closed")
    command = [sys.executable, "-m", "nbserve", "serve", str(bundle.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout.readline().startswith("closed")
        [server] = [found for found in Server.find() if found.info()["pid"] == process.pid]
        endpoint = server.endpoint("closed")
        with pytest.raises(Unavailable, match="without --debug"):
            ask_debug(endpoint, "attach")
        assert post(endpoint.url, "wait")[0] == 200
        assert "this server runs without --debug" in endpoint.logs()
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_a_client_that_hangs_up_while_holds_are_sent_is_no_error(monkeypatch):
    async def flush(self, include_footers=False):
        raise StreamClosedError

    async def follow():
        application = tornado.web.Application()
        connection = SimpleNamespace(set_close_callback=lambda _: None)
        request = HTTPServerRequest(start_line=RequestStartLine("GET", "/", "HTTP/1.0"), connection=connection)
        endpoint = Endpoint("h", SpanStore(), Metrics(lambda: 0).endpoint("h"), lambda *_: None)
        endpoints = SimpleNamespace(get=lambda name: endpoint, is_known=lambda _: True)
        await HoldsHandler(application, request, server=SimpleNamespace(endpoints=endpoints)).get("h")

    monkeypatch.setattr(HoldsHandler, "flush", flush)
    asyncio.run(follow())
