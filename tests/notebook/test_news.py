"""When a picture is drawn again: the tests own the clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nbserve.config import EndpointConfig
from nbserve.notebook.live import Live
from nbserve.notebook.news import REST_S, News
from tests.notebook.played import endpoint, live, worker


def looks(news: News, answers: Iterator[int] | list[int], since_s: float = 0.0) -> list[float]:
    """When it was due, looking every two seconds while so many requests were answered."""
    times_s = ((since_s + 2 * (i + 1), count) for i, count in enumerate(answers))
    return [time_s for time_s, count in times_s if news.is_due(live(answers=count), time_s)]


def test_an_idle_endpoint_has_no_news() -> None:
    assert looks(News(live(answers=7), 0.0), [7] * 500) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": EndpointConfig(max_batch_size=9).as_dict()},
        {"workers": [worker(), worker(1)]},
        {"workers": [worker(state="HELD")]},
        {"workers": [worker(last_error="ValueError: no")]},
        {"workers": [worker(pid=77)]},
        {"version": "0a0b0c0d0e0f"},
        {"state": "DRAINING"},
    ],
)
def test_a_change_is_drawn_once_and_not_too_soon(changes: dict[str, Any]) -> None:
    news = News(live(), 0.0)
    changed = live(**changes)
    assert not news.is_due(changed, REST_S - 1)
    assert news.is_due(changed, REST_S)
    assert not news.is_due(changed, 100.0)


def test_a_worker_that_works_is_no_news() -> None:
    assert not News(live(), 0.0).is_due(live(workers=[worker(state="BUSY", batches=9, cpu_percent=97.0)]), 60.0)


def test_a_load_that_begins_and_ends_is_news() -> None:
    news = News(live(), 0.0)
    loaded = Live(endpoint=endpoint(), load={"is_running": True})
    assert news.is_due(loaded, 20.0)
    assert not news.is_due(loaded, 40.0)
    assert news.is_due(Live(endpoint=endpoint(), load={"is_running": False}), 60.0)


def test_traffic_is_drawn_as_it_begins_fills_the_charts_and_ends() -> None:
    news = News(live(), 0.0)
    assert looks(news, [0] * 10) == []
    going = looks(news, range(1, 201), since_s=20.0)
    assert going == [22.0, 42.0, 142.0]
    assert looks(news, [200] * 100, since_s=420.0) == [422.0]


def test_a_single_request_is_drawn_twice_at_most() -> None:
    news = News(live(), 0.0)
    assert len(looks(news, [0] * 10 + [1] * 100)) <= 2


def test_what_came_too_soon_is_drawn_later() -> None:
    news = News(live(), 0.0)
    assert looks(news, [1] * 100) == [REST_S]


def test_the_end_is_drawn_at_once() -> None:
    gone = live()
    gone.is_gone = True
    assert News(live(), 0.0).is_due(gone, 0.1)
