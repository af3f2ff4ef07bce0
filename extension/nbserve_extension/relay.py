"""Jupyter's server: requests that are passed on to a model server, and its answers as they come."""

from __future__ import annotations

from urllib.parse import quote

from jupyter_server.utils import url_path_join
from tornado import web
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError

from nbserve.errors import BadRequest, ServerGone

from .along import headers_of_answer, headers_of_request, query_along
from .api_handler import ApiHandler
from .exchange import Answer, Question, ask
from .servers import managed

LOGIN_IN_BODY = (
    "the login is in the body, which the handler gets to see: "
    "send it as the headers 'Authorization: token TOKEN' or 'X-XSRFToken'"
)


class RelayHandler(ApiHandler):
    """Asks in the client's place and answers what comes, piece by piece."""

    _has_begun = False

    async def relay(self, question: Question) -> None:
        await self.while_connected(self._relay(question))

    async def _relay(self, question: Question) -> None:
        try:
            async with ask(question) as answer:
                await self._pass_on(answer)
        except ServerGone:
            if not self._has_begun:
                raise
            # What broke off must not look whole.
            self.detach().close()
        except StreamClosedError:
            pass  # The client hung up.

    async def _pass_on(self, answer: Answer) -> None:
        self.set_status(answer.status, answer.reason)
        self._set_headers(headers_of_answer(answer.headers))
        self._has_begun = True
        await self.flush()
        async for piece in answer.pieces():
            self.write(piece)
            await self.flush()
        self.finish()

    def _set_headers(self, headers: HTTPHeaders) -> None:
        self.clear_header("Content-Type")
        for name in headers:
            self.clear_header(name)
        for name, value in headers.get_all():
            self.add_header(name, value)


class ManagedHandler(RelayHandler):
    """A route of the management API below an endpoint's path: the same method, query and body."""

    @web.authenticated
    async def _ask(self, name: str, part: str = "") -> None:
        run_file = await self.servers.having(name, self.server_id)
        target = f"/endpoints/{quote(name, safe='')}{part}{query_along(self.request.query, ['server'])}"
        content_type = self.request.headers.get("Content-Type", "")
        await self.relay(managed(run_file, self.request.method or "", target, self.request.body, content_type))

    get = post = patch = delete = _ask


class PredictionHandler(RelayHandler):
    """Any request below `endpoints/NAME` is the same request to the inference API's `/predictions/NAME`."""

    @web.authenticated
    async def _ask(self, name: str) -> None:
        self._refuse_login_in_body()
        run_file = await self.servers.serving(name)
        if run_file.url is None:
            raise ServerGone(f"the server of {name} does not listen for predictions any more")
        headers = headers_of_request(self.request.headers)
        await self.relay(Question(run_file.url, self.request.method or "", self._target(), headers, self.request.body))

    get = head = post = put = patch = delete = _ask

    def _target(self) -> str:
        """As the client wrote it: a name or a version may be escaped in more than one way."""
        escaped = self.request.path.removeprefix(url_path_join(self.base_url, "nbserve/endpoints/"))
        return f"/predictions/{escaped}{query_along(self.request.query)}"

    def _refuse_login_in_body(self) -> None:
        fields = self.request.body_arguments
        # Jupyter takes a field for the login before it looks at the headers.
        if "_xsrf" in fields or ("token" in fields and self.token_authenticated):
            raise BadRequest(LOGIN_IN_BODY)
