"""What the routes of the management API share: the token, JSON, errors. Server process."""

from __future__ import annotations

import hmac
import traceback
from typing import Any, Protocol

import orjson
import tornado.web

from nbserve.errors import BadRequest, NbserveError, Unauthorized
from nbserve.server.endpoint import Endpoints
from nbserve.server.logbook import LogBook, logger
from nbserve.server.metrics import Metrics
from nbserve.server.nursery_client import NurseryClient
from nbserve.server.profiling import Recordings
from nbserve.server.status import EndpointStatus, ServerStatus


class Managed(Protocol):
    """The server as the management API sees it."""

    endpoints: Endpoints
    logbook: LogBook
    metrics: Metrics
    nursery: NurseryClient
    recordings: Recordings
    token: str

    @property
    def can_debug(self) -> bool: ...

    def status(self) -> ServerStatus: ...

    def endpoint_status(self, name: str) -> EndpointStatus: ...

    async def listen(self, port: int) -> str: ...

    def detach(self) -> None: ...

    def request_stop(self) -> None: ...


class ApiHandler(tornado.web.RequestHandler):
    """Checks the token, speaks JSON, turns errors of our tree into their status."""

    server: Managed

    def initialize(self, server: Managed) -> None:
        self.server = server

    def prepare(self) -> None:
        given = self.request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            raise Unauthorized("the management API needs the header 'Authorization: Bearer TOKEN' of the run file")

    def send(self, value: Any) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(orjson.dumps(value))

    def body_object(self) -> dict[str, Any]:
        """The request's JSON object; an empty body counts as an empty one."""
        try:
            value = orjson.loads(self.request.body or b"{}")
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"the body is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise BadRequest("the body must be a JSON object")
        return value

    def count_argument(self, name: str, default: int) -> int:
        text = self.get_query_argument(name, str(default))
        if not text.isdigit():
            raise BadRequest(f"{name} is {text!r}; it takes a whole number")
        return int(text)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, NbserveError):
            self.set_status(error.status)
            self.send(error_object(error))
        else:
            self.send({"code": status_code, "type": "InternalError", "message": self._reason})

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if not isinstance(value, NbserveError | tornado.web.HTTPError):
            text = "".join(traceback.format_exception(typ, value, tb))
            logger.error("%s %s failed\n%s", self.request.method, self.request.path, text)


def error_object(error: NbserveError) -> dict[str, Any]:
    return {"code": error.status, "type": error.kind, "message": error.client_text}
