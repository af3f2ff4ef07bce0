"""The panel's still twin: a picture in an output of its own, drawn again when there is news. Runs in the kernel."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from IPython.display import DisplayHandle

from nbserve.deployment import Endpoint
from nbserve.errors import NbserveError
from nbserve.notebook.live import Live
from nbserve.notebook.news import News

# As long as the window of a sample, so that nothing is seen twice and nothing is missed.
TICK_S = 2.0
logger = logging.getLogger(__name__)


class Twin:
    """One picture of one endpoint, however often it is shown; a quiet thread follows until the endpoint is gone."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        # The same wherever it is shown: an update reaches them all.
        self._handle = DisplayHandle(f"nbserve-{endpoint.server.server_id}-{endpoint.name}")
        self._thread: threading.Thread | None = None
        self._is_left = threading.Event()

    def show(self, live: Live, run: Callable[[Callable[[], None]], Any]) -> None:
        """Show it in the running cell; `run` calls what draws it again later, in a context of the caller's choice."""
        now_s = time.time()
        self._handle.display(**self._output(live, now_s))
        if self._thread is None or not self._thread.is_alive():
            self._is_left.clear()
            name = f"nbserve-picture-{self._endpoint.name}"
            self._thread = threading.Thread(target=self._guarded, args=(News(live, now_s), run), name=name, daemon=True)
            self._thread.start()

    def leave(self) -> None:
        """Draw nothing any more."""
        self._is_left.set()

    def _guarded(self, news: News, run: Callable[[Callable[[], None]], Any]) -> None:
        try:
            self._follow(news, run)
        except Exception:
            # A thread's edge: nothing of it may appear in somebody's notebook.
            logger.debug("the picture of %s ended", self._endpoint.name, exc_info=True)

    def _follow(self, news: News, run: Callable[[Callable[[], None]], Any]) -> None:
        live = Live()
        with contextlib.suppress(NbserveError), contextlib.closing(self._endpoint.stream(TICK_S)) as lines:
            for line in lines:
                if self._is_left.is_set():
                    return
                live.take(line)
                if live.endpoint and not live.is_gone and news.is_due(live, time.time()):
                    run(lambda: self._draw(live))
        if live.endpoint and not self._is_left.is_set():
            live.is_gone = True
            run(lambda: self._draw(live))

    def _draw(self, live: Live) -> None:
        self._handle.update(**self._output(live, time.time()))

    def _output(self, live: Live, now_s: float) -> dict[str, Any]:
        from nbserve.notebook import picture
        from nbserve.notebook.sheet import WIDTH_PX

        words = f"<picture of the panel of {self._endpoint.name}>"
        data = {"image/png": picture.png(live, now_s), "text/plain": words}
        # White in a dark notebook too; and as wide as it was drawn for, not as its pixels say.
        shown = {"width": WIDTH_PX, "needs_background": "light"}
        return {"obj": data, "raw": True, "metadata": {"image/png": shown}}
