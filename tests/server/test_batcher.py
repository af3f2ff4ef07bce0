"""The batcher and what it learns: pure, with simulated time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbserve.config import EndpointConfig
from nbserve.errors import Overloaded
from nbserve.server.batcher import Batcher
from nbserve.server.returns import Returns, ReturnTimes, bucket_end_ns
from nbserve.server.service_times import Rate, ServiceLine
from nbserve.server.ticket import Ticket

MS = 1_000_000


class OneTicket(Ticket):
    __slots__ = ("gone",)

    def __init__(self, number: int, source: Any = None) -> None:
        super().__init__(number, b"", b"", 0, source)
        self.gone = False

    def is_gone(self) -> bool:
        return self.gone


def batcher(**settings: Any) -> Batcher:
    return Batcher(EndpointConfig().changed(settings))


def filled(count: int, **settings: Any) -> Batcher:
    made = batcher(**settings)
    for number in range(count):
        made.add(OneTicket(number), number * MS)
    return made


def numbers(tickets: list[Ticket]) -> list[int]:
    return [ticket.request_id for ticket in tickets]


def test_nothing_is_due_when_nothing_waits_or_no_worker_is_idle() -> None:
    assert batcher().due_in_ns(0, 1) is None
    assert filled(3).due_in_ns(5 * MS, 0) is None


def test_a_lone_request_on_an_idle_server_goes_at_once() -> None:
    assert filled(1).due_in_ns(0, 1) == 0


def test_a_lone_client_that_comes_back_never_waits() -> None:
    made, now_ns = batcher(), 0
    for number in range(100):
        made.add(OneTicket(number, source="only"), now_ns)
        assert made.due_in_ns(now_ns, 1) == 0
        batch = made.take(now_ns)
        now_ns += 5 * MS
        made.finished(batch, 5 * MS, now_ns)
        now_ns += MS // 3


def test_the_window_counts_from_the_oldest_request() -> None:
    made = batcher(max_batch_delay_ms=50.0)
    made.add(OneTicket(1), 100 * MS)
    made.add(OneTicket(2), 140 * MS)
    assert made.due_in_ns(140 * MS, 1) == 10 * MS
    assert made.due_in_ns(151 * MS, 1) == 0


def test_a_full_batch_is_due_at_once_and_the_size_limit_is_live() -> None:
    made = filled(4, max_batch_delay_ms=1000.0)
    assert made.due_in_ns(4 * MS, 1) != 0
    assert not made.has_full_batch()
    made.configure(made.config.changed({"max_batch_size": 3}))
    assert made.due_in_ns(4 * MS, 1) == 0
    assert made.has_full_batch()
    assert numbers(made.take(4 * MS)) == [0, 1, 2]


def test_a_full_queue_refuses_and_says_when_to_try_again() -> None:
    made = batcher(queue_size=40, max_batch_size=2)
    now_ns = 0
    for number in range(0, 20, 2):  # drains 20 rows in 2 s
        for i in (number, number + 1):
            made.add(OneTicket(i), now_ns)
        batch = made.take(now_ns)
        now_ns += 200 * MS
        made.finished(batch, 200 * MS, now_ns)
    for number in range(40):
        made.add(OneTicket(number), now_ns)
    with pytest.raises(Overloaded) as refused:
        made.add(OneTicket(99), now_ns)
    assert 3 <= refused.value.retry_after_s <= 6
    assert len(made) == 40


def test_retry_after_is_at_least_a_second_when_nothing_is_known() -> None:
    assert filled(1, queue_size=1).retry_after_s(0) == 1


def test_retries_come_first_and_alone_and_put_back_keeps_the_order() -> None:
    made = filled(4, max_batch_size=2)
    first = made.take(4 * MS)
    made.put_back(first)
    made.retry(OneTicket(77))
    made.retry(OneTicket(78))
    assert made.due_in_ns(4 * MS, 1) == 0
    assert not made.has_full_batch()
    assert [numbers(made.take(4 * MS)) for _ in range(4)] == [[77], [78], [0, 1], [2, 3]]


def test_tickets_whose_client_has_gone_are_dropped() -> None:
    made = batcher(max_batch_size=2)
    tickets = [OneTicket(number) for number in range(5)]
    for ticket in tickets:
        made.add(ticket, 0)
    tickets[0].gone = tickets[2].gone = True
    assert numbers(made.take(0)) == [1, 3]
    tickets[4].gone = True
    assert made.take(0) == []
    assert len(made) == 0


def test_taking_all_empties_the_queue_with_retries_first() -> None:
    made = filled(2)
    made.retry(OneTicket(9))
    assert numbers(made.take_all()) == [9, 0, 1]
    assert made.waiting == 0


def answered_rounds(made: Batcher, sources: list[str], rounds: int, think_ns: int = MS // 4) -> int:
    """Closed-loop clients, all of them in each batch; gives the time after the last answer."""
    now_ns = MS
    for number in range(rounds):
        for source in sources:
            made.add(OneTicket(number, source), now_ns)
        batch = made.take(now_ns)
        service_ns = 10 * MS + len(batch) * MS // 10
        now_ns += service_ns
        made.finished(batch, service_ns, now_ns)
        now_ns += think_ns
    return now_ns - think_ns


def test_it_waits_for_those_who_come_back_and_goes_when_they_are_there() -> None:
    made, sources = batcher(), [f"client {n}" for n in range(6)]
    now_ns = answered_rounds(made, sources, 20)
    for number, source in enumerate(sources[:-1]):
        made.add(OneTicket(number, source), now_ns + MS // 10)
        wait_ns = made.due_in_ns(now_ns + MS // 10, 1)
        assert wait_ns is not None
        assert 0 < wait_ns < MS
    made.add(OneTicket(5, sources[-1]), now_ns + MS // 5)
    assert made.due_in_ns(now_ns + MS // 5, 1) == 0
    assert made.held_since_ns == 0 or made.held_since_ns <= now_ns
    made.take(now_ns + MS // 5)
    assert made.held_since_ns == now_ns + MS // 10


def test_it_does_not_wait_longer_than_they_usually_take() -> None:
    made, sources = batcher(), [f"client {n}" for n in range(6)]
    now_ns = answered_rounds(made, sources, 20)
    made.add(OneTicket(1, sources[0]), now_ns + MS)
    assert made.due_in_ns(now_ns + MS, 1) == 0


def test_it_does_not_wait_for_connections_that_were_closed() -> None:
    made, sources = batcher(), [f"client {n}" for n in range(6)]
    now_ns = answered_rounds(made, sources, 20)
    for source in sources[1:]:
        made.left(source)
    made.add(OneTicket(1, sources[0]), now_ns)
    assert made.due_in_ns(now_ns, 1) == 0


def test_two_idle_workers_share_what_waits_if_that_is_faster() -> None:
    made = batcher()
    now_ns = 0
    for rows in (4, 16, 8, 12) * 10:
        for number in range(rows):
            made.add(OneTicket(number), now_ns)
        batch = made.take(now_ns)
        now_ns += (1 + rows) * MS
        made.finished(batch, (1 + rows) * MS, now_ns)
    for number in range(16):
        made.add(OneTicket(number), now_ns)
    assert len(made.take(now_ns, idle_workers=2)) == 8
    assert len(made.take(now_ns, idle_workers=1)) == 8


def test_connections_are_forgotten() -> None:
    returns, line = Returns(), ServiceLine(fixed_ns=MS)
    for number in range(100_000):
        returns.answered([number], 0, number * MS, line, 32)
    assert len(returns._young) + len(returns._old) < 20_000
    returns.answered(["last"], 0, 10**15, line, 32)
    returns.answered(["last"], 0, 2 * 10**15, line, 32)
    assert len(returns._young) + len(returns._old) <= 1


def test_buckets_of_return_times_hold_what_they_say() -> None:
    for took_ns in (8, 9, 100, 12_345, 999_999, 3_000_000_000):
        times = ReturnTimes()
        times.add([took_ns])
        index = times.counts.index(1)
        assert bucket_end_ns(index - 1) <= took_ns | 8 < bucket_end_ns(index)


def test_old_return_times_fade() -> None:
    times = ReturnTimes()
    times.add([1000] * 512)
    for _ in range(20):
        times.add([8_000_000] * 100)
    assert times.shares(10_000_000)[0][1] < 0.05
    assert times.total <= 640


@pytest.mark.parametrize(("fixed_ms", "row_ms"), [(4.0, 0.5), (20.0, 0.05), (0.5, 2.0), (0.05, 0.002)])
def test_the_service_line_is_learned_and_kept_while_all_batches_are_alike(fixed_ms: float, row_ms: float) -> None:
    line = ServiceLine()
    line.learn(3, 500 * MS)  # the first batch compiles
    for rows in [1, 7, 30, 12, 5, 20] * 20 + [16] * 300:
        line.learn(rows, (fixed_ms + row_ms * rows) * MS)
    assert line.fixed_ns == pytest.approx(fixed_ms * MS, rel=0.1)
    assert line.at(32) == pytest.approx((fixed_ms + row_ms * 32) * MS, rel=0.1)


def test_a_rate_follows_what_happens_now() -> None:
    rate = Rate()
    for tenth in range(1, 100):
        rate.learn(10 if tenth < 50 else 1, tenth * 100 * MS)
    assert rate.per_second(99 * 100 * MS) == pytest.approx(10, rel=0.2)


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "take", "retry", "put_back", "gone", "finish", "look"]), st.integers(0, 6)),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, policy=st.sampled_from(["adaptive", "window"]), size=st.integers(1, 5), room=st.integers(1, 12))
def test_no_ticket_is_lost_or_served_twice(steps: list[Step], policy: str, size: int, room: int) -> None:
    made = batcher(policy=policy, max_batch_size=size, queue_size=room, max_batch_delay_ms=1.0)
    model: list[OneTicket] = []
    retries: list[OneTicket] = []
    running: list[list[Any]] = []
    now_ns = counter = 0
    for what, how in steps:
        now_ns += how * MS // 2
        if what == "add":
            counter += 1
            ticket = OneTicket(counter, source=how)
            if len(model) >= room:
                with pytest.raises(Overloaded):
                    made.add(ticket, now_ns)
            else:
                made.add(ticket, now_ns)
                model.append(ticket)
        elif what == "take":
            batch = made.take(now_ns, limit=how or None, idle_workers=1 + how % 3)
            assert not any(ticket.gone for ticket in batch)
            assert len(batch) <= min(size, how or size)
            if retries:
                retries = list(retries[retries.index(batch[0]) + 1 :]) if batch else []
                assert len(batch) <= 1
            elif batch:
                ahead = model[: model.index(batch[-1]) + 1]
                assert [t for t in ahead if not t.gone] == batch
                model = model[len(ahead) :]
                # A batch that is not full was also offered those behind it whose clients have gone.
                while len(model) > made.waiting and model[0].gone:
                    del model[0]
            else:
                assert all(t.gone for t in model)
                model = []
            running.append(batch)
        elif what in ("retry", "put_back", "finish") and running:
            batch = running.pop()
            if what == "retry":
                for ticket in batch:
                    made.retry(ticket)
                retries += batch
            elif what == "put_back":
                made.put_back(batch)
                model = batch + model
            else:
                made.finished(batch, 2 * MS, now_ns)
        elif what == "gone" and how < len(model):
            model[how].gone = True
        due_ns = made.due_in_ns(now_ns, how % 3)
        assert (due_ns is None) == (len(made) == 0 or how % 3 == 0)
        assert due_ns is None or due_ns >= 0
        assert len(made) == len(model) + len(retries)
    assert made.take_all() == retries + model


@pytest.fixture(scope="module")
def simulator() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "batching_sim.py"
    spec = importlib.util.spec_from_file_location("batching_sim", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["batching_sim"] = module
    spec.loader.exec_module(module)
    return module


CLOSED = [
    {"clients": 1},
    {"clients": 8, "think_ms": 1.0},
    {"clients": 32, "think_ms": 1.0},
    {"clients": 32, "think_ms": 0.3, "fixed_ms": 20.0, "row_ms": 0.05},
    {"clients": 32, "think_ms": 4.0},
    {"clients": 32, "workers": 2},
    {"clients": 8, "workers": 4, "think_ms": 1.0},
    {"clients": 32, "fixed_ms": 0.05, "row_ms": 0.002, "until_ms": 100.0},
]


@pytest.mark.parametrize("traffic", CLOSED, ids=str)
def test_closed_loop_throughput_is_near_the_best_policy(simulator: ModuleType, traffic: dict[str, Any]) -> None:
    case = simulator.Case(**{"until_ms": 2500.0, **traffic})
    rates = {policy: simulator.simulate(policy, case).per_second for policy in simulator.POLICIES}
    assert rates["adaptive"] >= 0.97 * max(rates.values()), rates


@pytest.mark.parametrize(
    ("load_per_s", "workers", "fixed_ms", "row_ms"),
    [(800.0, 1, 4.0, 0.5), (1270.0, 1, 4.0, 0.5), (1200.0, 1, 20.0, 0.05), (1600.0, 2, 4.0, 0.5)],
)
def test_open_loop_p99_is_near_the_best_policy(
    simulator: ModuleType, load_per_s: float, workers: int, fixed_ms: float, row_ms: float
) -> None:
    case = simulator.Case(open_rate=load_per_s, workers=workers, fixed_ms=fixed_ms, row_ms=row_ms, until_ms=2500.0)
    p99 = {policy: simulator.simulate(policy, case).p99_ms for policy in simulator.POLICIES}
    assert p99["adaptive"] <= 1.15 * min(p99.values()), p99


def test_the_simulator_tells_policies_apart(simulator: ModuleType) -> None:
    case = simulator.Case(clients=32, until_ms=1500.0)
    assert simulator.simulate("idle", case).per_second < 0.95 * simulator.simulate("adaptive", case).per_second


def test_idle_workers_space_out_their_batches_under_open_load(simulator: ModuleType) -> None:
    case = simulator.Case(open_rate=2900.0, workers=4, fixed_ms=20.0, row_ms=0.05, until_ms=1500.0)
    assert simulator.simulate("adaptive", case).p99_ms < 0.8 * simulator.simulate("idle", case).p99_ms


def test_batches_that_never_finish_are_forgotten() -> None:
    made = batcher(max_batch_size=1)
    for number in range(1000):
        made.add(OneTicket(number), number * MS)
        made.take(number * MS)
    assert len(made._ends_ns) < 10
