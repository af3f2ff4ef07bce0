"""Jupyter's server: the routes below base_url/nbserve/, and those that list, start and stop model servers."""

from __future__ import annotations

from pathlib import Path

from tornado import web

from nbserve.errors import NotFound

from .api_handler import ApiHandler
from .panel_module import PanelModuleHandler
from .profile import ProfileHandler
from .relay import ManagedHandler, PredictionHandler
from .servers import Servers, stop
from .starting import Order, start
from .stream import StreamHandler


class EndpointsHandler(ApiHandler):
    """All there is, or one more."""

    @web.authenticated
    async def get(self) -> None:
        self.send(await self.servers.statuses())

    @web.authenticated
    async def post(self) -> None:
        order = Order.of_json(self.body_object(), Path(self.serverapp.root_dir))
        self.send(await start(order, self.servers))


class ServerHandler(ApiHandler):
    """A whole server, with all its endpoints."""

    @web.authenticated
    async def delete(self, server_id: str) -> None:
        await stop(await self.servers.get(server_id))
        self.send({})


class UnknownHandler(ApiHandler):
    """Whatever else is asked for."""

    @web.authenticated
    async def _refuse(self) -> None:
        raise NotFound(f"nbserve has no route {self.request.path} in Jupyter")

    get = head = post = put = patch = delete = _refuse


_NAME = "/([^/]+)"

# What is below base_url/nbserve/.
ROUTES: list[tuple[str, type[web.RequestHandler]]] = [
    ("api/endpoints", EndpointsHandler),
    (f"api/endpoints{_NAME}", ManagedHandler),
    (f"api/endpoints{_NAME}(/(?:bundle|export|load|logs|predict|recorded|spans))", ManagedHandler),
    (f"api/endpoints{_NAME}/profile", ProfileHandler),
    (f"api/endpoints{_NAME}/stream", StreamHandler),
    (f"api/servers{_NAME}", ServerHandler),
    (f"endpoints{_NAME}(?:/.*)?", PredictionHandler),
    ("static/panel.js", PanelModuleHandler),
    ("api/.*", UnknownHandler),
]


def routes(root: str, servers: Servers) -> list[tuple[str, type[web.RequestHandler], dict[str, Servers]]]:
    """All routes; `root` is the escaped pattern of base_url/nbserve/."""
    return [(root + pattern, handler, {"servers": servers}) for pattern, handler in ROUTES]
