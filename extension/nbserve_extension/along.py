"""Jupyter's server: which headers and query arguments go along with what is relayed. Pure, no I/O.

Jupyter's login stays on this side: neither the handler's code nor its logs may see it. Nor may an answer change it.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote_plus

from tornado.httputil import HTTPHeaders

# They are about one connection, and there are two.
_OF_THE_CONNECTION = frozenset(
    (
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
# The address of a page may have the token in it.
_LOGIN = frozenset(("authorization", "cookie", "referer", "x-csrftoken", "x-xsrftoken"))
LOGIN_ARGUMENTS = frozenset(("_xsrf", "token"))
# What a page of Jupyter's may do is for Jupyter to say.
_FOR_JUPYTER_TO_SAY = frozenset(
    (
        "clear-site-data",
        "content-security-policy",
        "content-security-policy-report-only",
        "date",
        "server",
        "service-worker-allowed",
        "set-cookie",
        "strict-transport-security",
        "x-content-type-options",
        "x-frame-options",
    )
)


def headers_of_request(headers: HTTPHeaders) -> HTTPHeaders:
    return _without(headers, _OF_THE_CONNECTION | _LOGIN)


def headers_of_answer(headers: HTTPHeaders) -> HTTPHeaders:
    """A length goes along: what breaks off is then known to be cut."""
    kept = _without(headers, (_OF_THE_CONNECTION - {"content-length"}) | _FOR_JUPYTER_TO_SAY)
    for name in [name for name in kept if name.lower().startswith("access-control-")]:
        del kept[name]
    return kept


def query_along(query: str, dropped: Iterable[str] = ()) -> str:
    """The query with its question mark, byte for byte but for the arguments that log in, and `dropped`."""
    unwanted = LOGIN_ARGUMENTS.union(dropped)
    kept = [part for part in query.split("&") if part and unquote_plus(part.partition("=")[0]) not in unwanted]
    return f"?{'&'.join(kept)}" if kept else ""


def _without(headers: HTTPHeaders, unwanted: frozenset[str]) -> HTTPHeaders:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    kept = HTTPHeaders()
    for name, value in headers.get_all():
        if name.lower() not in unwanted | named:
            kept.add(name, value)
    return kept
