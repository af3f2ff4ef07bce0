"""What an endpoint is asked when somebody measures it: recorded requests, or a given one. Kernel or terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nbserve.bundle.bundle import Bundle, Golden
from nbserve.errors import ProfileError

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint


class Reply(NamedTuple):
    """What an endpoint answered."""

    status: int
    content_type: str
    body: bytes


class Request(NamedTuple):
    """The body of a request and what it is; `recorded` is what was answered once."""

    content_type: str
    body: bytes
    recorded: Reply | None = None


def recorded(endpoint: Endpoint) -> list[Request]:
    """The requests recorded in its bundle that it answered; raises ProfileError when there is none."""
    golden = Bundle.read(endpoint.bundle).golden()
    if found := [_request(pair) for pair in golden if pair.status < 400]:
        return found
    raise ProfileError(
        f"there is nothing to ask {endpoint.name}, as no request of it was recorded: send one "
        f"(%serve predict {endpoint.name} ..., nbserve predict {endpoint.name} ...), or give one (--request JSON)"
    )


def chosen(endpoint: Endpoint, given: Sequence[Request]) -> list[Request]:
    """The given requests, else the recorded ones."""
    return list(given) or recorded(endpoint)


def _request(pair: Golden) -> Request:
    reply = Reply(pair.status, pair.answer_content_type, pair.answer_body)
    return Request(pair.content_type, pair.request_body, reply)
