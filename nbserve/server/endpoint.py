"""The endpoints of a server, and how one version of an endpoint replaces another. Server process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from nbserve.bundle.bundle import Bundle, Golden
from nbserve.config import EndpointConfig
from nbserve.debugwire import IS_HELD
from nbserve.errors import BundleError, NbserveError, NotFound, StartError, Unavailable
from nbserve.server.changes import Changes
from nbserve.server.export import Exports
from nbserve.server.failures import Failures
from nbserve.server.live import Live
from nbserve.server.load import Loads
from nbserve.server.logbook import logger
from nbserve.server.metrics import EndpointMetrics
from nbserve.server.own_request import OwnRequest, make_meta
from nbserve.server.sampler import Sampler
from nbserve.server.spans import SpanStore
from nbserve.server.specs import NEEDS_NEW_WORKERS
from nbserve.server.ticket import Ticket
from nbserve.server.trials import Trials
from nbserve.server.version import Version
from nbserve.server.worker import Worker

OnProgress = Callable[[str], None]
VersionFactory = Callable[["Endpoint", Bundle, EndpointConfig], Version]


class Endpoint:
    """A name that clients call. It has one current version; earlier ones drain.

    `changes` tell when a worker of any version is held, goes on, or gets or loses its debugger.
    """

    def __init__(self, name: str, spans: SpanStore, metrics: EndpointMetrics, make_version: VersionFactory) -> None:
        self.name = name
        self.spans = spans
        self.metrics = metrics
        self.current: Version | None = None
        self.changes = Changes()
        self.failures = Failures()
        self.trials = Trials()
        self.loads = Loads(name)
        self.exports = Exports(name)
        self.sampler = Sampler(Live(spans, metrics), lambda: self.queued)
        self._starting: Version | None = None
        self._make_version = make_version
        self._draining: dict[Version, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        self._recording = asyncio.Lock()
        self._deploying: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def version(self) -> str | None:
        return self.current.version if self.current else None

    @property
    def queued(self) -> int:
        return self.current.batcher.waiting if self.current else 0

    @property
    def workers(self) -> list[Worker]:
        """Those of the version that serves, or else of the first one while it starts."""
        version = self.current or self._starting
        return version.crew.everyone if version else []

    @property
    def versions(self) -> list[Version]:
        """All that have workers: the current one, one that starts, those that drain."""
        return [version for version in (self.current, self._starting, *self._draining) if version is not None]

    @property
    def is_ready(self) -> bool:
        """Whether requests will be answered. A held worker is no reason to send them elsewhere: others stand in."""
        return self.current is not None and (self.current.is_ready or self.current.is_held)

    @property
    def is_given_up(self) -> bool:
        """Whether no worker of it will ever start again."""
        return self.current is not None and self.current.is_given_up

    @property
    def state(self) -> str:
        """STARTING before a version serves, READY, HELD when a debugger has all workers, DEGRADED when none serves."""
        if self.current is None:
            return "STARTING"
        if self.current.is_ready:
            return "READY"
        return "HELD" if self.current.is_held else "DEGRADED"

    def serving(self) -> Version:
        """The version that serves; raises Unavailable while there is none."""
        if self.current is None:
            raise Unavailable(f"endpoint {self.name} is starting")
        return self.current

    def submit(self, ticket: Ticket) -> None:
        """Queue a row at the current version, or at the version it asks for while that one still lives."""
        if self.current is None or self._is_stopping:
            raise Unavailable(f"endpoint {self.name} is {'stopping' if self._is_stopping else 'starting'}")
        if ticket.version is None or ticket.version == self.current.version:
            self.current.submit(ticket)
        elif (trial := self.trials.find(ticket.version)) is not None:
            trial.submit(ticket)
        else:
            raise NotFound(f"{self.name} has no version {ticket.version}; it serves {self.current.version}")

    def spans_of(self, version: str | None) -> SpanStore:
        """The requests of the versions that served, or those of a trial."""
        if version is None or version == self.version:
            return self.spans
        if (trial := self.trials.find(version)) is None:
            raise NotFound(f"{self.name} has no version {version}; it serves {self.version or 'none yet'}")
        return trial.spans

    def left(self, connection: int) -> None:
        """A client's connection was closed: batches need not wait for it."""
        if self.current is not None:
            self.current.batcher.left(connection)
        self.trials.left(connection)

    async def deploy(self, bundle: Bundle, config: EndpointConfig, on_progress: OnProgress) -> None:
        """Make `bundle` the current version without losing a request; on StartError everything stays as it was."""
        async with self._lock:
            if self._is_stopping:
                raise Unavailable(f"endpoint {self.name} is stopping")
            self._deploying = asyncio.create_task(self._deploy(bundle, config, on_progress))
            try:
                await self._deploying
            finally:
                self._deploying = None

    async def _deploy(self, bundle: Bundle, config: EndpointConfig, on_progress: OnProgress) -> None:
        if self._is_same(bundle, config):
            assert self.current is not None
            self.current.bundle = bundle
            await self.current.configure(config)
            return
        version = self._make_version(self, bundle, config)
        if self.current is not None and not bundle.golden():
            version.recorded = self.current.bundle
        on_progress(f"starting {config.workers} worker{'s' * (config.workers > 1)} of {self.name} {bundle.version}")
        self._starting = version
        telling = asyncio.create_task(self._tell_of_holds(version, on_progress))
        try:
            await version.start(on_progress)
            await self._probe(version, on_progress)
        finally:
            telling.cancel()
            self._starting = None
        self._switch(version)

    async def _tell_of_holds(self, version: Version, on_progress: OnProgress) -> None:
        """Say at each stop of a worker that starts why the start takes its time."""
        told: set[int] = set()
        while True:
            for worker in version.crew.everyone:
                if worker.hold is not None and worker.hold.since_ns not in told:
                    told.add(worker.hold.since_ns)
                    on_progress(
                        f"worker {worker.index} {IS_HELD} {worker.hold}; `nbserve attach {self.name}` debugs it"
                    )
            await self.changes.wait()

    async def configure(self, settings: dict[str, Any]) -> EndpointConfig:
        """Lay `settings` over the current ones; those that need new worker processes bring them up first."""
        current = self.serving()
        config = current.config.changed(settings)
        await self.deploy(current.bundle, config, lambda _: None)
        self._keep_settings(config)
        return config

    def _keep_settings(self, config: EndpointConfig) -> None:
        """Whoever takes the bundle along gets it as tuned."""
        if self.current is None or self.current.config is not config:
            return
        try:
            self.current.bundle = self.current.bundle.with_settings(config.tuned())
        except (OSError, BundleError) as error:
            logger.warning("the settings are not kept in the bundle: %s", error, extra={"endpoint": self.name})

    async def record(self, pair: Golden) -> None:
        """Keep a request with its answer in the bundle."""
        if self.current is not None:
            await self._record(self.current.bundle, pair)

    async def _record(self, bundle: Bundle, pair: Golden) -> None:
        async with self._recording:
            try:
                # Recorded requests may be images: the loop must not wait for as many as are kept.
                await asyncio.to_thread(bundle.record, *astuple(pair))
            except (OSError, NbserveError) as error:
                logger.warning("a request is not recorded: %s", error, extra={"endpoint": self.name})

    async def stop(self) -> None:
        """Take nothing more, give up a deployment under way, answer what waits, then end all workers."""
        self._is_stopping = True
        self.sampler.close()
        self.end_holds()
        exports_closed = asyncio.ensure_future(self.exports.close())
        await self.loads.close()
        if self._deploying is not None:
            self._deploying.cancel()
        async with self._lock:
            versions = [self.current] if self.current else []
            await asyncio.gather(*(v.drain() for v in versions), *self._draining.values(), self.trials.close())
            self.current = None
        await exports_closed

    def end_holds(self) -> None:
        """Let nobody wait for a debugger any more: held workers are ended, and their requests get 503."""
        for version in self.versions:
            version.end_holds()

    def _is_same(self, bundle: Bundle, config: EndpointConfig) -> bool:
        if self.current is None or self.current.version != bundle.version or not self.is_ready:
            return False
        now = self.current.config
        return all(getattr(now, name) == getattr(config, name) for name in NEEDS_NEW_WORKERS)

    async def _probe(self, version: Version, on_progress: OnProgress) -> None:
        """The new version answers a recorded request before it takes over; a server error keeps the old one."""
        golden = version.recorded.golden()
        if not golden:
            return
        on_progress("checking that it answers a recorded request")
        request = OwnRequest(make_meta(golden[-1].content_type), golden[-1].request_body)
        version.submit(request)
        status, content_type, body = await request.reply
        if status >= 500:
            workers = version.crew.workers
            await version.stop()
            said = workers[0].last_error or body.decode(errors="replace")
            stack = next((w.last_traceback for w in workers if w.last_traceback), "")
            raise StartError(f"the new version fails on a recorded request: {said}", stack)
        if not version.bundle.golden():
            pair = Golden(bytes(request.body), golden[-1].content_type, status, body, content_type)
            await self._record(version.bundle, pair)

    def _switch(self, version: Version) -> None:
        previous, self.current = self.current, version
        version.serve()
        self.metrics.set_version(version.version)
        if previous is None:
            return
        waiting = previous.batcher.take_all()
        version.requeue([ticket for ticket in waiting if ticket.version is None])
        previous.requeue([ticket for ticket in waiting if ticket.version is not None])
        drained = asyncio.ensure_future(previous.drain())
        self._draining[previous] = drained
        drained.add_done_callback(lambda _: self._draining.pop(previous, None))
        logger.info("%s replaces %s", version.version, previous.version, extra={"endpoint": self.name})


