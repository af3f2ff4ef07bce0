"""The newest error of a worker's handler, kept for a post-mortem. Runs in the worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from nbserve.wire import Row
from nbserve.worker.context import request_text

KEPT_S = 15 * 60.0
BODY_CHARACTERS = 120
NONE_YET = "no request has failed in this worker lately"
OUT_OF_MEMORY = (
    "the newest error ran out of memory: what its frames hold is not kept, as other requests need it. "
    "Run the request again with --replay"
)


@dataclass(frozen=True)
class KeptError:
    """An error with its traceback, which keeps alive all that its frames refer to."""

    error: BaseException
    request_ids: tuple[str, ...]
    body: str
    at_s: float


class LastError:
    """Keeps one error for a while: its frames hold the batch's tensors."""

    def __init__(self, id_prefix: str, kept_s: float = KEPT_S) -> None:
        self._id_prefix = id_prefix
        self._kept_s = kept_s
        self._turn = threading.Lock()
        self._kept: KeptError | None = None
        self._is_expiring = False
        self.why_none = NONE_YET

    def keep(self, rows: Sequence[Row], error: BaseException) -> None:
        ids = tuple(request_text(self._id_prefix, row.request_id) for row in rows)
        if is_out_of_memory(error):
            self._drop()
            return
        with self._turn:
            self._kept = KeptError(error, ids, shown_body(rows[0].body), time.monotonic())
            starts, self._is_expiring = not self._is_expiring, True
        if starts:
            threading.Thread(target=self._expire, name="nbserve-last-error", daemon=True).start()

    def get(self) -> KeptError | None:
        with self._turn:
            return self._kept

    def _drop(self) -> None:
        """What its frames hold is what other requests would lack."""
        with self._turn:
            self._kept = None
            self.why_none = OUT_OF_MEMORY

    def _expire(self) -> None:
        """Wait until the newest error is old, then forget it."""
        while (left_s := self._left_s()) > 0:
            time.sleep(left_s)

    def _left_s(self) -> float:
        with self._turn:
            left_s = self._kept.at_s + self._kept_s - time.monotonic() if self._kept is not None else 0.0
            if left_s <= 0:
                self._kept = None
                self._is_expiring = False
            return left_s


def shown_body(body: memoryview) -> str:
    """A request's body as text; of a long one the beginning, and how long it is."""
    text = bytes(body[: 4 * BODY_CHARACTERS]).decode("utf-8", "replace")
    if len(body) <= 4 * BODY_CHARACTERS and len(text) <= BODY_CHARACTERS:
        return text
    return f"{text[:BODY_CHARACTERS]}\u2026 ({len(body):,} bytes)"


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
