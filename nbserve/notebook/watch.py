"""Hears of held workers while cells do something else: one quiet thread per endpoint. Runs in the kernel."""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nbserve.errors import NbserveError
from nbserve.verbs import Endpoint

Holds = Sequence[dict[str, Any]]
Listener = Callable[[Holds], None]
logger = logging.getLogger(__name__)


class Watches:
    """The watches of a kernel, by server and endpoint; one that ended is started again when somebody listens."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, str], Watch] = {}

    def of(self, endpoint: Endpoint) -> Watch:
        key = (endpoint.server.server_id, endpoint.name)
        watch = self._watches.get(key)
        if watch is None or not watch.is_alive:
            watch = self._watches[key] = Watch(endpoint)
        return watch

    def leave_cards(self) -> None:
        """Draw nothing any more: the magics are taken away."""
        for watch in self._watches.values():
            watch.draw(None)


@functools.cache
def watches() -> Watches:
    """Those of this process: loaded again, the magics find the watches of detached servers as they left them."""
    return Watches()


class Watch:
    """Follows the holds of one endpoint until the endpoint, the server or this process ends."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._held: Holds = ()
        self._card: Listener | None = None
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name=f"nbserve-watch-{endpoint.name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def draw(self, card: Listener | None) -> None:
        """Call `card` at each change from now on; it takes the place of an earlier card of this endpoint."""
        # In the context of this cell: what is updated later still belongs to it, whatever runs then.
        context = contextvars.copy_context()
        with self._lock:
            self._card = None if card is None else lambda held: context.run(card, held)
            if self._held and self._card is not None:
                self._card(self._held)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call `listener` with the holds there are, and at each change while the block runs."""
        with self._lock:
            self._listeners.append(listener)
            listener(self._held)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def _follow(self) -> None:
        try:
            for held in self._endpoint.holds():
                self._tell(held)
        except NbserveError:
            return  # The endpoint or its server is gone.
        except Exception:
            # A thread's edge: nothing of it may appear in somebody's notebook.
            logger.debug("the watch of %s ended", self._endpoint.name, exc_info=True)

    def _tell(self, held: Holds) -> None:
        with self._lock:
            if held == self._held:
                return
            self._held = held
            for listener in filter(None, (self._card, *self._listeners)):
                listener(held)