class Endpoints:
    """The server's endpoints by name; `are_awaited` until those serve that it was started with."""

    def __init__(self, make_endpoint: Callable[[str], Endpoint], are_awaited: bool = False) -> None:
        self._make_endpoint = make_endpoint
        self.are_awaited = are_awaited
        self._endpoints: dict[str, Endpoint] = {}

    def get(self, name: str) -> Endpoint:
        try:
            return self._endpoints[name]
        except KeyError:
            known = ", ".join(self._endpoints) or "none yet"
            raise NotFound(f"there is no endpoint {name!r}; there are: {known}") from None

    def is_known(self, endpoint: Endpoint) -> bool:
        """Whether this endpoint is still there, and no other has taken its name."""
        return self._endpoints.get(endpoint.name) is endpoint

    def names(self) -> list[str]:
        return list(self._endpoints)

    def all(self) -> list[Endpoint]:
        return list(self._endpoints.values())

    def is_ready(self) -> bool:
        # Whoever balances load would send requests to a server that knows none of its endpoints yet.
        return not self.are_awaited and all(endpoint.is_ready for endpoint in self._endpoints.values())

    async def deploy(self, name: str, bundle: Bundle, config: EndpointConfig, on_progress: OnProgress) -> Endpoint:
        """Deploy a bundle under `name`; a name whose first version does not start is forgotten again."""
        endpoint = self._endpoints.get(name) or self._make_endpoint(name)
        self._endpoints[name] = endpoint
        try:
            await endpoint.deploy(bundle, config, on_progress)
        finally:
            if endpoint.current is None and self._endpoints.get(name) is endpoint:
                del self._endpoints[name]
                endpoint.changes.notify()
                endpoint.sampler.close()
        return endpoint

    async def remove(self, name: str) -> None:
        """Stop an endpoint; its name is free at once."""
        endpoint = self.get(name)
        del self._endpoints[name]
        endpoint.changes.notify()
        await endpoint.stop()

    async def stop(self) -> None:
        await asyncio.gather(*(endpoint.stop() for endpoint in self.all()))
