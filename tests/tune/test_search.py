"""The search against endpoints made of arithmetic: it finds the best settings, in few measurements, in time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbserve.tune.board import Board, frontier
from nbserve.tune.points import Ask, Goal, Load, Point, Reading, Settings
from nbserve.tune.ramp import Ramp
from nbserve.tune.space import Space, ladder, most_workers, workers_by_device
from tests.tune.simulated import Simulated, answered, fresh, most, space, tuned, within

SHAPES = {
    "cheap": (Simulated(0.2, 0.04), 20.0),
    "waits for a GPU": (Simulated(20, 0.05, waits=True), 60.0),
    "fixed cost of a batch": (Simulated(20, 0.05), 60.0),
    "cost of a row": (Simulated(0.2, 5), 100.0),
    "both": (Simulated(4, 0.5), 50.0),
    "both, little time": (Simulated(4, 0.5), 15.0),
    "padded rows": (Simulated(0.2, 3, padded=1.5), 100.0),
    "padded rows, a cost of a batch": (Simulated(5, 1, padded=2), 100.0),
    "padded rows, eight cores": (Simulated(1, 3, padded=1, cores=8, parallel=0.5), 60.0),
    "threads help": (Simulated(4, 0.5, parallel=0.9), 50.0),
    "eight cores": (Simulated(4, 0.5, cores=8, parallel=0.6), 50.0),
    "many cores": (Simulated(10, 1, cores=64, parallel=0.8), 80.0),
}
OTHER_START = Settings(2, 1, 4, "window", 10.0)


@pytest.mark.parametrize("current", [Settings(), OTHER_START])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_comes_near_the_best_of_all_in_few_measurements(shape: str, current: Settings) -> None:
    kind, p99_ms = SHAPES[shape]
    endpoint, goal = fresh(kind), Goal(p99_ms)
    search, board = tuned(endpoint, goal, current)
    assert within(endpoint, goal, search.leader) >= 0.95 * most(endpoint, goal)
    assert search.is_clear
    assert len(endpoint.asks) <= 80
    assert board.spent_s <= 90


NOISY = {"noise": 0.05, "disturbed": 0.15}


@pytest.mark.parametrize("machine", [{"noise": 0.06}, NOISY, {**NOISY, "drift": 0.3}])
@pytest.mark.parametrize("current", [Settings(), OTHER_START])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_does_so_on_a_machine_that_does_other_things_too(
    shape: str, current: Settings, machine: dict[str, float]
) -> None:
    kind, p99_ms = SHAPES[shape]
    endpoint, goal = fresh(kind, **machine), Goal(p99_ms)
    search, board = tuned(endpoint, goal, current)
    assert within(endpoint, goal, search.leader) >= 0.9 * most(endpoint, goal)
    assert board.spent_s <= 101


@pytest.mark.parametrize("shape", ["both", "cost of a row", "eight cores"])
def test_the_settings_to_beat_get_their_due(shape: str) -> None:
    """What a proof compares with is near the best that they can do, though much was disturbed."""
    kind, p99_ms = SHAPES[shape]
    endpoint, goal = fresh(kind, **NOISY), Goal(p99_ms)
    _, board = tuned(endpoint, goal)
    found = board.best_within(Settings())
    assert found is not None
    assert endpoint.truth(Settings(), found.load)[0] >= 0.9 * within(endpoint, goal, Settings())


PADDED = {
    "padded rows": (Simulated(0.2, 3, padded=1.5), 100.0),
    "half a cache": (Simulated(0.5, 7, padded=0.8), 100.0),
    "eight cores": (Simulated(1, 3, padded=1, cores=8, parallel=0.5), 60.0),
}


@pytest.mark.parametrize("shape", PADDED)
@pytest.mark.parametrize("clients", [4, 16])
def test_batches_stay_small_where_large_ones_are_slower(shape: str, clients: int) -> None:
    """Not only under the few clients that suit large limits: more than those may come."""
    kind, p99_ms = PADDED[shape]
    endpoint, goal = fresh(kind), Goal(p99_ms)
    load = Load(clients * endpoint.cores // 2)
    search, _ = tuned(endpoint, goal)
    assert endpoint.truth(search.leader, load)[0] >= 0.95 * most(endpoint, goal)
    assert endpoint.truth(Settings(workers=endpoint.cores), load)[0] < 0.9 * most(endpoint, goal)


def test_the_best_load_is_found_below_where_a_ramp_begins() -> None:
    endpoint, goal = Simulated(0.5, 7, padded=0.8), Goal(100.0)
    board = Board(goal)
    ramp = Ramp(space(endpoint, goal), board, Settings(), 100.0)
    for settings, rung in ((Settings(), 0), (Settings(workers=2), 8)):
        answered(ramp.climb(settings, rung, 2, 1000.0), endpoint)
    assert ramp.falls
    best = board.best(Settings(workers=2))
    assert best is not None
    assert best.load.clients <= 3
    assert min(point.load.clients for point in board.of(Settings(workers=2))) == 1


def test_more_clients_do_not_get_less_by_one_disturbance() -> None:
    endpoint, goal = Simulated(4, 0.5), Goal(50.0)
    ramp = Ramp(space(endpoint, goal), Board(goal), Settings(), 100.0)
    seen: list[Ask] = []

    def stumble(ask: Ask) -> Reading:
        seen.append(ask)
        found = endpoint.answer(ask)
        is_first = [each.load.clients for each in seen].count(96) == 1
        return replace(found, throughput=found.throughput / 3) if ask.load.clients == 96 and is_first else found

    answered(ramp.climb(Settings(), 0, 4, 0.0), endpoint, stumble)
    assert [ask.load.clients for ask in seen].count(96) == 2
    assert not ramp.falls


@pytest.mark.parametrize("shape", PADDED)
@pytest.mark.parametrize("machine", [{"noise": 0.03}, NOISY])
def test_at_a_rate_batches_stay_small_where_large_ones_are_slower(shape: str, machine: dict[str, float]) -> None:
    kind, p99_ms = PADDED[shape]
    endpoint, goal = fresh(kind, **machine), Goal(p99_ms, rate=50.0)
    search, _ = tuned(endpoint, goal)
    assert within(endpoint, goal, search.leader) >= 0.9 * most(endpoint, goal)


@pytest.mark.parametrize("shape", ["cheap", "waits for a GPU", "cost of a row", "both", "eight cores"])
def test_a_rate_that_must_be_served_is_where_it_begins(shape: str) -> None:
    kind, p99_ms = SHAPES[shape]
    endpoint, goal = fresh(kind, noise=0.03), Goal(p99_ms, rate=100.0)
    search, _ = tuned(endpoint, goal)
    assert all(ask.load.rate is not None and ask.load.rate >= 100 for ask in endpoint.asks)
    # Neighbouring rates are a tenth apart.
    assert within(endpoint, goal, search.leader) >= 0.9 * most(endpoint, goal)


def test_settings_that_cannot_serve_the_rate_are_left_behind() -> None:
    endpoint, goal = Simulated(20, 0.5), Goal(100.0, rate=300.0)
    current = Settings(max_batch_size=1)
    search, board = tuned(endpoint, goal, current)
    assert board.best(current) is None
    best = board.best(search.leader)
    assert best is not None
    assert best.throughput >= 0.95 * 300


def test_a_goal_out_of_reach_ends_soon_with_the_nearest() -> None:
    search, board = tuned(Simulated(40, 1), Goal(20.0))
    assert search.is_clear
    assert board.best(search.leader) is None
    nearest = board.nearest(search.leader)
    assert nearest is not None
    assert (nearest.load, round(nearest.p99_ms)) == (Load(1), 45)
    assert len(board.points) < 10


def test_when_time_is_up_who_keeps_the_goal_leads() -> None:
    endpoint, goal = Simulated(20, 0.5), Goal(100.0, rate=300.0)
    search, board = tuned(endpoint, goal, Settings(max_batch_size=1), budget_s=7.0)
    assert not search.is_clear
    assert board.best(search.leader) is not None


def test_when_time_is_up_who_did_clearly_more_leads() -> None:
    """Its ramp was not over, so it was not crowned."""
    endpoint, goal = Simulated(20, 0.5), Goal(200.0, rate=20.0)
    search, board = tuned(endpoint, goal, Settings(max_batch_size=1), budget_s=25.0)
    own, best = board.best(Settings(max_batch_size=1)), board.best(search.leader)
    assert not search.is_clear
    assert own is not None
    assert best is not None
    assert best.throughput > 1.4 * own.throughput


@pytest.mark.parametrize("how", ["late", "behind"])
def test_a_rate_that_is_not_kept_again_falls_back_to_a_lower_one(how: str) -> None:
    """It is measured a few times more, not for as long as there is time."""
    endpoint, goal = Simulated(20, 0.5), Goal(200.0, rate=20.0)
    lucky, asked = Settings(workers=2, max_batch_size=4), []

    def only_once(ask: Ask) -> Reading:
        found = endpoint.answer(ask)
        if ask.settings != lucky:
            return found
        asked.append(ask.load)
        kept = replace(found, p99_ms=1.0, is_behind=False)
        failed = replace(found, p99_ms=900.0) if how == "late" else replace(kept, is_behind=True)
        return kept if len(asked) == 1 else failed

    search, _ = tuned(endpoint, goal, Settings(max_batch_size=1), budget_s=300.0, answer=only_once)
    assert 2 <= asked.count(asked[0]) <= 4
    assert search.is_clear


def test_little_time_is_no_reason_not_to_see_a_queue_grow() -> None:
    endpoint = Simulated(20, 0.5)
    tuned(endpoint, Goal(500.0, rate=20.0), budget_s=16.0)
    assert all(ask.seconds >= 1.5 for ask in endpoint.asks)


def test_no_window_is_tried_where_one_is_a_full_batch() -> None:
    endpoint = Simulated(0.2, 3, padded=1.5)
    tuned(endpoint, Goal(100.0))
    windows = [ask.settings for ask in endpoint.asks if ask.settings.policy == "window"]
    assert Settings(workers=2, max_batch_size=1) in [ask.settings for ask in endpoint.asks]
    assert all(settings.max_batch_size > 1 for settings in windows)


@pytest.mark.parametrize("budget_s", [5.0, 10.0, 40.0])
def test_it_keeps_to_its_time(budget_s: float) -> None:
    endpoint, goal = Simulated(4, 0.5, cores=8), Goal(50.0)
    search, board = tuned(endpoint, goal, budget_s=budget_s)
    set_up_s = 0.3
    assert board.spent_s <= budget_s + set_up_s
    assert board.best(search.leader) is not None
    assert search.is_clear is (budget_s > 10)


def test_the_same_measurements_lead_to_the_same_questions() -> None:
    first, second = fresh(Simulated(4, 0.5), noise=0.05), fresh(Simulated(4, 0.5), noise=0.05)
    tuned(first, Goal(50.0))
    tuned(second, Goal(50.0))
    assert first.asks == second.asks


def test_what_is_as_good_with_fewer_workers_is_better() -> None:
    # The server in front is what bounds it.
    endpoint = Simulated(1, 0.01, front_per_s=3000, noise=0.02)
    search, _ = tuned(endpoint, Goal(50.0), Settings(workers=2))
    assert search.leader.workers == 1


def test_batches_that_never_fill_are_not_made_larger() -> None:
    endpoint = Simulated(0.1, 5)
    tuned(endpoint, Goal(30.0), Settings(workers=2))
    assert not any(ask.why == "batch size" and ask.settings.max_batch_size > 32 for ask in endpoint.asks)


def test_later_ramps_begin_near_the_best_load() -> None:
    endpoint = Simulated(4, 0.5)
    tuned(endpoint, Goal(50.0))
    loads = [ask.load.clients for ask in endpoint.asks if ask.why == "batch size"]
    assert min(loads) >= 16


def test_a_setting_that_fails_is_left_behind() -> None:
    endpoint = Simulated(4, 0.5)

    def answer(ask: Ask) -> Reading:
        errors = {"500": 3} if ask.settings.max_batch_size > 32 else {}
        return replace(endpoint.answer(ask), errors=errors)

    search, board = tuned(endpoint, Goal(50.0), answer=answer)
    assert search.leader.max_batch_size <= 32
    assert board.best(search.leader) is not None


def test_measurements_of_slow_handlers_take_longer() -> None:
    fast, slow = Simulated(0.2, 0.04), Simulated(0.2, 20)
    tuned(fast, Goal(20.0))
    tuned(slow, Goal(500.0))
    assert fast.asks[5].seconds == pytest.approx(0.7)
    assert slow.asks[5].seconds > 2.0


def test_the_frontier_is_what_nothing_beats_in_both() -> None:
    def point(p99_ms: float, throughput: float, **errors: int) -> Point:
        return Point(Settings(), Load(), [Reading(throughput, 1.0, p99_ms, 100, 1.0, errors)])

    points = [point(10, 100), point(20, 90), point(30, 200), point(30, 150), point(5, 50), point(1, 900, broken=1)]
    assert [(p.p99_ms, p.throughput) for p in frontier(points)] == [(5, 50), (10, 100), (30, 200)]


def test_of_two_readings_the_less_disturbed_one_counts() -> None:
    readings = [Reading(100, 1.0, 50.0, 100, 1.0), Reading(110, 1.0, 8.0, 100, 1.0)]
    point = Point(Settings(), Load(), readings)
    assert (point.throughput, point.p99_ms) == (110, 8.0)
    assert point.keeps(8.0)
    readings.append(Reading(120, 1.0, 9.0, 100, 1.0))
    assert (point.throughput, point.p99_ms) == (110, 9.0)


def test_who_falls_behind_does_not_keep_the_goal() -> None:
    behind = Reading(90, 1.0, 5.0, 100, 1.0, is_behind=True)
    assert not Point(Settings(), Load(rate=100.0), [behind]).keeps(10.0)
    assert Point(Settings(), Load(rate=100.0), [behind, replace(behind, is_behind=False)]).keeps(10.0)


def test_settings_are_read_from_those_of_an_endpoint() -> None:
    every = {"queue_size": 9, "workers": 3, "threads_per_worker": 2, "max_batch_size": 4, "max_batch_delay_ms": 7.0}
    assert Settings.of({**every, "policy": "adaptive"}) == Settings(3, 2, 4, "adaptive", 0.0)
    window = Settings.of({**every, "policy": "window"})
    assert window == Settings(3, 2, 4, "window", 7.0)
    assert window.words() == "3 workers of 2 threads, batch 4, window 7 ms"
    assert Settings().words() == "1 worker, batch 32, adaptive"


def test_lines_pass_through_where_they_begin() -> None:
    every = Space(Goal(20.0), cores=8, most_workers=8)
    odd = Settings(workers=5, threads_per_worker=1, max_batch_size=50, policy="window", max_batch_delay_ms=3.0)
    assert [s.workers for s in every.line("workers", odd)] == [1, 2, 3, 4, 5, 6, 8]
    assert [s.max_batch_size for s in every.line("batch size", odd)][:8] == [1, 2, 4, 8, 16, 32, 50, 64]
    delays = [s.max_batch_delay_ms for s in every.line("policy", odd) if s.policy == "window"]
    assert delays == [0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0]
    assert all(odd in every.line(coordinate, odd) for coordinate in ("workers", "batch size", "threads", "policy"))


def test_batches_of_one_wait_for_nothing() -> None:
    every = Space(Goal(20.0), cores=8, most_workers=8)
    window = Settings(max_batch_size=4, policy="window", max_batch_delay_ms=5.0)
    assert every.line("batch size", window)[0] == Settings(max_batch_size=1)
    assert every.line("policy", Settings(max_batch_size=1)) == [Settings(max_batch_size=1)]
    one = replace(window, max_batch_size=1)
    assert one in every.line("batch size", one)
    assert every.line("policy", one)[0] == Settings(max_batch_size=1)
    assert one in every.line("policy", one)


def test_threads_never_outnumber_the_cores() -> None:
    every = Space(Goal(20.0), cores=8, most_workers=8)
    threads = [s.threads_per_worker for s in every.line("threads", Settings(workers=2))]
    assert threads == [1, 2, 0]
    more = every.line("workers", Settings(workers=2, threads_per_worker=4))
    assert [(s.workers, s.threads_per_worker) for s in more] == [
        (1, 4),
        (2, 4),
        (3, 0),
        (4, 0),
        (6, 0),
        (8, 0),
    ]


def test_a_queue_bounds_the_clients() -> None:
    loads = Space(Goal(20.0), cores=2, most_workers=2, queue_size=10).loads()
    assert [load.clients for load in loads] == ladder(10) == [1, 2, 3, 4, 6, 8, 10]


def test_workers_are_bounded_by_device_and_memory() -> None:
    assert [workers_by_device(8, 0, False), workers_by_device(8, 2, True)] == [8, 4]
    gib = 2**30
    assert most_workers(8, gib // 4, 100 * gib, beside=1) == 8
    assert most_workers(8, gib, 5 * gib, beside=1) == 4
    assert most_workers(8, gib, gib // 2, beside=1) == 1


def test_an_ask_says_what_it_is_about() -> None:
    endpoint = Simulated(4, 0.5)
    tuned(endpoint, Goal(50.0))
    assert {ask.why for ask in endpoint.asks} >= {"the current settings", "well-known settings", "batch size"}
    assert all(isinstance(ask, Ask) and 0 < ask.warm_s < ask.seconds for ask in endpoint.asks)
