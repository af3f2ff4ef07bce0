"""Jupyter's server: routes below base_url/nbserve/, behind its login. Enabled by a file in etc/jupyter."""

from __future__ import annotations

import re
from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "nbserve_extension"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    from jupyter_server.utils import url_path_join

    from .perfetto import ROUTE, PerfettoHandler

    root = re.escape(url_path_join(server_app.web_app.settings["base_url"], ROUTE))
    files = {"path": "", "default_filename": "index.html"}
    routes = [(rf"{root}()", PerfettoHandler, files), (rf"{root}/(.*)", PerfettoHandler, files)]
    server_app.web_app.add_handlers(".*$", routes)
