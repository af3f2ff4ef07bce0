"""The live stream of an endpoint on a real server: what a panel sees."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from nbserve.deployment import Server
from nbserve.errors import BadRequest, NotFound
from nbserve.verbs import Endpoint

pytestmark = pytest.mark.process

ECHO = """
class H(nbserve.Handler):
    def handle(self, requests, context):
        for x in requests:
            if x == "bad":
                raise ValueError("no good")
        return requests
"""


def following(endpoint: Endpoint, interval_s: float = 0.5) -> Iterator[dict[str, Any]]:
    return endpoint.stream(interval_s, limit_s=60)


def samples_until(stream: Iterator[dict[str, Any]], holds: Any) -> dict[str, Any]:
    for line in stream:
        if line["event"] == "stats" and holds(line["sample"]):
            return line
    raise AssertionError("the stream ended before it came true")


def test_a_stream_begins_and_ticks(serve_cell):
    endpoint = serve_cell(ECHO)
    stream = following(endpoint)
    begin, first, second, third = (next(stream) for _ in range(4))
    assert (begin["event"], first["event"]) == ("begin", "stats")
    assert first["endpoint"]["name"] == endpoint.name
    assert first["endpoint"]["server_id"] == endpoint.server.server_id == endpoint.server.info()["server_id"]
    assert first["endpoint"]["settings"] == endpoint.settings
    assert first["load"] is None
    assert (first["sample"]["requests"], first["sample"]["latency_ms"]) == (0, None)
    times = [line["sample"]["time_s"] for line in (first, second, third)]
    assert times == sorted(set(times))
    assert times[2] - times[0] >= 0.9
    again = following(endpoint)
    assert next(again)["samples"][-1]["time_s"] >= times[1]


def test_live_values_move_under_load(serve_cell, load, post):
    endpoint = serve_cell(ECHO)
    stream = following(endpoint)
    assert [next(stream)["event"] for _ in range(2)] == ["begin", "stats"]
    with load(endpoint.url, clients=3) as running:
        line = samples_until(stream, lambda sample: sample["window_s"] > 1.9 and sample["requests"] > 20)
        sample = line["sample"]
        assert sample["throughput"] > 10
        assert 0 < sample["latency_ms"]["p50"] <= sample["latency_ms"]["p95"] <= sample["latency_ms"]["p99"]
        assert sum(size * count for size, count in sample["batch_sizes"]) == sample["requests"]
        assert sample["stages_ms"]["inference"] + sample["stages_ms"]["ipc"] > 0
        first = next(following(endpoint))
        assert first["samples"], "who comes later sees what was before"
        assert post(endpoint.url, "bad")[0] == 500
        line = samples_until(stream, lambda sample: sample["errors"] == 1)
        [worker] = line["endpoint"]["workers"]
        assert (worker["last_error"], worker["last_error_place"]) == (
            "ValueError: no good",
            "test.ipynb, cell 1, line 7",
        )
    assert set(running.statuses) == {200}
    samples_until(stream, lambda sample: sample["requests"] == 0)


def test_a_full_queue_counts_as_errors(serve_cell, post_all):
    slow = "import time\nclass H(nbserve.Handler):\n    def handle(self, requests, context):\n        time.sleep(1)\n"
    endpoint = serve_cell(slow + "        return requests\n", max_batch_size=1, queue_size=1)
    stream = following(endpoint)
    next(stream)
    statuses = [status for status, _ in post_all(endpoint.url, [1] * 6)]
    assert statuses.count(503) >= 3
    line = samples_until(stream, lambda sample: sample["errors"])
    assert line["sample"]["errors"] == statuses.count(503) == line["endpoint"]["requests"]["503"]


def test_several_panels_agree(serve_cell):
    endpoint = serve_cell(ECHO)
    streams = [following(endpoint), following(endpoint)]
    pairs = list(itertools.islice(zip(*streams, strict=True), 6))
    seen = [{line["sample"]["time_s"]: line["sample"] for line in lines[1:]} for lines in zip(*pairs, strict=True)]
    both = seen[0].keys() & seen[1].keys()
    assert len(both) >= 4
    assert all(seen[0][time_s] == seen[1][time_s] for time_s in both)


def test_the_interval_can_be_chosen(serve_cell):
    endpoint = serve_cell(ECHO)
    slow, fast = following(endpoint, 1.0), following(endpoint, 0.1)
    times = [line["sample"]["time_s"] for line in itertools.islice(slow, 1, 4)]
    assert [later - earlier > 0.9 for earlier, later in itertools.pairwise(times)] == [True, True]
    quick = [line["sample"]["time_s"] for line in itertools.islice(fast, 1, 12)]
    assert len(set(quick)) < len(quick), "more often than the sampler: the newest again"
    for wrong in ("0.05", "61", "nan"):
        with pytest.raises(BadRequest, match=f"interval_s is {wrong}; it can be 0.1 to 60"):
            endpoint.server.call("GET", f"{endpoint.path}/stream?interval_s={wrong}")
    with pytest.raises(BadRequest, match="interval_s is 'often'; it takes a number"):
        endpoint.server.call("GET", f"{endpoint.path}/stream?interval_s=often")
    with pytest.raises(NotFound, match="there is no endpoint 'nobody'"):
        endpoint.server.call("GET", "/endpoints/nobody/stream")


def test_it_ends_with_the_endpoint(serve_cell):
    endpoint = serve_cell(ECHO, "ends")
    slow, fast = following(endpoint, 60), following(endpoint, 0.1)
    assert [next(slow)["event"], next(slow)["event"]] == ["begin", "stats"]
    next(fast)
    endpoint.stop()
    assert [line["event"] for line in slow] == ["gone"]
    assert [line["event"] for line in fast][-1] == "gone"
    again = serve_cell(ECHO, "ends")
    assert next(following(again))["samples"] == []


def test_it_ends_with_the_server(make_bundle):
    server = Server.start().ready()
    try:
        stream = following(server.deploy(make_bundle(ECHO, "h").path))
        next(stream)
    finally:
        server.stop()
    assert [line["event"] for line in stream][-1] == "gone"


def test_who_hangs_up_leaves_no_ticking(serve_cell, wait_until):
    endpoint = serve_cell(ECHO)
    streams = [following(endpoint), following(endpoint)]
    for stream in streams:
        next(stream)
        next(stream)
        stream.close()  # type: ignore[attr-defined]

    def was_quiet() -> bool:
        """Whether the newest sample of those before is not from the moment before: nobody had it taken."""
        probe = following(endpoint)
        before, now = next(probe)["samples"], next(probe)["sample"]
        probe.close()  # type: ignore[attr-defined]
        gap_s = float(now["time_s"] - before[-1]["time_s"])
        waited.append(gap_s)
        return gap_s > 0 and gap_s != pytest.approx(0.5, abs=0.02)

    waited: list[float] = []
    wait_until(was_quiet)


def test_any_call_can_be_relayed(serve_cell):
    endpoint = serve_cell(ECHO)
    status, kind, body = endpoint.relay("PATCH", "", json.dumps({"max_batch_size": 3}).encode())
    assert (status, kind) == (200, "application/json")
    assert json.loads(body)["settings"]["max_batch_size"] == 3
    wrong = endpoint.relay("PATCH", "", b'{"max_batch": 3}')
    assert wrong.status == 400
    assert json.loads(wrong.body)["type"] == "ConfigError"
    assert endpoint.relay("GET", "/logs?lines=5").status == 200
    assert endpoint.relay("GET", "/nothing").status == 404
