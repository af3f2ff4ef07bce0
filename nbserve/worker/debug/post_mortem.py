"""A prompt in the newest error, in a thread of its own while the worker goes on. Runs in the worker."""

from __future__ import annotations

import time
import types
from typing import TYPE_CHECKING

from nbserve.debugwire import Reason
from nbserve.worker.debug.last_error import KeptError
from nbserve.worker.debug.link import Console
from nbserve.worker.debug.session import Session
from nbserve.worker.debug.worker_pdb import WorkerPdb
from nbserve.worker.tracebacks import summary_of

if TYPE_CHECKING:
    from nbserve.worker.debug.debugger import Debugger


class PostMortem:
    """Looks at an error and stops nothing."""

    def __init__(self, debugger: Debugger, session: Session, found: KeptError) -> None:
        self._debugger = debugger
        self._session = session
        self._found = found
        # It keeps nobody waiting.
        session.link.is_patient = True

    def run(self) -> None:
        try:
            pdb = self._session.post_mortem = WorkerPdb(Console(self._session.link), self)
            pdb.stop_after(self._found.error, "exception", self._header())
            pdb.let_go()
        finally:
            # The prompt refers to this object.
            del self._found
            self._debugger.end(self._session, "the post-mortem is over")

    def enter(self, frame: types.FrameType, reason: Reason) -> None:
        """Nothing is held."""

    def leave(self) -> None:
        """Nothing goes on."""

    def detach(self, pdb: WorkerPdb) -> None:
        """`run` ends the session."""

    def call_of(self, frame: types.FrameType) -> types.FrameType:
        return frame

    def _header(self) -> str:
        found = self._found
        age_s = time.monotonic() - found.at_s
        requests = ", ".join(found.request_ids[:8]) + (" and more" if len(found.request_ids) > 8 else "")
        return (
            f"{summary_of(found.error)}\n"
            f"request {requests}, {age_s:.0f} s ago, body: {found.body}\n"
            "The worker goes on meanwhile, and these are its live objects: what later requests changed is changed here."
        )
