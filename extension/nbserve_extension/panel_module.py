"""Jupyter's server: the built module of the live panel, for pages that have no kernel to get it from."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tornado import web

import nbserve
from nbserve.errors import NotFound

from .api_handler import ApiHandler

# Nothing of the notebook face is imported for it.
MODULE = Path(nbserve.__file__).parent / "notebook" / "static" / "panel.js"


class PanelModuleHandler(ApiHandler):
    """Asked for again each time, but sent only when it has changed: a new version of nbserve shows at once."""

    @web.authenticated
    async def get(self) -> None:
        try:
            module = await asyncio.to_thread(MODULE.read_bytes)
        except FileNotFoundError:
            raise NotFound(f"nbserve was installed without {MODULE.name}: install it again") from None
        self.set_header("Cache-Control", "no-cache")
        # Tornado adds the ETag, and answers 304 to who has it.
        self.send_body(module, "text/javascript; charset=utf-8")

    head = get
