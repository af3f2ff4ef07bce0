"""Hosts and ports as URLs. Pure; server process."""

from __future__ import annotations

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def own_url(host: str, port: int) -> str:
    """Where this machine reaches a listener."""
    return url_of(own_host(host), port)


def own_host(host: str) -> str:
    """The address for who is on this machine, where a listener has all of its addresses."""
    return _LOOPBACK.get(host, host)
