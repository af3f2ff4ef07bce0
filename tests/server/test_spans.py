"""Spans: stages that add up, bounded memory, and the summary."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from nbserve.server.spans import STAGES, SpanStore
from nbserve.server.ticket import Ticket
from nbserve.wire import Stamps

MS = 1_000_000


@dataclass
class Sent:
    """Stands for the channel's record of a batch."""

    batch_id: int
    sent_ns: int
    started_ns: int
    tickets: list[Ticket] = field(default_factory=list)


def sent_batch(number: int, at_ns: int, rows: int = 2, started_ns: int = 0) -> Sent:
    """Row i was received 3+i ms and queued 2+i ms before dispatch."""
    batch = Sent(number, at_ns, started_ns or at_ns)
    for i in range(rows):
        ticket = Ticket(number * 100 + i, b"", b"", at_ns - (3 + i) * MS)
        ticket.queued_ns = at_ns - (2 + i) * MS
        batch.tickets.append(ticket)
    return batch


def stamps_after(at_ns: int) -> Stamps:
    return Stamps(*(at_ns + ms * MS for ms in (1, 3, 7, 8, 10)))


def test_a_span_tells_every_stage() -> None:
    store, at_ns = SpanStore("ab12cd"), 1000 * MS
    store.record(3, sent_batch(1, at_ns), stamps_after(at_ns), at_ns + 11 * MS)
    first, second = store.last(10)
    assert first == {
        "request_id": "ab12cd-64",
        "batch_id": 1,
        "rows": 2,
        "worker": 3,
        "received_ns": 997 * MS,
        "receive_ms": 1.0,
        "queue_ms": 2.0,
        "batch_wait_ms": 0.0,
        "ipc_ms": 1.0,
        "preprocess_ms": 2.0,
        "inference_ms": 4.0,
        "postprocess_ms": 1.0,
        "encode_ms": 2.0,
        "respond_ms": 1.0,
        "total_ms": 14.0,
    }
    assert second["queue_ms"] == 3.0
    assert second["total_ms"] == 15.0


def test_the_wait_for_company_is_told_apart_from_the_wait_for_a_worker() -> None:
    store, at_ns = SpanStore(), 1000 * MS
    held_since_ns = at_ns - 5 * MS // 2  # after the second row was queued, before the first
    store.record(0, sent_batch(1, at_ns), stamps_after(at_ns), at_ns + 11 * MS, held_since_ns)
    first, second = store.last(2)
    assert (first["queue_ms"], first["batch_wait_ms"]) == (0.0, 2.0)
    assert (second["queue_ms"], second["batch_wait_ms"]) == (0.5, 2.5)


def test_time_behind_another_batch_counts_as_queue_not_as_transport() -> None:
    store, at_ns = SpanStore(), 1000 * MS
    batch = sent_batch(1, at_ns, rows=1, started_ns=at_ns + 20 * MS)
    store.record(0, batch, stamps_after(at_ns + 20 * MS), at_ns + 31 * MS)
    (span,) = store.last(1)
    assert (span["queue_ms"], span["ipc_ms"]) == (22.0, 1.0)


@pytest.mark.parametrize("stamps", [Stamps(), Stamps(1001 * MS, 1002 * MS), stamps_after(1000 * MS)], ids=str)
@pytest.mark.parametrize("started_ns", [0, 1004 * MS])
def test_stages_add_up_even_when_a_batch_failed_early(stamps: Stamps, started_ns: int) -> None:
    store = SpanStore()
    store.record(0, sent_batch(1, 1000 * MS, started_ns=started_ns), stamps, 1012 * MS, 999 * MS)
    for span in store.last(2):
        durations = [span[stage] for stage in STAGES]  # type: ignore[literal-required]
        assert sum(durations[:-1]) == pytest.approx(durations[-1])
        assert min(durations) >= 0


