"""What goes along with a relayed request or answer, and what must not."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders

from nbserve_extension.along import headers_of_answer, headers_of_request, query_along


def headers(*lines: str) -> HTTPHeaders:
    return HTTPHeaders.parse("".join(f"{line}\r\n" for line in lines))


def test_what_a_client_says_goes_along_but_neither_its_login_nor_the_connection():
    given = headers(
        "Content-Type: text/csv",
        "X-Request-Id: 7",
        "X-Twice: a",
        "X-Twice: b",
        "Host: jupyter",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "Transfer-Encoding: chunked",
        "Content-Length: 3",
        "Expect: 100-continue",
        "Authorization: token secret",
        "Cookie: login=secret",
        "X-XSRFToken: secret",
        "X-Csrftoken: secret",
        "Referer: http://jupyter/lab?token=secret",
    )
    kept = sorted(headers_of_request(given).get_all())
    assert kept == [("Content-Type", "text/csv"), ("X-Request-Id", "7"), ("X-Twice", "a"), ("X-Twice", "b")]


def test_an_answer_cannot_change_what_jupyter_says_to_browsers():
    given = headers(
        "Content-Type: text/html",
        "Content-Length: 5",
        "Retry-After: 1",
        "X-Mine: 1",
        "Set-Cookie: _xsrf=mine",
        "Content-Security-Policy: default-src *",
        "Access-Control-Allow-Origin: *",
        "X-Content-Type-Options: sniff",
        "Clear-Site-Data: cookies",
        "Connection: close",
        "Date: today",
    )
    kept = sorted(headers_of_answer(given).get_all())
    assert kept == [("Content-Length", "5"), ("Content-Type", "text/html"), ("Retry-After", "1"), ("X-Mine", "1")]


@pytest.mark.parametrize(
    ("query", "along"),
    [
        ("", ""),
        ("token=secret", ""),
        ("a=1&token=secret&b=%20+&_xsrf=secret&a=2", "?a=1&b=%20+&a=2"),
        ("to%6ben=secret&tokens=3&token", "?tokens=3"),
        ("server=abc&x", "?server=abc&x"),
    ],
)
def test_a_query_goes_along_byte_for_byte_without_the_login(query, along):
    assert query_along(query) == along


def test_what_is_meant_for_jupyter_stays_there():
    assert query_along("server=abc&last=3", ["server"]) == "?last=3"
