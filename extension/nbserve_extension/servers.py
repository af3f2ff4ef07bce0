"""Jupyter's server: the model servers of this user, found by their run files, and which of them has an endpoint."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson
from tornado.httputil import HTTPHeaders

from nbserve import runfile
from nbserve.deployment import STOP_LIMIT_S, Server
from nbserve.errors import NbserveError, NotFound, ServerGone, from_object
from nbserve.runfile import RunFile

from .exchange import Question, ask

# A server that hangs must not hang the list of all.
STATUS_LIMIT_S = 2.0
REMEMBER_S = 0.5
POLL_S = 0.02

ServerObject = dict[str, Any]


class Servers:
    """Asks the servers afresh each time: whatever starts or stops them, this is what there is."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._children: list[Server] = []
        self._looked: dict[str, tuple[float, asyncio.Future[RunFile]]] = {}

    async def statuses(self) -> list[ServerObject]:
        """The objects of `nbserve ps --json`, oldest server first."""
        self._reap()
        found = await asyncio.gather(*map(self._status, await self._running()))
        return [status for status in found if status is not None]

    async def get(self, server_id: str) -> RunFile:
        run_files = await self._running()
        for run_file in run_files:
            if run_file.server_id == server_id:
                return run_file
        known = ", ".join(run_file.server_id for run_file in run_files)
        raise NotFound(f"no running server has the id {server_id!r}; there are: {known or 'none'}")

    async def having(self, name: str, server_id: str | None = None) -> RunFile:
        """The server that has the endpoint: the one that is asked for, else the newest one that has it."""
        if server_id is not None:
            return await self.get(server_id)
        newest_first = list(reversed(await self._running()))
        questions = [asyncio.ensure_future(self._status(run_file)) for run_file in newest_first]
        names: list[str] = []
        try:
            for run_file, question in zip(newest_first, questions, strict=True):
                names += (here := names_of(await question))
                if name in here:
                    return run_file
        finally:
            for question in questions:
                question.cancel()
        raise NotFound(f"no running server has an endpoint {name!r}; there are: {', '.join(names) or 'none'}")

    async def serving(self, name: str) -> RunFile:
        """The newest server that has the endpoint, as seen a moment ago: one look-up is for all who ask meanwhile."""
        now = asyncio.get_running_loop().time()
        self._looked = {key: look for key, look in self._looked.items() if now - look[0] < REMEMBER_S}
        if name not in self._looked:
            self._looked[name] = now, asyncio.ensure_future(self.having(name))
        try:
            # Who hangs up must not end it for the others.
            return await asyncio.shield(self._looked[name][1])
        except NbserveError:
            self._looked.pop(name, None)
            raise

    def adopt(self, server: Server) -> None:
        """A child of this process, to be reaped when it ends."""
        self._children.append(server)

    def _reap(self) -> None:
        self._children = [server for server in self._children if server.is_alive()]

    async def _running(self) -> list[RunFile]:
        return await asyncio.to_thread(lambda: list(runfile.running()))

    async def _status(self, run_file: RunFile) -> ServerObject | None:
        try:
            found: ServerObject = await asyncio.wait_for(call(run_file, "GET", "/server"), STATUS_LIMIT_S)
            return found
        except asyncio.TimeoutError:
            self._log.warning("nbserve: server %d does not answer and is left out", run_file.pid)
        except ServerGone:
            pass  # It ended between the look-up and the question.
        except NbserveError as error:
            self._log.warning("nbserve: server %d is left out: %s", run_file.pid, error)
        return None


async def stop(run_file: RunFile, limit_s: float = STOP_LIMIT_S) -> None:
    """End a server after the requests in flight; done when its process is gone."""
    with suppress(ServerGone):  # It is what was asked for.
        await call(run_file, "POST", "/stop")
    deadline = time.monotonic() + limit_s
    while run_file.is_alive():
        if time.monotonic() > deadline:
            raise NbserveError(f"server {run_file.pid} still runs {limit_s:g} s after it was told to stop")
        await asyncio.sleep(POLL_S)


def names_of(server: ServerObject | None) -> list[str]:
    return [endpoint["name"] for endpoint in server["endpoints"]] if server else []


def managed(run_file: RunFile, method: str, target: str, body: bytes = b"", content_type: str = "") -> Question:
    """A question to the management API, with the token that nobody else gets to see."""
    headers = HTTPHeaders({"Authorization": f"Bearer {run_file.token}"})
    if content_type:
        headers["Content-Type"] = content_type
    return Question(run_file.management_url, method, target, headers, body)


async def call(run_file: RunFile, method: str, target: str, body: Mapping[str, Any] | None = None) -> Any:
    """Ask the management API, JSON both ways; raises the error that it answers with."""
    question = managed(run_file, method, target, orjson.dumps(body) if body else b"", "application/json")
    async with ask(question) as answer:
        value = orjson.loads(await answer.read())
        if answer.status >= 400:
            raise from_object(value)
        return value
