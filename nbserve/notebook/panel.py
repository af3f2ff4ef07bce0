"""The live panel as a widget. Imported when one is shown, not before: its libraries take time. Runs in the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from nbserve.notebook.live import Live
from nbserve.notebook.relay import Relay
from nbserve.verbs import Endpoint

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Panel(anywidget.AnyWidget):
    """One endpoint; shown in several places, it is the same model with several views."""

    _esm = Path(__file__).parent / "static" / "panel.js"

    name = traitlets.Unicode().tag(sync=True)
    server_id = traitlets.Unicode().tag(sync=True)
    # What it shows until it follows by itself.
    snapshot = traitlets.Dict().tag(sync=True)
    # The name and the options of the `%%serve` line, as typed.
    line = traitlets.Unicode().tag(sync=True)

    def __init__(self, endpoint: Endpoint) -> None:
        self._relay = Relay(endpoint, self.send)
        self._text = ""
        super().__init__(name=endpoint.name, server_id=endpoint.server.server_id)
        self.on_msg(lambda _, message, buffers: self._relay.hear(message))
        self.comm.on_close(lambda message: self.close())

    @property
    def is_open(self) -> bool:
        """Whether a browser can still show it: one that closes its side of it takes it away here too."""
        return self.comm is not None

    def renew(self, live: Live, line: str, text: str) -> None:
        """What there is now; `text` says it to readers without widgets."""
        self._text = text
        with self.hold_sync():
            self.snapshot = live.as_dict()
            self.line = line

    def close(self) -> None:
        self._relay.end()
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {WIDGET_VIEW: view, "text/plain": self._text}
