"""Jupyter's server: from a bundle to an endpoint on a model server of its own, which outlives Jupyter."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from nbserve.bundle.bundle import Bundle
from nbserve.deployment import Server
from nbserve.errors import BadRequest, ServerGone, from_object
from nbserve.runfile import RunFile

from .exchange import ask
from .servers import Servers, call, managed, stop

EndpointObject = dict[str, Any]


@dataclass(frozen=True)
class Order:
    """A bundle to serve, under a name of its own or the bundle's."""

    bundle: Path
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    port: int | None = None

    @classmethod
    def of_json(cls, wish: dict[str, Any], root: Path) -> Order:
        """Relative paths are below `root`, the folder that Jupyter shows. Raises BadRequest."""
        kinds: dict[str, type] = {"bundle": str, "name": str, "settings": dict, "port": int}
        if unknown := set(wish) - set(kinds):
            raise BadRequest(f"{min(unknown)!r} is unknown here; there are: {', '.join(kinds)}")
        for name, value in wish.items():
            if value is not None and type(value) is not kinds[name]:
                raise BadRequest(f"{name!r} is {value!r}; it takes {_WORDS[kinds[name]]}")
        if not wish.get("bundle"):
            raise BadRequest("say which 'bundle' to start: the path of its folder")
        bundle = root / Path(wish["bundle"]).expanduser()
        return cls(bundle, wish.get("name"), wish.get("settings") or {}, wish.get("port"))


_WORDS = {str: "a text", dict: "an object", int: "a whole number"}


async def start(order: Order, servers: Servers) -> EndpointObject:
    """Start a server for the bundle; raises StartError, BundleError, ConfigError, and then nothing is left of it."""
    bundle = await asyncio.to_thread(Bundle.read, order.bundle.resolve())
    # Until its endpoint answers it ends with this process: nobody would know of it.
    server = await asyncio.to_thread(Server.start)
    servers.adopt(server)
    run_file = (await asyncio.to_thread(server.ready)).run_file
    try:
        endpoint = await _deploy(run_file, bundle, order)
        await call(run_file, "POST", "/detach")
    except BaseException:
        await stop(run_file)
        raise
    return endpoint


async def _deploy(run_file: RunFile, bundle: Bundle, order: Order) -> EndpointObject:
    wish = {"bundle": str(bundle.path), "settings": order.settings, "port": order.port}
    target = f"/endpoints/{quote(order.name or bundle.name, safe='')}"
    async with ask(managed(run_file, "PUT", target, orjson.dumps(wish), "application/json")) as answer:
        async for line in answer.lines():
            event = orjson.loads(line)
            if event.get("event") == "ready":
                return dict(event["endpoint"])
            if event.get("event") != "progress":
                raise from_object(event)
    raise ServerGone("the model server ended while it started the bundle")
