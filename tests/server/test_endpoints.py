"""Endpoints of a real server: batches, errors, deaths, time-outs, replacement, live settings."""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import signal
import socket
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.errors import BadRequest, ConfigError, NotFound, PredictError, StartError
from nbserve.server.endpoint import Endpoint
from nbserve.server.logbook import logger
from nbserve.server.metrics import EndpointMetrics
from nbserve.server.spans import SpanStore
from nbserve.server.user_metrics import UserMetrics

pytestmark = pytest.mark.process

DOUBLE = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        return [2 * x for x in requests]
"""

MOODY = """
import os, time, signal

class H(nbserve.Handler):
    def handle(self, requests, context):
        time.sleep(0.02)
        for x in requests:
            if x == "die":
                os._exit(9)
            if x == "hang":
                time.sleep(3600)
            if x == "raise":
                raise ValueError("secret detail")
            if x == "bad":
                raise nbserve.BadRequest("x must not be bad")
        return [[x, len(requests), os.getpid()] for x in requests]
"""


def test_answers_and_says_who_it_is(serve_cell, post):
    endpoint = serve_cell(DOUBLE, workers=2)
    assert endpoint.predict(21) == 42
    assert post(endpoint.url, 4, f"/{endpoint.version}") == (200, 8)
    assert post(endpoint.url, 4, "/0123abcd")[0] == 404
    stats = endpoint.stats()
    assert stats["state"] == "READY"
    assert [worker["state"] for worker in stats["workers"]] == ["READY", "READY"]
    assert stats["requests"]["200"] == 2
    assert stats["settings"]["workers"] == 2


def test_many_clients_share_batches(serve_cell, post_all):
    endpoint = serve_cell(MOODY)
    answers = post_all(endpoint.url, list(range(40)))
    assert [status for status, _ in answers] == [200] * 40
    assert [answer[0] for _, answer in answers] == list(range(40))
    assert max(answer[1] for _, answer in answers) > 1


def test_a_bad_row_fails_alone(serve_cell, post_all):
    endpoint = serve_cell(MOODY)
    bodies = ["a", "raise", "b", "bad", "c", "d"]
    statuses = dict(zip(bodies, post_all(endpoint.url, bodies), strict=True))
    assert [statuses[x][0] for x in "abcd"] == [200] * 4
    assert statuses["bad"][0] == 400
    assert statuses["bad"][1]["message"] == "x must not be bad"
    status, error = statuses["raise"]
    assert status == 500
    assert "secret" not in error["message"]
    request_id = error["message"].rsplit(" ", 1)[1]
    log = endpoint.logs()
    assert request_id in log
    assert "secret detail" in log
    assert "test.ipynb, cell 1" in log
    assert 'line 14, in handle\n    raise ValueError("secret detail")' in log.replace("      ", "    ")


def test_a_row_that_kills_its_worker_fails_alone(serve_cell, post_all, wait_until):
    endpoint = serve_cell(MOODY, workers=2)
    bodies = ["a", "b", "die", "c", "d", "e"]
    answers = dict(zip(bodies, post_all(endpoint.url, bodies), strict=True))
    assert [answers[x][0] for x in "abcde"] == [200] * 5
    assert answers["die"][0] == 500
    assert answers["die"][1]["type"] == "WorkerDied"
    wait_until(lambda: [w["state"] for w in endpoint.stats()["workers"]] == ["READY", "READY"])
    assert sum(w["restarts"] for w in endpoint.stats()["workers"]) == 2
    assert "exited with code 9" in endpoint.logs()


def test_a_worker_killed_under_load_loses_nothing(serve_cell, load, wait_until):
    endpoint = serve_cell(DOUBLE, workers=2)
    with load(endpoint.url) as clients:
        clients.wait_for(50)
        victim = endpoint.stats()["workers"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        clients.wait_for(50)
        wait_until(lambda: endpoint.stats()["workers"][0]["pid"] != victim)
        clients.wait_for(50)
    assert set(clients.statuses) == {200}
    assert "out of memory" in endpoint.stats()["workers"][0]["last_error"]


def test_a_hung_row_gets_504_and_its_stack_is_logged_first(serve_cell, post_all, wait_until):
    endpoint = serve_cell(MOODY, response_timeout_s=0.5)
    before = endpoint.stats()["workers"][0]["pid"]
    bodies = ["a", "hang", "b"]
    answers = dict(zip(bodies, post_all(endpoint.url, bodies), strict=True))
    assert answers["a"][0] == answers["b"][0] == 200
    assert answers["hang"][0] == 504
    assert "0.5 s" in answers["hang"][1]["message"]
    wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "READY")
    assert endpoint.stats()["workers"][0]["pid"] != before
    log = endpoint.logs()
    assert "test.ipynb, cell 1" in log.split("its stack:")[1]
    assert "line 12 in handle" in log.split("its stack:")[1]


def test_a_full_queue_refuses_at_once(serve_cell, post_all, wait_until, post):
    endpoint = serve_cell(MOODY, queue_size=1, max_batch_size=2, response_timeout_s=5)
    hanging = threading.Thread(target=post, args=(endpoint.url, "hang"))
    hanging.start()
    wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "BUSY")
    waiting = threading.Thread(target=post, args=(endpoint.url, "x"))
    waiting.start()
    wait_until(lambda: endpoint.stats()["queued"] == 1)
    begun = time.monotonic()
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=10)
    connection.request("POST", urlsplit(endpoint.url).path, b"1")
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert time.monotonic() - begun < 1
    os.kill(endpoint.stats()["workers"][0]["pid"], signal.SIGKILL)
    endpoint.configure(response_timeout_s=0.2)
    hanging.join()
    waiting.join()


def test_clients_that_leave_while_queued_are_dropped(serve_cell, post, wait_until):
    endpoint = serve_cell(MOODY.replace("0.02", "0.3"), max_batch_size=1)
    first = threading.Thread(target=post, args=(endpoint.url, "first"))
    first.start()
    wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "BUSY")
    url = urlsplit(endpoint.url)
    for _ in range(20):
        client = socket.create_connection((url.hostname, url.port))
        client.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1" % url.path.encode())
        client.close()
    first.join()
    begun = time.monotonic()
    assert post(endpoint.url, "last")[0] == 200
    assert time.monotonic() - begun < 3, "twenty requests without a client were run"


def test_replacement_under_load_loses_nothing(serve_cell, load):
    endpoint = serve_cell(DOUBLE, "swap", workers=2)
    before = endpoint.version
    with load(endpoint.url) as clients:
        clients.wait_for(30)
        serve_cell(DOUBLE.replace("2 * x", "3 * x"), "swap", workers=2)
        assert endpoint.predict(1) == 3
        clients.wait_for(30)
        serve_cell(DOUBLE.replace("2 * x", "4 * x"), "swap", workers=1)
        clients.wait_for(30)
    assert set(clients.statuses) == {200}
    assert {b"2", b"3", b"4"} == set(clients.answers)
    assert endpoint.version != before


def test_the_old_version_goes_on_when_the_new_one_cannot_start(serve_cell):
    endpoint = serve_cell(DOUBLE, "stay")
    broken = DOUBLE.replace(
        "class H(nbserve.Handler):", "class H(nbserve.Handler):\n    def initialize(self, c): 1 / 0"
    )
    with pytest.raises(StartError, match="division by zero") as caught:
        serve_cell(broken, "stay")
    assert "test.ipynb, cell 1" in caught.value.traceback_text
    assert "line 4" in caught.value.traceback_text
    assert "nbserve/" not in caught.value.traceback_text
    assert endpoint.predict(2) == 4
    assert len(endpoint.stats()["workers"]) == 1


def test_the_old_version_goes_on_when_the_new_one_fails_a_recorded_request(serve_cell):
    endpoint = serve_cell(DOUBLE, "golden")
    assert endpoint.predict([1]) == [1, 1]
    serve_cell(DOUBLE + "    kept = True\n", "golden")
    assert endpoint.stats()["requests"] == {"200": 1}, "the server's own check counts as no request"
    with pytest.raises(StartError, match="recorded request"):
        serve_cell(DOUBLE.replace("2 * x", "x['key']"), "golden")
    assert endpoint.predict([1]) == [1, 1]


def test_workers_that_hang_while_starting_stop_the_roll_out(serve_cell, server):
    slow = DOUBLE.replace(
        "class H(nbserve.Handler):",
        "import time\nclass H(nbserve.Handler):\n    def initialize(self, c): time.sleep(60)",
    )
    with pytest.raises(StartError, match="start_timeout_s"):
        serve_cell(slow, "slow", start_timeout_s=0.5)
    with pytest.raises(NotFound):
        server.endpoint("slow")


def test_settings_change_live_and_workers_scale_without_loss(serve_cell, load):
    endpoint = serve_cell(DOUBLE)
    with load(endpoint.url) as clients:
        clients.wait_for(30)
        assert endpoint.configure(workers=3, max_batch_size=5)["max_batch_size"] == 5
        assert len(endpoint.stats()["workers"]) == 3
        clients.wait_for(30)
        assert endpoint.configure(workers=1)["workers"] == 1
        clients.wait_for(30)
        assert endpoint.configure(max_batch_delay_ms=2)["policy"] == "window"
        clients.wait_for(10)
    assert set(clients.statuses) == {200}
    assert len(endpoint.stats()["workers"]) == 1


def test_wrong_settings_are_refused_by_name(serve_cell):
    endpoint = serve_cell(DOUBLE)
    with pytest.raises(ConfigError, match="did you mean max_batch_size"):
        endpoint.configure(max_batchsize=3)
    with pytest.raises(ConfigError, match="workers is 0"):
        endpoint.configure(workers=0)
    with pytest.raises(ConfigError, match="cuda"):
        endpoint.configure(device="cuda")
    assert endpoint.predict(1) == 2


def test_two_endpoints_live_side_by_side(serve_cell, server):
    one, two = serve_cell(DOUBLE, "one"), serve_cell(DOUBLE.replace("2 *", "7 *"), "two")
    assert (one.predict(1), two.predict(1)) == (2, 7)
    assert {endpoint.name for endpoint in server.endpoints()} >= {"one", "two"}
    two.stop()
    with pytest.raises(NotFound, match="one"):
        server.endpoint("two")
    assert one.predict(1) == 2
    serve_cell(DOUBLE, "two")


def test_an_endpoint_can_be_stopped_under_load(serve_cell, server, load):
    endpoint = serve_cell(DOUBLE, "busy")
    with load(endpoint.url) as clients:
        clients.wait_for(30)
        endpoint.stop()
        clients.wait_for(10)
    assert set(clients.statuses) <= {200, 404, 503}
    assert server.endpoints() == []
    serve_cell(DOUBLE, "busy")


def test_the_handlers_own_metrics_are_exported(serve_cell, server, wait_until):
    text = """
