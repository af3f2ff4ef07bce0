"""From a live handler to a running endpoint: the path that `nbserve.serve` and `%%serve` share. Runs in the kernel."""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nbserve import runfile
from nbserve.capture.store import Store
from nbserve.config import EndpointConfig
from nbserve.deployment import Server
from nbserve.errors import NbserveError, NotFound, ServerGone
from nbserve.verbs import Endpoint

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to serve and how. `namespace` is where the handler's names are looked up, `cell` its text and its label."""

    handler: Any
    name: str
    namespace: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    port: int | None = None
    detach: bool = False
    cell: tuple[str, str] | None = None


def serve(
    handler: Any,
    name: str | None = None,
    *,
    port: int | None = None,
    detach: bool = False,
    on_progress: Progress | None = None,
    **settings: Any,
) -> Endpoint:
    """Serve a handler class, an nn.Module or a function that takes a list of requests; the same as `%%serve`.

    `settings` are the fields of `nbserve.EndpointConfig`. The server ends with this process unless `detach` is set.
    Serving a name again replaces its handler without losing a request.
    """
    order = Order(handler, name or default_name(handler), sys._getframe(1).f_globals, settings, port, detach)
    tell = on_progress or _silent
    return deploy(order, home(), tell, tell)


def endpoint(name: str) -> Endpoint:
    """The endpoint of that name that this process serves, or that a detached server does; raises NotFound."""
    return home().endpoint(name, _silent)


def deploy(order: Order, home: Home, on_progress: Progress, on_note: Progress) -> Endpoint:
    """Capture the handler, bring its endpoint up on the server that holds the name, and return it.

    `on_progress` hears each step, `on_note` what the user should still know afterwards.
    """
    # Only here: capture imports torch, and loading the extension must not wait for that.
    from nbserve.capture.capture import capture

    EndpointConfig().changed(order.settings)
    on_progress("capturing the handler")
    bundle = capture(
        order.handler,
        name=order.name,
        namespace=order.namespace,
        settings=dict(order.settings),
        cell=order.cell,
    )
    try:
        endpoint = home.deploy(order, bundle.path, on_progress, on_note)
    except ServerGone:
        endpoint = home.deploy(order, bundle.path, on_progress, on_note)
    store = Store()
    store.note_served(order.name, bundle.path)
    store.prune(order.name, [bundle.path, *_bundles_in_use()])
    return endpoint


def _bundles_in_use() -> Iterator[Path]:
    for server in Server.find():
        with suppress(ServerGone):
            for endpoint in server.info()["endpoints"]:
                # A trial may still run what its endpoint does not serve any more.
                bundles = [endpoint["bundle"], *(trial["bundle"] for trial in endpoint["trials"])]
                yield from (Path(bundle) for bundle in bundles if bundle)


def default_name(handler: Any) -> str:
    """`DigitNet` becomes `digit-net`: the endpoint's name when none is given."""
    name = getattr(handler, "__name__", None) or type(handler).__name__
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name.strip("_<>")).lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-") or "endpoint"


def home() -> Home:
    """The one Home of this process; a forked child gets its own."""
    return _home_of(os.getpid())


@functools.cache
def _home_of(pid: int) -> Home:
    return Home(pid)


@dataclass(frozen=True)
class _Deployed:
    """Its settings are in the bundle, as they were tuned since."""

    bundle: Path
    port: int | None


class Home:
    """The server that this process owns: started on first use, and started again, with its endpoints, when it died."""

    def __init__(self, owner_pid: int) -> None:
        self._owner_pid = owner_pid
        self._server: Server | None = None
        self._deployed: dict[str, _Deployed] = {}
        self._lock = threading.RLock()

    def start(self) -> None:
        """Start the server, still empty, without waiting for it."""
        with self._lock:
            if self._server is None:
                self._server = Server.start(self._owner_pid, notebook=os.environ.get("JPY_SESSION_NAME"))

    def server(self, on_note: Progress, replacing: str | None = None) -> Server:
        """The running server. One that died is replaced; its endpoints come back, but for the one named `replacing`."""
        with self._lock:
            if self._server is not None and not self._server.is_alive():
                on_note("the server had ended; a new one was started")
                self._server = None
                self._start_again(on_note, replacing)
            self.start()
            assert self._server is not None
            return self._server

    def deploy(self, order: Order, bundle: Path, on_progress: Progress, on_note: Progress) -> Endpoint:
        """Put a bundle up under the order's name, on a detached server that already serves it, else on ours."""
        server = self._detached_holder(order.name) or self.server(on_note, replacing=order.name)
        endpoint = server.deploy(bundle, dict(order.settings), port=order.port, on_progress=on_progress)
        if order.detach:
            server.detach()
        if (run_file := server.run_file).detached:
            on_note(f"on the detached server, pid {run_file.pid}: it outlives this kernel until %serve stop")
        self._deployed[order.name] = _Deployed(bundle, urlsplit(endpoint.url).port)
        return endpoint

    def servers(self, on_note: Progress) -> list[Server]:
        """Our own server first, when there is one, then the user's detached ones."""
        own = [self.server(on_note)] if self._server is not None else []
        ids = {server.server_id for server in own}
        return [*own, *(server for server in detached_servers() if server.server_id not in ids)]

    def endpoint(self, name: str, on_note: Progress) -> Endpoint:
        """The running endpoint of that name; raises NotFound with the names that there are."""
        found = [endpoint for server in self.servers(on_note) for endpoint in server.endpoints()]
        for endpoint in found:
            if endpoint.name == name:
                return endpoint
        known = ", ".join(endpoint.name for endpoint in found)
        raise NotFound(
            f"no endpoint is named {name!r}; " + (f"there is: {known}" if known else "nothing is served yet")
        )

    def forget(self, name: str) -> None:
        """Do not bring this endpoint back when the server has to be started again."""
        self._deployed.pop(name, None)

    def stop(self) -> None:
        """Stop our server, if there is one and it is not detached."""
        with self._lock:
            server, self._server = self._server, None
            self._deployed.clear()
        if server is not None and server.is_alive() and not server.ready().run_file.detached:
            server.stop()

    def stop_all(self) -> list[str]:
        """Stop our server and the user's detached ones; returns what was stopped, in words."""
        with self._lock:
            own, self._server = self._server, None
            self._deployed.clear()
        servers = {server.server_id: server for server in [*detached_servers(), own] if server is not None}
        return [_stop(server) for server in servers.values() if server.is_alive()]

    def _detached_holder(self, name: str) -> Server | None:
        for server in detached_servers():
            if any(endpoint.name == name for endpoint in server.endpoints()):
                return server
        return None

    def _start_again(self, on_note: Progress, replacing: str | None) -> None:
        self.start()
        assert self._server is not None
        for name, deployed in list(self._deployed.items()):
            if name == replacing:
                continue
            try:
                self._server.deploy(deployed.bundle, port=deployed.port)
                on_note(f"{name} is back")
            except NbserveError as error:
                on_note(f"{name} did not come back: {error}")


def detached_servers() -> list[Server]:
    """The user's servers that belong to no kernel."""
    return [Server(run_file.server_id) for run_file in runfile.running() if run_file.detached]


def _stop(server: Server) -> str:
    info = server.info()
    server.stop()
    names = ", ".join(endpoint["name"] for endpoint in info["endpoints"])
    return f"server {info['pid']} is stopped" + (f", and with it {names}" if names else "")


def _silent(text: str) -> None:
    """Progress of programs that did not ask for any."""
