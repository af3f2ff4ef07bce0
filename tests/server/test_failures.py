"""What is kept of failed requests, and the meta of requests that the server sends itself."""

from __future__ import annotations

from nbserve.server.failures import Failure, Failures
from nbserve.server.own_request import make_meta, with_token


def failure(number: int, size: int = 1) -> Failure:
    return Failure(f"ab-{number}", "no good", b"a=1\0text/plain\0", b"x" * size, 0, 17)


def test_the_newest_are_kept() -> None:
    kept = Failures(most_requests=3)
    for number in range(5):
        kept.add(failure(number))
    assert len(kept) == 3
    assert kept.newest == failure(4)


def test_the_bodies_together_have_a_limit_and_one_above_it_is_not_kept() -> None:
    kept = Failures(most_bytes=100)
    kept.add(failure(1, 60))
    kept.add(failure(2, 40))
    assert len(kept) == 2
    kept.add(failure(3, 1))
    assert len(kept) == 2
    kept.add(failure(4, 101))
    assert kept.newest == failure(3, 1)
    kept.add(failure(5, 100))
    assert len(kept) == 1


def test_a_failure_is_told_without_its_body() -> None:
    assert failure(1, 9).as_object() == {
        "request_id": "ab-1",
        "error": "no good",
        "content_type": "text/plain",
        "body_bytes": 9,
    }


def test_a_token_is_put_into_the_meta_and_takes_the_place_of_an_older_one() -> None:
    assert make_meta("application/json") == b"\0application/json\0"
    marked = with_token(b"a=1\0text/plain\0x-a:1\nx-b:2", "T1")
    assert marked == b"a=1\0text/plain\0x-a:1\nx-b:2\nx-nbserve-debug:T1"
    assert with_token(marked, "T2") == b"a=1\0text/plain\0x-a:1\nx-b:2\nx-nbserve-debug:T2"
    assert with_token(marked, None) == b"a=1\0text/plain\0x-a:1\nx-b:2"
