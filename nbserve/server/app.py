"""The server process: both APIs, the endpoints, the supervisor and the nursery's client on one event loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from nbserve import fastloop, runfile
from nbserve.bundle.bundle import Bundle
from nbserve.config import EndpointConfig, ServerConfig
from nbserve.environment import PlatformRoutes
from nbserve.errors import ConfigError
from nbserve.runfile import RunFile
from nbserve.server import management_api
from nbserve.server.address import url_of
from nbserve.server.endpoint import Endpoint, Endpoints
from nbserve.server.http.server import HttpServer
from nbserve.server.inference_api import InferenceApi
from nbserve.server.logbook import LogBook, logger, start_logging
from nbserve.server.metrics import Metrics
from nbserve.server.metrics_api import metrics_server
from nbserve.server.nursery_client import NurseryClient
from nbserve.server.orphans import Orphans, inherits_orphans
from nbserve.server.owner import watch_owner
from nbserve.server.placement import DeviceSlots, Placement
from nbserve.server.profiling import Recordings, startup_batches
from nbserve.server.spans import SpanStore
from nbserve.server.status import EndpointStatus, ServerStatus, endpoint_status, server_status
from nbserve.server.supervisor import Supervisor
from nbserve.server.version import Surroundings, Version

# For the workers' last words, when the connections took all the time there was.
LAST_S = 1.0


@dataclass(frozen=True)
class Launch:
    """How a server is started: who owns it (None: nobody, it runs until stopped) and what it serves from the start.

    `settings` are laid over those of each bundle, one after the other. `token` is the management API's (None: a random
    one), `warnings` are what its log begins with.
    """

    server_id: str
    config: ServerConfig
    bundles: Sequence[Path] = ()
    settings: Sequence[Mapping[str, Any]] = ()
    owner_pid: int | None = None
    notebook: str | None = None
    token: str | None = None
    routes: PlatformRoutes = field(default_factory=PlatformRoutes)
    warnings: Sequence[str] = ()


class Server:
    """One server process from start to clean end."""

    def __init__(self, launch: Launch, logbook: LogBook) -> None:
        self._launch = launch
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._end_now = asyncio.Event()
        self._exit_code = 0
        self._was_signalled = False
        self.logbook = logbook
        self.token = launch.token or secrets.token_hex(32)
        self.nursery = NurseryClient(self._loop)
        self._supervisor = Supervisor(self._loop, self.nursery)
        self._placement = Placement.of_this_machine()
        self._slots = DeviceSlots(self._placement.cores)
        self.recordings = Recordings(self._make_directory, self._placement.cores, startup_batches())
        self.endpoints = Endpoints(self._make_endpoint, are_awaited=bool(launch.bundles))
        self._http = HttpServer(InferenceApi(self.endpoints, launch.routes), launch.config, self._loop)
        self.metrics = Metrics(lambda: self._http.open_connections, self.endpoints.all)
        self._metrics_http = metrics_server(self.metrics.render, launch.config, self._loop)
        self._orphans = Orphans(self._loop)
        self._run_file: RunFile | None = None
        self._socket_numbers = itertools.count(1)

    async def run(self) -> int:
        """Serve until told to stop, or until the owner ends; gives the exit code."""
        config = self._launch.config
        self._watch_signals()
        for text in self._launch.warnings:
            logger.warning("%s", text)
        url = await self.listen(config.port, is_first=True)
        if config.metrics_port >= 0:
            metrics_url = await _listen(self._metrics_http, config.host, config.metrics_port, "--metrics-port")
            logger.info("metrics at %s/metrics", metrics_url)
        management, management_url = management_api.listen(self, config.management_host, config.management_port)
        self._write_run_file(url, management_url)
        try:
            if self._launch.owner_pid is not None:
                watch_owner(self._loop, self._launch.owner_pid, self._owner_ended)
            if inherits_orphans():
                self._orphans.watch()
            await self._serve()
        finally:
            await self._shut_down(management)
        return self._exit_code

    async def _serve(self) -> None:
        """Deploy what the command line names, then wait; a request to stop ends either."""
        stopped = asyncio.ensure_future(self._stop.wait())
        deployed = asyncio.ensure_future(self._deploy_all())
        await asyncio.wait({stopped, deployed}, return_when=asyncio.FIRST_COMPLETED)
        if not deployed.done():
            deployed.cancel()
            await asyncio.wait({deployed})
            return
        try:
            deployed.result()
            await stopped
        finally:
            stopped.cancel()

    async def _deploy_all(self) -> None:
        for path in self._launch.bundles:
            bundle = Bundle.read(path)
            config = EndpointConfig()
            for settings in (bundle.settings, *self._launch.settings):
                config = config.changed(settings)
            await self.nursery.preimport(bundle.imports)
            await self.endpoints.deploy(bundle.name, bundle, config, lambda text: None)
            self._say_that_it_serves(bundle)
        self.endpoints.are_awaited = False

    def _say_that_it_serves(self, bundle: Bundle) -> None:
        text = f"{bundle.name} {bundle.version} at {self.endpoint_status(bundle.name)['url']}"
        if self._launch.config.log_format == "json":
            logger.info("%s", text, extra={"endpoint": bundle.name})
        else:
            print(text, flush=True)  # noqa: T201

    def status(self) -> ServerStatus:
        machine = self._placement.machine
        return server_status(self._running, self.nursery.pid, self.can_debug, machine, self.endpoints.all())

    def endpoint_status(self, name: str) -> EndpointStatus:
        return endpoint_status(self.endpoints.get(name), self._running)

    async def listen(self, port: int, is_first: bool = False) -> str:
        """Serve the inference API on `port` (0: any) too; gives its URL, which is the one shown from now on."""
        host = self._launch.config.host
        if not is_first and self._running.url == url_of(host, port):
            return self._running.url
        url = await _listen(self._http, host, port, "--port")
        if not is_first:
            self._update_run_file(url=url)
        return url

    def detach(self) -> None:
        """Live on when the owner ends."""
        self._update_run_file(owner_pid=None, detached=True)

    def request_stop(self) -> None:
        self._stop.set()

    @property
    def _running(self) -> RunFile:
        assert self._run_file is not None
        return self._run_file

    def _make_endpoint(self, name: str) -> Endpoint:
        spans = SpanStore(self._launch.server_id[:6])
        return Endpoint(name, spans, self.metrics.endpoint(name), self._make_version)

    def _make_version(self, endpoint: Endpoint, bundle: Bundle, config: EndpointConfig) -> Version:
        around = Surroundings(
            name=endpoint.name,
            id_prefix=self._launch.server_id[:6],
            supervisor=self._supervisor,
            placement=self._placement,
            slots=self._slots,
            spans=endpoint.spans,
            metrics=endpoint.metrics,
            on_change=endpoint.changes.notify,
            failures=endpoint.failures if self.can_debug else None,
            debug_socket=self._debug_socket if self.can_debug else None,
            profile=self.recordings.startup_order,
        )
        return Version(bundle, config, around)

    @property
    def can_debug(self) -> bool:
        return self._launch.config.debug

    def _debug_socket(self, index: int) -> str:
        return str(self._make_directory() / f"w{index}-{next(self._socket_numbers)}.sock")

    def _make_directory(self) -> Path:
        return runfile.make_server_dir(self._launch.server_id)

    def _write_run_file(self, url: str, management_url: str) -> None:
        self._run_file = RunFile(
            server_id=self._launch.server_id,
            pid=os.getpid(),
            started_s=psutil.Process().create_time(),
            url=url,
            management_url=management_url,
            token=self.token,
            owner_pid=self._launch.owner_pid,
            detached=self._launch.owner_pid is None,
            notebook=self._launch.notebook,
        )
        self._run_file.write()

    def _update_run_file(self, **changes: Any) -> None:
        self._run_file = replace(self._running, **changes)
        self._run_file.write()

    def _watch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, number)
        # Its terminal was closed; under nohup that does not matter.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._loop.add_signal_handler(signal.SIGHUP, self.request_stop)

    def _signalled(self, number: int) -> None:
        """The first asks to end in order, the next one to end now."""
        if self._was_signalled:
            logger.warning("told to stop again: ending at once, whoever waits")
            self._exit_code = 128 + number
            self._end_now.set()
        self._was_signalled = True
        self.request_stop()

    def _owner_ended(self) -> None:
        if self._running.detached:
            return
        logger.info("the process that started this server ended; stopping")
        self.request_stop()

    async def _shut_down(self, management: Any) -> None:
        """Answer what was sent, then end the workers, the nursery and everything on disk; or end all of it now."""
        logger.info("stopping: finishing the requests in flight")
        await self._http.stop_accepting()
        management.stop()
        self.recordings.close()
        drained, cut_short = asyncio.ensure_future(self._drain()), asyncio.ensure_future(self._end_now.wait())
        try:
            await asyncio.wait({drained, cut_short}, return_when=asyncio.FIRST_COMPLETED)
            if drained.done():
                drained.result()
        finally:
            drained.cancel()
            cut_short.cancel()
            await asyncio.gather(drained, cut_short, return_exceptions=True)
            await self._end()

    async def _drain(self) -> None:
        limit_s = self._launch.config.drain_timeout_s
        ends_at = self._loop.time() + limit_s
        for endpoint in self.endpoints.all():
            endpoint.end_holds()
            await endpoint.loads.close()
        if not await self._http.drain(limit_s):
            logger.warning("clients still waited after %g s (drain_timeout_s); they are cut off", limit_s)
        try:
            await asyncio.wait_for(self.endpoints.stop(), max(LAST_S, ends_at - self._loop.time()))
        except asyncio.TimeoutError:
            logger.warning("workers were still busy after %g s (drain_timeout_s); they are ended", limit_s)

    async def _end(self) -> None:
        self._http.close()
        self._metrics_http.close()
        await self._supervisor.close()
        if self._end_now.is_set():
            self._supervisor.kill_all()
        await self.nursery.stop(is_urgent=self._end_now.is_set())
        self._orphans.stop()
        runfile.remove(self._launch.server_id)


async def _listen(http: HttpServer, host: str, port: int, option: str) -> str:
    """Open a listener; gives its URL."""
    try:
        return url_of(host, await http.listen(host, port))
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}. Choose another {option}") from None


def run(launch: Launch) -> int:
    """Run a server in this process until it is told to stop; gives the exit code."""
    logbook = LogBook()
    start_logging(logbook, launch.config.log_format)

    async def main() -> int:
        return await Server(launch, logbook).run()

    return fastloop.run(main)
