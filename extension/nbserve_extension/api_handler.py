"""Jupyter's server: what the routes below base_url/nbserve/ share: Jupyter's login, JSON, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
from jupyter_server.auth.utils import HTTP_METHOD_TO_AUTH_ACTION
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import ensure_async
from tornado import web

from nbserve.errors import BadRequest, NbserveError, StartError

from .servers import Servers

Found = TypeVar("Found")

NOT_LOGGED_IN = "Jupyter does not know you: log in, or send the header 'Authorization: token TOKEN'"


class Guarded(web.RequestHandler):
    """Lets nobody past `prepare` who is not logged in, or not allowed to; tells errors as JSON."""

    auth_resource = "nbserve"
    servers: Servers

    def initialize(self, servers: Servers) -> None:
        self.servers = servers

    async def prepare(self) -> None:
        # Finds out who asks, and refuses what lacks the XSRF token.
        await super().prepare()  # type: ignore[misc]
        # A preflight comes without a login.
        if self.request.method != "OPTIONS":
            await self._check_user()

    async def _check_user(self) -> None:
        if self.current_user is None:
            raise web.HTTPError(403, NOT_LOGGED_IN)
        handler: Any = self
        action = HTTP_METHOD_TO_AUTH_ACTION[self.request.method or ""]
        if not await ensure_async(
            handler.authorizer.is_authorized(self, self.current_user, action, self.auth_resource)
        ):
            raise web.HTTPError(403, f"you are not allowed to {action} {self.auth_resource} here")

    @property
    def server_id(self) -> str | None:
        """Which server is meant, when several have an endpoint of that name."""
        return self.get_query_argument("server", None)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        self.set_header("Content-Type", "application/json")
        if isinstance(error, NbserveError):
            self.set_status(error.status)
        self.finish(orjson.dumps(error_object(error, self._status_code, self._reason)))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if not isinstance(value, NbserveError):
            super().log_exception(typ, value, tb)


class ApiHandler(Guarded, APIHandler):
    """Speaks JSON; what it waits for is called off when the client hangs up."""

    _running: asyncio.Future[Any] | None = None

    # To look is not to work: a panel that is left open must not keep an idle Jupyter alive.
    @property
    def _track_activity(self) -> bool:
        return self.request.method not in ("GET", "HEAD")

    async def while_connected(self, coroutine: Coroutine[Any, Any, Found]) -> Found | None:
        """What the coroutine gives; None when it was called off, since the client hung up."""
        self._running = asyncio.ensure_future(coroutine)
        try:
            return await self._running
        except asyncio.CancelledError:
            return None

    def on_connection_close(self) -> None:
        if self._running is not None:
            self._running.cancel()

    def send(self, value: Any) -> None:
        self.send_body(orjson.dumps(value), "application/json")

    def send_body(self, body: bytes, content_type: str) -> None:
        # Jupyter's handlers call all JSON that does not say otherwise here.
        self.finish(body, set_content_type=content_type)  # type: ignore[call-arg]

    def body_object(self) -> dict[str, Any]:
        """The request's JSON object; an empty body counts as an empty one."""
        try:
            value = orjson.loads(self.request.body or b"{}")
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the body is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise BadRequest("the body must be a JSON object")
        return value


def error_object(error: BaseException | None, status: int, reason: str) -> dict[str, Any]:
    """The same shape as the errors of nbserve's own APIs."""
    if isinstance(error, NbserveError):
        found = {"code": error.status, "type": error.kind, "message": error.client_text}
        return {**found, "traceback": error.traceback_text} if isinstance(error, StartError) else found
    kind = "".join(word.capitalize() for word in reason.split())
    return {"code": status, "type": kind, "message": _text_of(error) or reason}


def _text_of(error: BaseException | None) -> str:
    if not isinstance(error, web.HTTPError):
        return ""
    if error.log_message:
        return str(error.log_message % error.args)
    return NOT_LOGGED_IN if error.status_code == 403 else ""
