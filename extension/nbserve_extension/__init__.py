"""Jupyter's server: routes below base_url/nbserve/, behind its login. Enabled by a file in etc/jupyter."""

from __future__ import annotations

import re
from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "nbserve_extension"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    from jupyter_server.utils import url_path_join

    from . import handlers, perfetto
    from .servers import Servers

    base_url = server_app.web_app.settings["base_url"]
    root = re.escape(url_path_join(base_url, "nbserve/"))
    routes = [*handlers.routes(root, Servers(server_app.log)), *perfetto.routes(base_url)]
    server_app.web_app.add_handlers(".*$", routes)
