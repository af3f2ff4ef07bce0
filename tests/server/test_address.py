"""Hosts and ports as URLs."""

from __future__ import annotations

import pytest

from nbserve.server.address import own_url, url_of


def test_a_host_of_colons_is_put_in_brackets() -> None:
    assert url_of("::1", 80) == "http://[::1]:80"
    assert url_of("0.0.0.0", 80) == "http://0.0.0.0:80"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("10.0.0.1", "http://10.0.0.1:1"),
    ],
)
def test_a_listener_on_all_addresses_is_reached_at_loopback(host: str, url: str) -> None:
    assert own_url(host, 1) == url