class H(nbserve.Handler):
    def initialize(self, context):
        self.seen = context.metrics.counter("rows_seen", "rows")
    def handle(self, requests, context):
        self.seen.inc(len(requests))
        return requests
"""
    endpoint = serve_cell(text, "counting")
    for _ in range(3):
        endpoint.predict(1)
    wait_until(lambda: 'rows_seen_total{endpoint="counting"} 3.0' in server.metrics())
    assert 'nbserve_requests_total{endpoint="counting",status="200"} 3.0' in server.metrics()


def test_spans_say_where_the_time_went(serve_cell):
    endpoint = serve_cell(MOODY)
    endpoint.predict("x")
    span = endpoint.spans()[-1]
    assert span["inference_ms"] >= 20
    assert span["total_ms"] >= span["inference_ms"]


def test_what_prometheus_reads_of_times_is_true(serve_cell, server):
    endpoint = serve_cell(MOODY, "timed")
    for _ in range(3):
        endpoint.predict("x")
    text = server.metrics()
    for name in ('queue_seconds_sum{endpoint="timed"}', 'stage_seconds_sum{endpoint="timed",stage="ipc"}'):
        [line] = [line for line in text.splitlines() if line.startswith(f"nbserve_{name}")]
        assert 0 <= float(line.split()[-1]) < 5


def test_an_error_answer_raises_for_programs(serve_cell):
    endpoint = serve_cell(MOODY)
    with pytest.raises(PredictError, match="must not be bad") as caught:
        endpoint.predict("bad")
    assert caught.value.status == 400
    assert not isinstance(caught.value, BadRequest)


def test_a_worker_that_cannot_be_restarted_is_given_up(serve_cell, tmp_path, wait_until, post):
    flag = tmp_path / "broken"
    text = f"""
