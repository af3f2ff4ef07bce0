"""What a panel asks a server of a bundle: a request with its time line, what was recorded, the bundle itself."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import tarfile
import threading
from typing import Any

import pytest

from nbserve.bundle.bundle import Bundle
from nbserve.errors import BadRequest, NotFound
from nbserve.verbs import Endpoint

pytestmark = pytest.mark.process

MOODY = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        for x in requests:
            if x == "raise":
                raise ValueError("no good")
            if x == "bad":
                raise nbserve.BadRequest("x must not be bad")
        return [x.decode("latin-1") if isinstance(x, bytes) else x for x in requests]
"""
WAITS = """
import os, time
class H(nbserve.Handler):
    def handle(self, requests, context):
        while not os.path.exists(requests[0]):
            time.sleep(0.01)
        return [1] * len(requests)
"""
LARGE = """
import numpy as np
weights = np.random.default_rng(0).bytes(64_000_000)
class H(nbserve.Handler):
    def handle(self, requests, context):
        return [len(weights)] * len(requests)
"""


def predict(endpoint: Endpoint, **request: Any) -> Any:
    return endpoint.server.call("POST", f"{endpoint.path}/predict", request)


def text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def test_a_request_comes_back_with_its_time_line(serve_cell):
    endpoint = serve_cell(MOODY, "timed")
    answer = predict(endpoint, body="[1, 2]")
    assert (answer["status"], answer["content_type"]) == (200, "application/json")
    assert json.loads(text(answer["body_base64"])) == [1, 2]
    span = answer["span"]
    assert span == endpoint.spans(1)[0]
    assert 0 < span["total_ms"] <= answer["ms"]
    assert span["rows"] == 1
    binary = base64.b64encode(b"\0\xff").decode()
    answer = predict(endpoint, body_base64=binary, content_type="application/octet-stream")
    assert text(answer["body_base64"]) == "\0ÿ"
    assert endpoint.stats()["requests"] == {"200": 2}


def test_only_good_ones_are_recorded(serve_cell):
    endpoint = serve_cell(MOODY)
    assert endpoint.recorded() == []
    predict(endpoint, body="[1]")
    refused, failed = predict(endpoint, body='"bad"'), predict(endpoint, body='"raise"')
    assert (refused["status"], failed["status"]) == (400, 500)
    assert json.loads(text(refused["body_base64"]))["message"] == "x must not be bad"
    assert refused["span"] is not None
    endpoint.predict("three")
    first, second = endpoint.recorded()
    assert (text(first["body_base64"]), first["content_type"], first["status"]) == ("[1]", "application/json", 200)
    assert (text(first["answer_base64"]), first["answer_content_type"]) == ("[1]", "application/json")
    assert text(second["body_base64"]) == "three"
    assert endpoint.recorded(1) == [second]
    assert endpoint.recorded(0) == []


def test_what_is_recorded_at_once_is_all_kept(serve_cell):
    endpoint = serve_cell(MOODY)
    threads = [threading.Thread(target=predict, args=(endpoint,), kwargs={"body": f"[{i}]"}) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {text(pair["body_base64"]) for pair in endpoint.recorded()} == {f"[{i}]" for i in range(12)}


def test_a_request_waits_in_the_queue_like_any_other(serve_cell, asked, wait_until, tmp_path):
    # What waits is no full batch, so that it is not sent ahead to the worker.
    endpoint, sign = serve_cell(WAITS, "waits", max_batch_size=2, queue_size=1), tmp_path / "go on"
    others = [asked(endpoint.url, str(sign))]
    wait_until(lambda: endpoint.stats()["workers"][0]["state"] == "BUSY")
    others.append(asked(endpoint.url, str(sign)))
    wait_until(lambda: endpoint.stats()["queued"] == 1)
    refused = predict(endpoint, body=json.dumps(str(sign)))
    assert (refused["status"], refused["span"]) == (503, None)
    sign.touch()
    assert [other.answer()[0] for other in others] == [200, 200]
    assert endpoint.stats()["requests"] == {"200": 2, "503": 1}


def test_who_hangs_up_leaves_the_queue(serve_cell, asked, wait_until, tmp_path):
    endpoint, sign = serve_cell(WAITS, "hangs-up", max_batch_size=1), tmp_path / "go on"
    others = [asked(endpoint.url, str(sign)) for _ in range(3)]
    wait_until(lambda: endpoint.stats()["queued"] >= 1)
    waiting = endpoint.stats()["queued"]
    with contextlib.closing(opened(endpoint, "POST", "/predict", json.dumps({"body": json.dumps(str(sign))}).encode())):
        wait_until(lambda: endpoint.stats()["queued"] > waiting)
    sign.touch()
    assert [other.answer()[0] for other in others] == [200] * 3
    wait_until(lambda: endpoint.stats()["queued"] == 0)
    assert endpoint.stats()["requests"] == {"200": 3}
    assert endpoint.recorded() == []


def opened(endpoint: Endpoint, method: str, path: str, body: bytes = b"") -> http.client.HTTPConnection:
    """A request to the management API, sent and not yet answered."""
    run_file = endpoint.server.run_file
    connection = http.client.HTTPConnection(run_file.management_url.rpartition("/")[2], timeout=60)
    connection.request(method, endpoint.path + path, body, {"Authorization": f"Bearer {run_file.token}"})
    return connection


def test_wrong_requests_say_what_is_right(serve_cell):
    endpoint = serve_cell(MOODY)
    with pytest.raises(BadRequest, match="a request takes its body as body_base64"):
        predict(endpoint)
    for path in ("predict", "recorded", "bundle"):
        with pytest.raises(NotFound, match="there is no endpoint 'nobody'"):
            endpoint.server.call("POST" if path == "predict" else "GET", f"/endpoints/nobody/{path}", {"body": "1"})
    with pytest.raises(BadRequest, match="last is 'all'; it takes a whole number"):
        endpoint.server.call("GET", f"{endpoint.path}/recorded?last=all")


def test_the_bundle_can_be_taken_along_and_served(serve_cell, server, tmp_path):
    endpoint = serve_cell(MOODY, "along", workers=1)
    endpoint.predict("one")
    endpoint.configure(max_batch_size=8)
    with contextlib.closing(opened(endpoint, "GET", "/bundle")) as connection:
        answer = connection.getresponse()
        body = answer.read()
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/gzip")
        assert answer.headers["Content-Disposition"] == f'attachment; filename="along-{endpoint.version}.tar.gz"'
        assert answer.headers["Content-Length"] == str(len(body))
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert {(member.uid, member.uname) for member in tar} == {(0, "")}
        tar.extractall(tmp_path, filter="data")
    [folder] = tmp_path.glob("along-*")
    bundle = Bundle.read(folder)
    assert (bundle.version, bundle.settings) == (endpoint.version, {"max_batch_size": 8})
    bundle.check()
    assert [pair.request_body for pair in bundle.golden()] == [b"one"]
    served = server.deploy(folder, name="elsewhere")
    assert served.predict("two") == "two"
    served.stop()


def test_a_large_bundle_is_sent_in_pieces_and_a_client_may_hang_up(serve_cell):
    endpoint = serve_cell(LARGE)
    with contextlib.closing(opened(endpoint, "GET", "/bundle")) as connection:
        assert connection.getresponse().read(100)[:2] == b"\x1f\x8b"
    answer = endpoint.relay("GET", "/bundle")
    assert (answer.status, answer.content_type) == (200, "application/gzip")
    assert len(answer.body) > 60_000_000
    log = endpoint.server.run_file.directory / "server.log"
    assert "Traceback" not in log.read_text().partition(f" {endpoint.name} ")[2]
