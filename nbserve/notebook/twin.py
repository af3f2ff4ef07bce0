"""The panel's still twin: a picture in an output of its own, drawn again when there is news. Runs in the kernel."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from IPython.display import DisplayHandle

from nbserve.errors import NbserveError
from nbserve.notebook.live import Live
from nbserve.notebook.news import News
from nbserve.verbs import Endpoint

# Calls what draws a picture.
Run = Callable[[Callable[[], None]], Any]
# As long as the window of a sample, so that nothing is seen twice and nothing is missed.
TICK_S = 2.0
logger = logging.getLogger(__name__)


class Twin:
    """One picture of one endpoint, however often it is shown; a quiet thread follows until the endpoint is gone."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        # The same wherever it is shown: an update reaches them all.
        self._handle = DisplayHandle(f"nbserve-{endpoint.server.server_id}-{endpoint.name}")
        self._over = threading.Event()
        self._over.set()
        self._lock = threading.Lock()

    def show(self, live: Live, run: Run) -> None:
        """Show it in the running cell; `run` calls what draws it again later, in a context of the caller's choice."""
        now_s = time.time()
        with self._lock:
            self._handle.display(**self._output(live, now_s))
            if self._over.is_set():
                self._over = threading.Event()
                work = (self._over, News(live, now_s), run)
                name = f"nbserve-picture-{self._endpoint.name}"
                threading.Thread(target=self._guarded, args=work, name=name, daemon=True).start()

    def leave(self) -> None:
        """Draw nothing any more."""
        with self._lock:
            self._over.set()

    def _guarded(self, over: threading.Event, news: News, run: Run) -> None:
        try:
            self._follow(over, news, run)
        except Exception:
            # A thread's edge: nothing of it may appear in somebody's notebook.
            logger.debug("the picture of %s ended", self._endpoint.name, exc_info=True)
        finally:
            over.set()

    def _follow(self, over: threading.Event, news: News, run: Run) -> None:
        live = Live()
        with contextlib.suppress(NbserveError), contextlib.closing(self._endpoint.stream(TICK_S)) as lines:
            for line in lines:
                if over.is_set():
                    return
                live.take(line)
                if live.endpoint and not live.is_gone and news.is_due(live, time.time()):
                    run(lambda: self._draw(over, live))
        live.is_gone = True
        if live.endpoint:
            run(lambda: self._draw(over, live))

    def _draw(self, over: threading.Event, live: Live) -> None:
        with self._lock:
            if over.is_set():
                return
            self._handle.update(**self._output(live, time.time()))
            if live.is_gone:
                # Shown again from now on, it is followed anew.
                over.set()

    def _output(self, live: Live, now_s: float) -> dict[str, Any]:
        from nbserve.notebook import picture
        from nbserve.notebook.sheet import WIDTH_PX

        words = f"<picture of the panel of {self._endpoint.name}>"
        data = {"image/png": picture.png(live, now_s), "text/plain": words}
        # White in a dark notebook too; and as wide as it was drawn for, not as its pixels say.
        shown = {"width": WIDTH_PX, "needs_background": "light"}
        return {"obj": data, "raw": True, "metadata": {"image/png": shown}}