import os
class H(nbserve.Handler):
    def initialize(self, context):
        if os.path.exists({str(flag)!r}):
            raise RuntimeError("the disk is gone")
    def handle(self, requests, context):
        return requests
"""
    endpoint = serve_cell(text)
    flag.touch()
    os.kill(endpoint.stats()["workers"][0]["pid"], signal.SIGKILL)
    wait_until(lambda: "the disk is gone" in (endpoint.stats()["workers"][0]["last_error"] or ""))
    assert endpoint.stats()["state"] == "DEGRADED"
    flag.unlink()
    wait_until(lambda: endpoint.stats()["state"] == "READY")
    assert post(endpoint.url, 5) == (200, 5)


def test_the_nursery_can_die(serve_cell, server, wait_until, post):
    endpoint = serve_cell(DOUBLE)
    os.kill(server.info()["nursery_pid"], signal.SIGKILL)
    wait_until(lambda: endpoint.stats()["workers"][0]["restarts"] == 1)
    wait_until(lambda: endpoint.stats()["state"] == "READY")
    assert post(endpoint.url, 4) == (200, 8)


def test_the_settings_of_the_bundle_follow(serve_cell):
    endpoint = serve_cell(DOUBLE, "tuned", workers=1)
    bundle = Bundle.read(endpoint.bundle)
    endpoint.configure(max_batch_delay_ms=3, max_batch_size=8)
    endpoint.configure(policy="adaptive", workers=2)
    endpoint.configure(inference_mode=True)
    tuned = Bundle.read(endpoint.bundle)
    assert tuned.settings == {
        "max_batch_delay_ms": 3.0,
        "max_batch_size": 8,
        "policy": "adaptive",
        "workers": 2,
        "inference_mode": True,
    }
    assert (tuned.version, tuned.provenance) == (bundle.version, bundle.provenance)
    assert endpoint.version == bundle.version
    with pytest.raises(ConfigError):
        endpoint.configure(workers=0)
    assert Bundle.read(endpoint.bundle) == tuned
    settings = endpoint.settings
    endpoint.stop()
    assert endpoint.server.deploy(tuned.path, {}).settings == settings


def test_settings_given_with_a_bundle_do_not_change_it(server, make_bundle):
    bundle = make_bundle(DOUBLE, "given", max_batch_size=8)
    endpoint = server.deploy(bundle.path, {"workers": 2})
    try:
        assert endpoint.settings["workers"] == 2
        assert Bundle.read(bundle.path) == bundle
    finally:
        endpoint.stop()


def test_a_read_only_file_system_costs_only_a_line_in_the_log(caplog):
    """Root may write into every folder, so none would do."""

    class ReadOnly:
        version = "v"

        def with_settings(self, settings):
            raise OSError(errno.EROFS, "Read-only file system")

    async def scene():
        endpoint = Endpoint("h", SpanStore(), EndpointMetrics("h", UserMetrics()), lambda *_: None)
        config = EndpointConfig()
        bundle = ReadOnly()

        async def configure(changed):
            endpoint.current.config = changed

        endpoint.current = SimpleNamespace(
            bundle=bundle, version="v", config=config, is_ready=True, is_held=False, configure=configure
        )
        assert (await endpoint.configure({"max_batch_size": 8})).max_batch_size == 8
        assert endpoint.current.bundle is bundle

    logger.addHandler(caplog.handler)
    try:
        asyncio.run(scene())
    finally:
        logger.removeHandler(caplog.handler)
    assert "the settings are not kept in the bundle: [Errno 30] Read-only file system" in caplog.text


def test_a_bundle_that_is_gone_costs_only_a_line_in_the_log(serve_cell, post):
    endpoint = serve_cell(DOUBLE)
    elsewhere = endpoint.bundle.rename(endpoint.bundle.with_name("elsewhere"))
    assert endpoint.configure(max_batch_size=8)["max_batch_size"] == 8
    assert post(endpoint.url, 4) == (200, 8)
    assert "the settings are not kept in the bundle" in endpoint.logs()
    assert Bundle.read(elsewhere).settings == {}
