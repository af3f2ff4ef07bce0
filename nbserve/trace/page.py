"""The interactive timeline as HTML that needs nothing else: no server, no network. Pure; kernel or terminal."""

from __future__ import annotations

import base64
import html
from functools import cache
from importlib.resources import files

# Until the viewer has measured itself; then the frame is as high as what is in it.
_HEIGHT_PX = 720

# The viewer needs no connection, so it is allowed none.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
</head>
<body>
<main id="trace" aria-busy="true">loading the timeline …</main>
<script type="application/gzip" id="pack">{pack}</script>
<script>{script}</script>
</body>
</html>
"""


def page(pack: bytes, *, title: str = "nbserve profile") -> str:
    """The timeline for a notebook: a frame that keeps its styles and keys apart from those of the page around it."""
    source = html.escape(document(pack, title=title))
    style = f"width: 100%; height: {_HEIGHT_PX}px; border: 0; display: block; color-scheme: normal"
    return f'<iframe srcdoc="{source}" title="{html.escape(title)}" allow="clipboard-write" style="{style}"></iframe>'


def document(pack: bytes, *, title: str = "nbserve profile") -> str:
    """The timeline as a whole HTML file."""
    return _PAGE.format(
        policy=_POLICY,
        title=html.escape(title),
        pack=base64.b64encode(pack).decode(),
        script=_script(),
    )


@cache
def _script() -> str:
    """The viewer, built from extension/js; a script in a page ends at the first "</script", wherever that is."""
    source = files("nbserve.trace").joinpath("static/trace.js").read_text(encoding="utf-8")
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")
