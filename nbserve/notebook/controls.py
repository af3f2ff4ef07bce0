"""Plain ipywidgets bound to the live settings of an endpoint, to link with a person's own. Runs in the kernel."""

from __future__ import annotations

import contextlib
import html
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from nbserve.config import Policy
from nbserve.errors import NbserveError
from nbserve.options import HELP_TEXTS
from nbserve.verbs import Endpoint

INTERVAL_S = 0.5
# What the stream told before a change can arrive a moment after it.
_ECHO_S = 0.2
_ERROR = "<span style='color:var(--jp-error-color1, #d64545)'>{}</span>"
logger = logging.getLogger(__name__)


class Controls(Mapping[str, Any]):
    """A widget for each live setting, as an attribute and as an item: `c.workers`, `c["workers"]`.

    Setting the value of one, by hand or in Python, configures the endpoint; a change made elsewhere moves the widget.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        widgets = _library()
        self._endpoint = endpoint
        self._known = endpoint.settings
        self._widgets = _made(widgets, self._known)
        self._message = widgets.HTML()
        self._box = widgets.VBox([*self._widgets.values(), self._message])
        self._wishes: dict[str, Any] = {}
        self._is_sending = False
        self._settled_s = 0.0
        self._mover: int | None = None
        self._lock = threading.RLock()
        self._over = threading.Event()
        for widget in self._widgets.values():
            widget.observe(self._moved, "value")
        self._start(self._follow)

    def __getitem__(self, name: str) -> Any:
        return self._widgets[name]

    def __getattr__(self, name: str) -> Any:
        widgets = self.__dict__.get("_widgets", {})
        if name not in widgets:
            raise AttributeError(f"there is no control {name!r}; there are: {', '.join(widgets)}")
        return widgets[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._widgets]

    def __iter__(self) -> Iterator[str]:
        return iter(self._widgets)

    def __len__(self) -> int:
        return len(self._widgets)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={widget.value!r}" for name, widget in self._widgets.items())
        return f"<controls of {self._endpoint.name}: {values}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = self._box._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": repr(self)}

    def close(self) -> None:
        """Unbind the widgets: they stay, and change nothing any more."""
        if self._over.is_set():
            return
        self._over.set()
        for widget in self._widgets.values():
            widget.unobserve(self._moved, "value")

    def _moved(self, change: Mapping[str, Any]) -> None:
        name = next(name for name, widget in self._widgets.items() if widget is change["owner"])
        # What the widget says already is so; but what a person has linked to it is a wish.
        if self._mover == threading.get_ident() and change["new"] == self._known[name]:
            return
        with self._lock:
            self._wishes[name] = change["new"]
            if not self._is_sending:
                self._is_sending = True
                self._start(self._send)

    def _send(self) -> None:
        """Carry out what is wished, one by one; of one setting only the latest."""
        while (wish := self._next_wish()) is not None:
            name, value = wish
            try:
                settings = self._endpoint.configure(**{name: value})
                self._say("")
            except NbserveError as error:
                self._say(str(error))
                settings = {**self._known}
            with self._lock:
                self._settled_s = time.monotonic()
                self._take(settings)

    def _next_wish(self) -> tuple[str, Any] | None:
        with self._lock:
            if self._wishes and not self._over.is_set():
                name = next(iter(self._wishes))
                return name, self._wishes.pop(name)
            self._is_sending = False
            return None

    def _follow(self) -> None:
        with contextlib.suppress(NbserveError), contextlib.closing(self._endpoint.stream(INTERVAL_S)) as lines:
            for line in lines:
                if self._over.is_set():
                    return
                if line["event"] == "stats":
                    self._hear(line["endpoint"]["settings"])
        if not self._over.is_set():
            self._say(f"{self._endpoint.name} is stopped")
            self._disable()

    def _hear(self, settings: Mapping[str, Any]) -> None:
        with self._lock:
            if not self._is_sending and time.monotonic() - self._settled_s > _ECHO_S:
                self._take(settings)

    def _take(self, settings: Mapping[str, Any]) -> None:
        """Show the settings as they are, but for those that are about to change."""
        self._known = {**settings}
        self._mover = threading.get_ident()
        try:
            for name, widget in self._widgets.items():
                if name not in self._wishes and widget.value != settings[name]:
                    _move(widget, settings[name])
        finally:
            self._mover = None

    def _say(self, text: str) -> None:
        self._message.value = _ERROR.format(html.escape(text)) if text else ""

    def _disable(self) -> None:
        for widget in self._widgets.values():
            widget.disabled = True

    def _start(self, work: Callable[[], None]) -> None:
        name = f"nbserve-controls-{self._endpoint.name}"
        threading.Thread(target=_guarded, args=(work,), name=name, daemon=True).start()


def _library() -> Any:
    try:
        import ipywidgets
    except ImportError:
        raise NbserveError("controls are made of ipywidgets, which is not installed: pip install ipywidgets") from None
    return ipywidgets


def _made(widgets: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    slider: Mapping[str, Any] = {"continuous_update": False}
    kinds: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
        "policy": (widgets.Dropdown, {"options": get_args(Policy)}),
        "max_batch_size": (widgets.IntSlider, {"min": 1, "max": 128, **slider}),
        "max_batch_delay_ms": (widgets.FloatSlider, {"min": 0, "max": 100, "step": 0.5, **slider}),
        "workers": (widgets.IntSlider, {"min": 1, "max": 16, **slider}),
        "queue_size": (widgets.BoundedIntText, {"min": 1, "max": 1_000_000}),
        "response_timeout_s": (widgets.BoundedFloatText, {"min": 0.001, "max": 86_400}),
        "threads_per_worker": (widgets.BoundedIntText, {"min": 0, "max": 1024}),
    }
    return {name: _widget(kind, name, settings[name], options) for name, (kind, options) in kinds.items()}


def _widget(kind: Any, name: str, value: Any, options: Mapping[str, Any]) -> Any:
    if "max" in options:
        options = {**options, "max": max(value, options["max"])}
    style = {"description_width": "12em"}
    return kind(
        value=value, description=name, tooltip=HELP_TEXTS[name], style=style, layout={"width": "32em"}, **options
    )


def _move(widget: Any, value: Any) -> None:
    if hasattr(widget, "max") and value > widget.max:
        widget.max = value
    widget.value = value


def _guarded(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        # A thread's edge: nothing of it may appear in somebody's notebook.
        logger.debug("%s ended", threading.current_thread().name, exc_info=True)
