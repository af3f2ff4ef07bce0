"""The listener that shows metrics, and nothing else, without a token: for scrapers. Server process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from nbserve.config import ServerConfig
from nbserve.errors import HttpError, NotFound
from nbserve.server.http.server import Exchange, HttpServer

# Scrapers are few, and send no bodies.
MOST_CONNECTIONS = 64


class MetricsApi:
    """Answers `GET /metrics` with what `render` gives: a body and its content type."""

    def __init__(self, render: Callable[[], tuple[bytes, str]]) -> None:
        self._render = render

    def check(self, exchange: Exchange) -> None:
        if exchange.path != b"/metrics":
            raise NotFound("this port has /metrics alone")
        if exchange.method not in (b"GET", b"HEAD"):
            raise HttpError(405, f"this path takes GET, not {exchange.method.decode()}", b"Allow: GET, HEAD\r\n")

    def dispatch(self, exchange: Exchange) -> None:
        body, content_type = self._render()
        exchange.answer(200, body, content_type.encode())

    def left(self, connection: int) -> None:
        """Nothing waits for a scraper."""


def metrics_server(
    render: Callable[[], tuple[bytes, str]], config: ServerConfig, loop: asyncio.AbstractEventLoop
) -> HttpServer:
    return HttpServer(MetricsApi(render), replace(config, max_connections=MOST_CONNECTIONS, max_body_bytes=1), loop)
