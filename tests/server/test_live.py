"""Samples of what an endpoint does: exact counts, weighted times, a window that begins before anybody looks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nbserve.server.live import Live, Sample
from nbserve.server.metrics import EndpointMetrics
from nbserve.server.spans import STAGES, SpanStore
from nbserve.server.ticket import Ticket
from nbserve.server.user_metrics import UserMetrics
from nbserve.wire import Stamps

MS = 1_000_000
S = 1000 * MS


class Scene:
    """An endpoint that answers what a test says, at the test's time, which only ever goes on."""

    def __init__(self, capacity: int = 4096) -> None:
        self.spans = SpanStore(capacity=capacity)
        self.metrics = EndpointMetrics("h", UserMetrics())
        self.live = Live(self.spans, self.metrics)
        self.now_ns = 1000 * S

    def answer(self, rows: int, took_ms: float = 10, failed: int = 0, batches: int = 1) -> None:
        """Batches that are answered right after now; their rows spent a tenth of their time in the queue."""
        self.now_ns += 1
        took_ns = int(took_ms * MS)
        sent_ns = self.now_ns - took_ns * 9 // 10
        tickets = [Ticket(i, b"", b"", self.now_ns - took_ns) for i in range(rows)]
        for ticket in tickets:
            ticket.queued_ns = ticket.received_ns
        batch = SimpleNamespace(batch_id=1, tickets=tickets, sent_ns=sent_ns, started_ns=sent_ns)
        statuses = [200] * (rows - failed) + [500] * failed
        for _ in range(batches):
            self.spans.record(0, batch, Stamps(), self.now_ns, failed=failed)
            self.metrics.observe_batch(tickets, sent_ns, statuses, Stamps(), self.now_ns)

    def begin(self) -> Sample:
        self.live.begin(self.now_ns)
        return self.sample(0)

    def sample(self, after_s: float = 0.5, queued: int = 0) -> Sample:
        self.now_ns += int(after_s * S)
        return self.live.sample(self.now_ns, self.now_ns / S, queued)


def test_a_quiet_endpoint_has_zeros_and_no_latency() -> None:
    scene = Scene()
    assert scene.begin() == {
        "time_s": 1000.0,
        "window_s": 2.0,
        "requests": 0,
        "throughput": 0.0,
        "errors": 0,
        "latency_ms": None,
        "queued": 0,
        "batches": 0,
        "mean_batch_size": 0.0,
        "batch_sizes": [],
        "stages_ms": {stage.removesuffix("_ms"): 0.0 for stage in STAGES if stage != "total_ms"},
    }


def test_the_first_sample_tells_of_what_was_before() -> None:
    scene = Scene()
    scene.answer(rows=5)
    scene.now_ns += 3 * S
    scene.answer(rows=4, failed=1)
    scene.answer(rows=2)
    scene.now_ns += S
    first = scene.begin()
    assert (first["requests"], first["errors"], first["throughput"]) == (6, 1, 2.5)
    assert (first["batches"], first["mean_batch_size"], first["batch_sizes"]) == (2, 3.0, [(2, 1), (4, 1)])
    assert first["latency_ms"] == {"p50": 10.0, "p95": 10.0, "p99": 10.0}
    assert first["stages_ms"]["queue"] == 1.0


def test_what_is_older_than_the_window_is_left_out() -> None:
    scene = Scene()
    scene.begin()
    scene.answer(rows=8)
    seen = [scene.sample()["requests"] for _ in range(6)]
    assert seen == [8, 8, 8, 8, 0, 0]
    assert scene.live.newest["latency_ms"] is None


def test_counts_are_exact_however_little_is_kept() -> None:
    """Forty thousand requests a second, of which the store knows the last tenth of a second."""
    scene = Scene(capacity=4096)
    scene.begin()
    for _ in range(8):
        scene.answer(rows=32, batches=624, failed=2)
        scene.answer(rows=16, batches=2)
        sample = scene.sample()
    assert sample["requests"] == 80_000
    assert sample["errors"] == 4 * 624 * 2
    assert sample["throughput"] == (80_000 - sample["errors"]) / 2
    assert sample["batch_sizes"] == [(16, 8), (32, 2496)]
    assert sample["mean_batch_size"] == pytest.approx(80_000 / 2504, abs=0.001)


def test_the_first_sample_of_a_busy_endpoint_says_which_time_it_covers() -> None:
    scene = Scene(capacity=400)
    for _ in range(100):
        scene.answer(rows=40)
        scene.now_ns += MS
    first = scene.begin()
    assert first["window_s"] == 0.01
    assert first["throughput"] == pytest.approx(40_000, rel=0.15)


def test_requests_that_no_worker_saw_are_counted_and_have_no_latency() -> None:
    scene = Scene()
    scene.begin()
    for _ in range(3):
        scene.metrics.count_refused(503)
    sample = scene.sample(queued=7)
    assert (sample["requests"], sample["errors"], sample["throughput"], sample["queued"]) == (3, 3, 0.0, 7)
    assert (sample["batches"], sample["latency_ms"]) == (0, None)


def test_each_stretch_weighs_as_much_as_it_answered() -> None:
    """Of both the store keeps some forty, but there were ten times as many fast ones."""
    scene = Scene(capacity=40)
    scene.begin()
    scene.answer(rows=10, took_ms=10, batches=90)
    scene.sample()
    scene.answer(rows=10, took_ms=100, batches=10)
    sample = scene.sample()
    assert sample["latency_ms"] == {"p50": 10.0, "p95": 100.0, "p99": 100.0}
    assert sample["stages_ms"]["queue"] == pytest.approx(1.9)
    scene.answer(rows=10, took_ms=10, batches=100)
    assert scene.sample()["latency_ms"] == {"p50": 10.0, "p95": 10.0, "p99": 100.0}


def test_the_first_samples_let_go_of_what_was_before_step_by_step() -> None:
    """A second before somebody looks a batch of each size is answered; the window of later samples is no longer."""
    scene = Scene()
    for rows in (1, 2, 3):
        scene.answer(rows, took_ms=rows)
        scene.now_ns += S // 2
    seen = [scene.begin(), *(scene.sample() for _ in range(4))]
    assert [sample["window_s"] for sample in seen] == [2.0] * 5
    assert [sample["requests"] for sample in seen] == [6, 5, 3, 0, 0]
    assert [sample["latency_ms"] and sample["latency_ms"]["p50"] for sample in seen] == [2.0, 3.0, 3.0, None, None]


def test_a_late_tick_covers_a_longer_window() -> None:
    scene = Scene()
    scene.begin()
    scene.answer(rows=6)
    sample = scene.sample(after_s=3.0)
    assert (sample["window_s"], sample["requests"], sample["throughput"]) == (3.0, 6, 2.0)
    assert [scene.sample()["window_s"] for _ in range(5)] == [3.5, 4.0, 4.5, 2.0, 2.0]


def test_who_begins_again_sees_the_samples_of_the_last_two_minutes() -> None:
    scene = Scene()
    scene.begin()
    for _ in range(300):
        scene.sample()
    assert len(scene.live.before()) == 239
    scene.now_ns += 60 * S
    scene.answer(rows=1)
    first = scene.begin()
    assert first["requests"] == 1
    before = scene.live.before()
    assert len(before) == 121
    assert before[-1]["time_s"] == first["time_s"] - 60
