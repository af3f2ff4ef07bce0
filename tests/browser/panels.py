"""A server that the panel believes in: its stream and its answers, told by the test. No process, no network."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route, WebSocketRoute, expect

MODULE = Path(__file__).parents[2] / "nbserve" / "notebook" / "static" / "panel.js"
# The clipboard is for secure pages, such as those of this host.
ORIGIN = "http://localhost"
BASE_URL = "/user/ann/"
API = f"{BASE_URL}nbserve/api/endpoints/digits"
EPOCH_S = 1_790_000_000.0
STAGES = ("receive", "queue", "batch_wait", "ipc", "preprocess", "inference", "postprocess", "encode", "respond")
PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>lab</title><style>{style}</style></head>
<body data-jp-theme-light="{light}" style="margin:0;background:var(--jp-layout-color1)">
<script id="jupyter-config-data" type="application/json">{config}</script>
<div><div class="jp-OutputArea-child"><div id="panel"></div></div>
<div class="jp-OutputArea-child"><img id="twin" alt="still" width="9" height="9"></div></div>
<script type="module">
import panel, {{ mount }} from "/panel.js";
const snapshot = {snapshot};
const values = {{ name: "digits", server_id: "4711", line: {line}, snapshot }};
const listeners = new Set();
const sent = [];
window.fake = {{
  sent,
  say: (message, buffers = []) => listeners.forEach((listener) => listener(message, buffers)),
  model: {{
    get: (name) => values[name],
    send: (message) => sent.push(message),
    on: (event, listener) => listeners.add(listener),
    off: (event, listener) => listeners.delete(listener),
  }},
}};
window.stop = panel.render({{ model: window.fake.model, el: document.getElementById("panel") }});
window.mount = mount;
</script></body></html>"""
LIGHT = """:root { --jp-layout-color0: #fff; --jp-layout-color1: #fff; --jp-ui-font-color1: rgba(0,0,0,.87);
--jp-ui-font-family: system-ui, -apple-system, "DejaVu Sans", sans-serif; }"""
DARK = """:root { --jp-layout-color0: #111; --jp-layout-color1: #212121; --jp-ui-font-color1: #fff;
--jp-ui-font-family: system-ui, -apple-system, "DejaVu Sans", sans-serif; }"""

Json = dict[str, Any]


def worker(index: int, **changes: Any) -> Json:
    return {
        "index": index,
        "pid": 4100 + index,
        "state": "BUSY" if index % 2 else "READY",
        "device": "cpu",
        "threads": 1,
        "rss_bytes": 412 * 2**20,
        "cpu_percent": 87.0,
        "batches": 10_312,
        "restarts": 0,
        "last_error": None,
        "last_error_place": None,
        "role": "worker",
        "held": None,
        "debugger": None,
        "profiling": False,
        **changes,
    }


def held(index: int) -> Json:
    place = {"file": "quickstart.ipynb, cell 7", "line": 12, "function": "preprocess"}
    return {
        "worker": index,
        "pid": 4100 + index,
        "reason": "breakpoint",
        **place,
        "request_ids": ["ab-1"],
        "since_s": EPOCH_S,
        "debugger": None,
        "goes_on_in_s": 100.0,
        "socket": None,
    }


def refusal(status: int, message: str) -> Callable[[Route], None]:
    """An answer of the management API that says no."""
    return lambda route: route.fulfill(status=status, json={"code": status, "type": "ConfigError", "message": message})


def encoded(value: Any) -> str:
    """A body as the management API gives it: JSON, or bytes, in base64."""
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


def sample(tick: int, **changes: Any) -> Json:
    """A plausible one; ticks are half seconds."""
    wave = math.sin(tick / 9) + 0.3 * math.sin(tick / 2.3)
    sizes = [[size, round(90 * math.exp(-(((size - 11 - 3 * wave) / 5) ** 2)))] for size in range(1, 33)]
    sizes = [[size, count] for size, count in sizes if count]
    batches = sum(count for _, count in sizes)
    rows = sum(size * count for size, count in sizes)
    stages_ms = (0.06, 1.9 + 0.5 * wave, 0.7, 0.21, 0.9, 2.6 + 0.3 * wave, 0.3, 0.05, 0.08)
    return {
        "time_s": EPOCH_S + tick / 2,
        "window_s": 2.0,
        "requests": rows,
        "throughput": rows / 2,
        "errors": 0,
        "latency_ms": {"p50": 6.1 + wave, "p95": 9.4 + 1.5 * wave, "p99": 14.2 + 2.5 * wave},
        "queued": max(0, round(14 + 9 * wave)),
        "batches": batches,
        "mean_batch_size": rows / batches,
        "batch_sizes": sizes,
        "stages_ms": dict(zip(STAGES, stages_ms, strict=True)),
        **changes,
    }


