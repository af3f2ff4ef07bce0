"""What may be asked for when load is put on an endpoint."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from nbserve.errors import BadRequest
from nbserve.load.job import Job
from nbserve.server.load_api import given_in, job_of


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "either a number of clients or a rate"),
        ({"clients": 1, "rate": 1}, "either a number of clients or a rate"),
        ({"clients": 0}, "clients is 0; it takes a whole number from 1 to 1000"),
        ({"clients": True}, "clients is True; it takes a whole number"),
        ({"clients": 1001}, "clients is 1001; it takes a whole number"),
        ({"rate": 0}, "rate is 0; it takes a number above 0"),
        ({"rate": float("nan")}, "rate is nan; it takes a number above 0"),
        ({"rate": "5"}, "rate is '5'; it takes a number above 0"),
        ({"clients": 1, "seconds": 601}, "seconds is 601; it takes a number above 0, up to 600"),
        ({"clients": 1, "seconds": None}, "seconds is None; it takes a number"),
    ],
)
def test_wrong_numbers_say_what_is_right(wish: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        job_of(wish, "http://127.0.0.1:1/predictions/h")


def test_either_clients_or_a_rate() -> None:
    assert job_of({"clients": 3}, "u") == Job("u", 10.0, clients=3, progress_s=0.25)
    job = job_of({"rate": 7, "seconds": 1, "clients": None}, "u")
    assert (job.rate, job.seconds, type(job.rate), type(job.seconds)) == (7.0, 1.0, float, float)


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ({"a": 1}, "it takes a list"),
        ([3], "a request is 3; it takes an object"),
        ([{"content_type": "a\r\nb", "body": ""}], "it takes a text in one line"),
        ([{"content_type": None, "body": ""}], "it takes a text in one line"),
        ([{"body_base64": "!"}], "body_base64 is no base64"),
        ([{"body": 3}], "a request takes its body as body_base64, or as body if it is a text"),
        ([{}], "a request takes its body as body_base64"),
    ],
)
def test_wrong_requests_say_what_is_right(requests: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        given_in({"requests": requests})


def test_a_body_comes_as_text_or_in_base64() -> None:
    encoded = base64.b64encode(b"\0\xff").decode()
    given = given_in({"requests": [{"body": "[1]"}, {"content_type": "image/png", "body_base64": encoded}]})
    assert given == [("application/json", b"[1]"), ("image/png", b"\0\xff")]
    assert given_in({}) == given_in({"requests": []}) == []
