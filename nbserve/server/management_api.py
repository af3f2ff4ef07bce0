"""The management API: a Tornado application on a listener of its own, behind the server's token. Server process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tornado.httpserver
import tornado.web
from tornado.netutil import bind_sockets

from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig
from nbserve.errors import ConfigError, NotFound
from nbserve.server import bundle_api, debug_api, export_api, load_api, profile_api, stream_api, trial_api
from nbserve.server.address import own_url
from nbserve.server.api_handler import ApiHandler, Managed
from nbserve.server.stream import StreamHandler


class ServerHandler(ApiHandler):
    def get(self) -> None:
        self.send(self.server.status())


class EndpointsHandler(ApiHandler):
    def get(self) -> None:
        self.send(self.server.status()["endpoints"])


class EndpointHandler(StreamHandler):
    def get(self, name: str) -> None:
        self.send(self.server.endpoint_status(name))

    async def patch(self, name: str) -> None:
        settings = self.body_object()
        await self.server.endpoints.get(name).configure(settings)
        self.send(self.server.endpoint_status(name))

    async def delete(self, name: str) -> None:
        await self.server.endpoints.remove(name)
        self.send({})

    async def put(self, name: str) -> None:
        """Deploy a bundle; answers with a line of JSON for each step, the last is `ready` or `failed`."""
        await self.follow(self._deploy(name, self.body_object()))

    async def _deploy(self, name: str, wish: dict[str, Any]) -> None:
        bundle = Bundle.read(Path(wish.get("bundle", "")))
        config = EndpointConfig().changed({**bundle.settings, **wish.get("settings", {})})
        if wish.get("port"):
            await self.server.listen(wish["port"])
        self.progress("waiting for torch to be imported")
        await self.server.nursery.ready()
        if bundle.imports:
            self.progress(f"importing {', '.join(bundle.imports)}")
            await self.server.nursery.preimport(bundle.imports)
        await self.server.endpoints.deploy(name, bundle, config, self.progress)
        self.say({"event": "ready", "endpoint": self.server.endpoint_status(name)})


class LogsHandler(ApiHandler):
    def get(self, name: str | None = None) -> None:
        if name is not None:
            self.server.endpoints.get(name)
        count, after = self.count_argument("lines", 200), self.count_argument("after", 0)
        self.send(self.server.logbook.last(count, name, after))


class SpansHandler(ApiHandler):
    def get(self, name: str) -> None:
        version = self.get_query_argument("version", None)
        self.send(self.server.endpoints.get(name).spans_of(version).last(self.count_argument("last", 500)))


class MetricsHandler(ApiHandler):
    def get(self) -> None:
        body, content_type = self.server.metrics.render()
        self.set_header("Content-Type", content_type)
        self.finish(body)


class ListenHandler(ApiHandler):
    async def post(self) -> None:
        self.send({"url": await self.server.listen(int(self.body_object().get("port", 0)))})


class DetachHandler(ApiHandler):
    def post(self) -> None:
        self.server.detach()
        self.send({})


class StopHandler(ApiHandler):
    def post(self) -> None:
        self.send({})
        self.server.request_stop()


class UnknownHandler(ApiHandler):
    def prepare(self) -> None:
        super().prepare()
        raise NotFound(f"the management API has no route {self.request.path}")


def listen(server: Managed, host: str, port: int) -> tuple[tornado.httpserver.HTTPServer, str]:
    """Open the management listener; gives it and its URL."""
    name = r"/endpoints/([^/]+)"
    routes = [
        (r"/server", ServerHandler),
        (r"/endpoints", EndpointsHandler),
        (name, EndpointHandler),
        (name + "/logs", LogsHandler),
        (name + "/spans", SpansHandler),
        *stream_api.routes(name),
        *load_api.routes(name),
        *bundle_api.routes(name),
        *export_api.routes(name),
        *debug_api.routes(name),
        *profile_api.routes(name),
        *trial_api.routes(name),
        (r"/logs", LogsHandler),
        (r"/metrics", MetricsHandler),
        (r"/listen", ListenHandler),
        (r"/detach", DetachHandler),
        (r"/stop", StopHandler),
        (r".*", UnknownHandler),
    ]
    application = tornado.web.Application(
        [(route, handler, {"server": server}) for route, handler in routes], log_function=lambda handler: None
    )
    http = tornado.httpserver.HTTPServer(application)
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        text = f"cannot listen on {host}:{port}: {error.strerror}. Choose another --management-port"
        raise ConfigError(text) from None
    http.add_sockets(sockets)
    return http, own_url(host, sockets[0].getsockname()[1])
