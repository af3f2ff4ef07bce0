"""The route of the management API that tells how an endpoint does, line by line. Server process."""

from __future__ import annotations

from nbserve.errors import BadRequest
from nbserve.server.api_handler import ApiHandler
from nbserve.server.endpoint import Endpoint
from nbserve.server.live import TICK_S
from nbserve.server.stream import StreamHandler

MOST_OFTEN_S, LEAST_OFTEN_S = 0.1, 60.0


class LiveHandler(StreamHandler):
    """Lines of JSON: `begin` with what was sampled before, `stats` now and at each tick, `gone` with the endpoint."""

    async def get(self, name: str) -> None:
        endpoint = self.server.endpoints.get(name)
        await self.follow(self._follow(endpoint, self._interval_s()))

    async def _follow(self, endpoint: Endpoint, interval_s: float) -> None:
        sampler = endpoint.sampler
        with sampler.followed():
            self.say({"event": "begin", "samples": sampler.before()})
            while not sampler.is_over:
                status = self.server.endpoint_status(endpoint.name)
                also = {"load": endpoint.loads.status(), "export": endpoint.exports.status()}
                await self.say({"event": "stats", "endpoint": status, "sample": sampler.newest, **also})
                await sampler.next(interval_s)
            self.say({"event": "gone"})

    def _interval_s(self) -> float:
        text = self.get_query_argument("interval_s", str(TICK_S))
        try:
            interval_s = float(text)
        except ValueError:
            raise BadRequest(f"interval_s is {text!r}; it takes a number") from None
        if not MOST_OFTEN_S <= interval_s <= LEAST_OFTEN_S:
            raise BadRequest(f"interval_s is {text}; it can be {MOST_OFTEN_S:g} to {LEAST_OFTEN_S:g}")
        return interval_s


def routes(name: str) -> list[tuple[str, type[ApiHandler]]]:
    """The routes below an endpoint; `name` is the pattern of its path."""
    return [(name + "/stream", LiveHandler)]