def test_the_newest_requests_come_last_and_old_ones_are_dropped() -> None:
    store = SpanStore(capacity=10)
    for number in range(1, 20):
        store.record(0, sent_batch(number, number * 100 * MS), stamps_after(number * 100 * MS), number * 200 * MS)
    assert len(store) == 10
    assert [int(span["request_id"], 16) for span in store.last(3)] == [1801, 1900, 1901]
    assert len(store.last(1000)) == 10
    assert store.last(0) == []


def test_a_batch_larger_than_the_store_is_kept_alone() -> None:
    store = SpanStore(capacity=4)
    for number in (1, 2):
        store.record(0, sent_batch(number, number * 100 * MS, rows=9), Stamps(), number * 200 * MS)
    assert len(store) == 9
    assert {span["batch_id"] for span in store.last(100)} == {2}


def test_the_summary_covers_just_its_window() -> None:
    store = SpanStore()
    for number in range(1, 101):
        at_ns = number * 100 * MS
        store.record(0, sent_batch(number, at_ns, rows=4), stamps_after(at_ns), at_ns + 11 * MS)
    summary = store.summary(5.0, 100 * 100 * MS + 11 * MS)
    assert summary["batches"] == 50
    assert summary["requests"] == 200
    assert summary["throughput"] == pytest.approx(40)
    assert summary["mean_batch_size"] == 4
    assert summary["stages"]["inference_ms"] == {"p50": 4.0, "p95": 4.0, "p99": 4.0}
    assert summary["stages"]["queue_ms"]["p99"] == 5.0


def test_the_throughput_is_right_when_the_store_holds_less_than_the_window() -> None:
    store = SpanStore(capacity=40)
    for number in range(1, 101):
        store.record(0, sent_batch(number, number * 100 * MS, rows=4), Stamps(), number * 100 * MS)
    assert store.summary(60.0, 100 * 100 * MS)["throughput"] == pytest.approx(40, rel=0.15)


def test_the_summary_of_nothing_is_zeros() -> None:
    summary = SpanStore().summary(10.0, MS)
    assert summary["throughput"] == summary["mean_batch_size"] == summary["requests"] == 0
    assert summary["stages"]["total_ms"] == {"p50": 0.0, "p95": 0.0, "p99": 0.0}


def test_a_collector_keeps_what_its_source_answers_however_little_the_store_holds() -> None:
    store, mine = SpanStore("ab", capacity=4), object()
    collector = store.collect(mine)
    collector.workers.add(0)
    for number in range(1, 1001):
        at_ns = number * 100 * MS
        source = mine if number % 2 else object()
        store.record(number % 4, sent_batch(number, at_ns), stamps_after(at_ns), at_ns + 11 * MS, source=source)
    store.stop_collecting(collector)
    store.record(1, sent_batch(1001, 100_100 * MS), Stamps(), 100_200 * MS, source=mine)
    chunks = list(collector.spans(0, 10**15, ()))
    assert [span["batch_id"] for chunk in chunks for span in chunk] == [n for n in range(1, 1001, 2) for _ in (0, 1)]
    assert max(map(len, chunks)) < 600
    assert chunks[0][0]["request_id"] == "ab-64"
    assert collector.batches == 0, "worker 0 had the even ones"


def test_a_collector_tells_what_was_answered_meanwhile_and_what_was_recorded() -> None:
    store, mine = SpanStore(), object()
    collector = store.collect(mine)
    collector.workers.add(3)
    for number in range(1, 11):
        at_ns = number * 100 * MS
        store.record(3, sent_batch(number, at_ns, rows=1), stamps_after(at_ns), at_ns + 11 * MS, source=mine)
    [spans] = collector.spans(300 * MS, 510 * MS, {7})
    assert [span["batch_id"] for span in spans] == [3, 4, 5, 7]
    assert collector.batches == 10


def test_a_collector_keeps_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbserve.server.spans.MOST_COLLECTED", 10)
    store, mine = SpanStore(), object()
    collector = store.collect(mine)
    for number in range(1, 20):
        store.record(0, sent_batch(number, number * 100 * MS), Stamps(), number * 200 * MS, source=mine)
    assert sum(map(len, collector.spans(0, 10**15, ()))) == 10
