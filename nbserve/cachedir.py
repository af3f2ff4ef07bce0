"""Where this user's files are kept that can be made anew. Used by the kernel and the server."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """$NBSERVE_CACHE_DIR, else nbserve in the user's cache folder."""
    if named := os.environ.get("NBSERVE_CACHE_DIR"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbserve"
