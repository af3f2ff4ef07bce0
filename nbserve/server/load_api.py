"""The route of the management API that puts load on an endpoint. Server process."""

from __future__ import annotations

import asyncio
from typing import Any

from nbserve.errors import BadRequest, NotFound
from nbserve.load.job import MOST_CONNECTIONS, Job
from nbserve.server.api_handler import ApiHandler
from nbserve.server.bundle_api import body_of
from nbserve.server.endpoint import Endpoint
from nbserve.server.load import PROGRESS_S, Request

MOST_SECONDS = 600.0
MOST_RATE = 100_000.0


class LoadHandler(ApiHandler):
    """Begins and ends load, as from clients: over HTTP, from a process of its own. One run at a time."""

    async def post(self, name: str) -> None:
        endpoint = self.server.endpoints.get(name)
        wish = self.body_object()
        job = job_of(wish, str(self.server.endpoint_status(name)["url"]))
        await endpoint.loads.start(job, given_in(wish) or await recorded_in(endpoint))
        self.send(endpoint.loads.status())

    async def delete(self, name: str) -> None:
        loads = self.server.endpoints.get(name).loads
        await loads.stop()
        if (status := loads.status()) is None:
            raise NotFound(f"no load was put on {name}")
        self.send(status)


def job_of(wish: dict[str, Any], url: str) -> Job:
    """What was asked for; raises BadRequest for what cannot be done."""
    clients, rate, seconds = wish.get("clients"), wish.get("rate"), wish.get("seconds", 10.0)
    if (clients is None) == (rate is None):
        raise BadRequest("load is either a number of clients or a rate in requests a second")
    if clients is not None and (type(clients) is not int or not 1 <= clients <= MOST_CONNECTIONS):
        raise BadRequest(f"clients is {clients!r}; it takes a whole number from 1 to {MOST_CONNECTIONS}")
    if rate is not None and not _is_within(rate, MOST_RATE):
        raise BadRequest(f"rate is {rate!r}; it takes a number above 0, up to {MOST_RATE:g}")
    if not _is_within(seconds, MOST_SECONDS):
        raise BadRequest(f"seconds is {seconds!r}; it takes a number above 0, up to {MOST_SECONDS:g}")
    return Job(
        url=url,
        seconds=float(seconds),
        clients=clients or 1,
        rate=None if rate is None else float(rate),
        progress_s=PROGRESS_S,
    )


def given_in(wish: dict[str, Any]) -> list[Request]:
    """The requests that came along."""
    requests = wish.get("requests") or []
    if not isinstance(requests, list):
        raise BadRequest(f"requests is {requests!r}; it takes a list")
    return [body_of(request) for request in requests]


async def recorded_in(endpoint: Endpoint) -> list[Request]:
    """The requests recorded in its bundle that it answered well."""
    golden = await asyncio.to_thread(endpoint.serving().bundle.golden)
    if found := [(pair.content_type, pair.request_body) for pair in golden if pair.status < 400]:
        return found
    raise BadRequest(
        f"there is nothing to ask {endpoint.name}, as no request of it was recorded: send one first "
        f"(%serve predict {endpoint.name} ..., nbserve predict {endpoint.name} ...)"
    )


def _is_within(value: Any, most: float) -> bool:
    return type(value) in (int, float) and 0 < value <= most


def routes(name: str) -> list[tuple[str, type[ApiHandler]]]:
    """The routes below an endpoint; `name` is the pattern of its path."""
    return [(name + "/load", LoadHandler)]
