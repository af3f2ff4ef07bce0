"""Every error nbserve raises: one tree, each with an HTTP status and a text that is safe to show a client."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any


class NbserveError(Exception):
    """Base of the tree. `status` is the HTTP status a client sees, `client_text` the text it reads."""

    status = 500
    kind = "InternalError"

    @property
    def client_text(self) -> str:
        return str(self)


class BadRequest(NbserveError):
    """Raise it in a handler for a client's mistake: the text goes to the client with status 400."""

    status = 400
    kind = "BadRequest"


class HttpError(NbserveError):
    """A request that HTTP forbids or that passes a limit; `headers` are raw header lines for the answer."""

    def __init__(self, status: int, text: str, headers: bytes = b"") -> None:
        super().__init__(text)
        self.status = status
        self.kind = "".join(word.capitalize() for word in HTTPStatus(status).phrase.split())
        self.headers = headers


class NotFound(NbserveError):
    """No such endpoint, version or route."""

    status = 404
    kind = "NotFound"


class Unauthorized(NbserveError):
    """The management API was called without its token."""

    status = 401
    kind = "Unauthorized"


class Conflict(NbserveError):
    """Somebody else has what is asked for, such as a worker that is being debugged already."""

    status = 409
    kind = "Conflict"


class Overloaded(NbserveError):
    """The endpoint's queue is full; `retry_after_s` says when another try makes sense."""

    status = 503
    kind = "Overloaded"

    def __init__(self, text: str, retry_after_s: int = 1) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Unavailable(NbserveError):
    """The endpoint exists but cannot answer now: it is starting, draining or has no worker left."""

    status = 503
    kind = "Unavailable"


class HandlerFailed(NbserveError):
    """The handler raised; the traceback went to the log under the same request id."""

    kind = "HandlerFailed"


class WorkerDied(NbserveError):
    """The worker process ended while it held this request, twice."""

    kind = "WorkerDied"


class FailedInDebugger(BaseException):
    """The command `fail` at a debugger's prompt. No Exception, so that a handler's `except Exception` lets it pass."""

    status = 500
    kind = "FailedInDebugger"

    @property
    def client_text(self) -> str:
        return str(self)


class DebugError(NbserveError):
    """A debugging command that cannot be carried out; the text says what can."""

    status = 400
    kind = "DebugError"


class ResponseTimeout(NbserveError):
    """The handler took longer than `response_timeout_s`."""

    status = 504
    kind = "ResponseTimeout"


class ConfigError(NbserveError, ValueError):
    """A setting does not exist or has a value it cannot take."""

    status = 400
    kind = "ConfigError"


class CaptureError(NbserveError):
    """Something a cell uses cannot be put into a bundle; the text names it, the line that uses it, and the way out."""


class BundleError(NbserveError):
    """A folder is not a bundle, or one that was changed or damaged."""

    status = 400
    kind = "BundleError"


class ProfileError(NbserveError):
    """A profile or a comparison that cannot be made, or not as asked; the text says what can."""

    status = 400
    kind = "ProfileError"


class AutoTuneError(NbserveError):
    """Settings cannot be searched, or not as asked, or none keeps the goal; the text says what can."""

    status = 400
    kind = "AutoTuneError"


class ExportError(NbserveError):
    """A bundle cannot be exported, or not as asked; the text says what can."""

    status = 400
    kind = "ExportError"


class GoldenMismatch(ExportError):
    """What is to be shipped answers a recorded request in another way; the text names the first such request."""

    kind = "GoldenMismatch"


class RayError(NbserveError):
    """A bundle cannot run on Ray, or not as asked; the text says what can."""

    status = 400
    kind = "RayError"


class TraceError(NbserveError):
    """A file that is no trace, or of which nothing could be saved; the text says what is wrong with it."""

    kind = "TraceError"


class WeightsError(NbserveError, ValueError):
    """A checkpoint does not fit the module that it should fill."""

    kind = "WeightsError"


class TuningError(NbserveError):
    """A setting that tunes a handler's modules cannot be applied; the text says what can."""

    kind = "TuningError"


class StartError(NbserveError):
    """A new version did not start; `traceback_text` is what its worker said, at the cell's lines."""

    kind = "StartError"

    def __init__(self, text: str, traceback_text: str = "") -> None:
        super().__init__(text)
        self.traceback_text = traceback_text


class ServerGone(NbserveError):
    """The server process cannot be reached any more."""

    status = 503
    kind = "ServerGone"


class PredictError(NbserveError):
    """An endpoint answered a request with an error; `status` and the text are what it said."""

    kind = "PredictError"

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def from_object(error: dict[str, Any]) -> NbserveError:
    """The error that a server put into words as `{code, type, message}`."""
    text = str(error.get("message", "unknown error"))
    if error.get("type") == StartError.kind:
        return StartError(text, str(error.get("traceback", "")))
    simple = (BadRequest, NotFound, Unauthorized, Unavailable, Conflict, ConfigError, BundleError, DebugError)
    kinds = {kind.kind: kind for kind in simple}
    return kinds.get(str(error.get("type")), NbserveError)(text)