def endpoint(**settings: Any) -> Json:
    return {
        "name": "digits",
        "version": "3f9c2a1b",
        "state": "READY",
        "url": "http://127.0.0.1:43817/predictions/digits",
        "bundle": "/home/ann/.cache/nbserve/bundles/digits-3f9c2a1b",
        "settings": {
            "workers": 2,
            "max_batch_size": 32,
            "max_batch_delay_ms": 0.0,
            "policy": "adaptive",
            "queue_size": 1024,
            "response_timeout_s": 60.0,
            "device": "auto",
            **settings,
        },
        "queued": 14,
        "workers": [worker(0), worker(1)],
        "trials": [],
        "requests": {"200": 122_310},
        "server_id": "4711",
    }


@dataclass
class FakeServer:
    """Jupyter's server with nbserve's extension, and one endpoint behind it."""

    page: Page
    endpoint: Json = field(default_factory=endpoint)
    load: Json | None = None
    export: Json | None = None
    knows: bool = True
    history: int = 0
    ticks: int = 0
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sockets: list[WebSocketRoute] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    answers: dict[str, Callable[[Route], None]] = field(default_factory=dict)
    config: Json = field(default_factory=lambda: {"baseUrl": BASE_URL, "wsUrl": "", "token": ""})

    def open(self, *, light: bool = True, line: str = "digits --workers 2", snapshot: Json | None = None) -> None:
        """Show a notebook page with the panel, and begin its stream where the extension knows the endpoint."""
        html = PAGE.format(
            light=str(light).lower(),
            style=LIGHT if light else DARK,
            config=json.dumps(self.config),
            line=json.dumps(line),
            snapshot=json.dumps(snapshot or {}),
        )
        self.page.route(f"{ORIGIN}/lab", lambda route: route.fulfill(content_type="text/html", body=html))
        self.page.route(f"{ORIGIN}/panel.js", lambda route: route.fulfill(path=MODULE))
        self.page.route(lambda url: "/nbserve/api/" in url, self._answer)
        self.page.route_web_socket(lambda url: "/nbserve/api/" in url, self._connect)
        self.page.context.add_cookies([{"name": "_xsrf", "value": "2|abc", "url": ORIGIN}])
        self.page.goto(f"{ORIGIN}/lab")

    def live(self, **options: Any) -> Page:
        """Show the panel and wait until its stream is heard."""
        self.open(**options)
        expect(self.page.locator(".panel")).to_have_attribute("data-presence", "live")
        return self.page

    def begin(self) -> Json:
        return {"event": "begin", "samples": [sample(tick) for tick in range(self.ticks - self.history, self.ticks)]}

    def configure(self, **settings: Any) -> None:
        """As if somebody else did: the next line tells."""
        self.endpoint = {**self.endpoint, "settings": {**self.endpoint["settings"], **settings}}

    def tick(self, **changes: Any) -> None:
        """One line of the stream; changes are those of its sample."""
        self.say(self.stats(**changes))

    def stats(self, **changes: Any) -> Json:
        self.ticks += 1
        told = sample(self.ticks, **changes)
        also = {"load": self.load, "export": self.export}
        return {"event": "stats", "endpoint": self.endpoint, "sample": told, **also}

    def say(self, line: Json) -> None:
        for socket in self.sockets:
            socket.send(json.dumps(line))

    def hang_up(self) -> None:
        gone, self.sockets = self.sockets, []
        for socket in gone:
            socket.close()

    def calls(self, method: str, path: str = "") -> list[Any]:
        """The bodies of what was asked so."""
        return [body for asked, at, body in self.asked if (asked, at) == (method, path)]

    def _connect(self, socket: WebSocketRoute) -> None:
        self.addresses.append(socket.url)
        if not self.knows:
            socket.close()
            return
        self.sockets.append(socket)
        socket.send(json.dumps(self.begin()))
        socket.send(json.dumps(self.stats()))

    def _answer(self, route: Route) -> None:
        request = route.request
        path = urlsplit(request.url).path.removeprefix(API)
        body = json.loads(request.post_data) if request.post_data else None
        self.asked.append((request.method, path, body))
        self.headers.append(request.headers)
        if not self.knows:
            route.fulfill(status=404, json={"code": 404, "type": "NotFound", "message": "there is no endpoint digits"})
        elif answer := self.answers.get(f"{request.method} {path}".strip()):
            answer(route)
        elif request.method == "DELETE" and not path:
            route.fulfill(json={})
        elif request.method == "PATCH":
            self.configure(**body)
            route.fulfill(json=self.endpoint)
        elif not path:
            route.fulfill(json=self.endpoint)
        else:
            route.fulfill(status=404, json={"message": f"nothing is at {path}"})
