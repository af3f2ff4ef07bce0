"""Spans: stages that add up, bounded memory, and what they tell of a stretch of time."""

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


def filled(count: int, rows: int, capacity: int = 4096) -> SpanStore:
    """A batch every 100 ms, answered 11 ms after it was sent."""
    store = SpanStore(capacity=capacity)
    for number in range(1, count + 1):
        at_ns = number * 100 * MS
        store.record(0, sent_batch(number, at_ns, rows), stamps_after(at_ns), at_ns + 11 * MS, failed=number % 2)
    return store


def test_what_is_kept_since_a_time_is_counted() -> None:
    kept = filled(100, rows=4).kept(5011 * MS)
    assert (kept.since_ns, kept.failed, kept.batch_sizes) == (5011 * MS, 25, {4: 50})
    assert filled(0, rows=4).kept(5).batch_sizes == {}


def test_where_requests_were_dropped_the_count_begins_later() -> None:
    kept = filled(100, rows=4, capacity=40).kept(0)
    assert kept.batch_sizes == {4: 9}
    assert kept.since_ns == 9111 * MS, "the oldest of ten that are left"
    alone = filled(2, rows=50, capacity=40).kept(0)
    assert (alone.since_ns, alone.batch_sizes) == (211 * MS, {})


@pytest.mark.parametrize("held_since_ns", [0, 999 * MS - MS // 2])
def test_the_mean_of_each_stage_is_that_of_the_spans(held_since_ns: int) -> None:
    store = SpanStore()
    for number, rows in ((1, 2), (2, 5), (3, 1)):
        at_ns = 1000 * MS + number
        batch = sent_batch(number, at_ns, rows, at_ns + number * MS)
        store.record(0, batch, stamps_after(at_ns + number * MS), at_ns + 20 * MS, held_since_ns)
    timings, spans = store.timings(0, 10**15), store.last(100)
    for stage, mean in zip(STAGES, timings.stages_ms, strict=False):
        assert mean == pytest.approx(sum(span[stage] for span in spans) / 8), stage  # type: ignore[literal-required]
    assert timings.latencies_ms == sorted(span["total_ms"] for span in spans)


@pytest.mark.parametrize("rows", [1, 8, 64, 4096])
def test_a_part_of_many_requests_stands_for_all(rows: int) -> None:
    """Row i of a batch took i ms longer than the first."""
    timings = filled(8192 // rows, rows).timings(0, 10**15)
    assert len(timings.latencies_ms) <= 250
    assert timings.latencies_ms == sorted(timings.latencies_ms)
    middle = timings.latencies_ms[len(timings.latencies_ms) // 2]
    assert middle == pytest.approx(14 + (rows - 1) / 2, rel=0.05)
    assert sum(timings.stages_ms) == pytest.approx(14 + (rows - 1) / 2)


def test_nothing_took_no_time() -> None:
    assert filled(3, rows=4).timings(10**12, 10**13) == ([], [])


def test_only_what_was_answered_between_two_times_counts() -> None:
    store = filled(10, rows=1)
    assert store.timings(511 * MS, 811 * MS).latencies_ms == [14.0] * 3
    assert store.timings(0, 111 * MS).latencies_ms == [14.0]


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
