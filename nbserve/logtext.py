"""Log lines for people. Runs in the kernel and the CLI."""

from __future__ import annotations

import time
from typing import Any


def log_text(lines: list[dict[str, Any]]) -> str:
    """Log lines for people, one below the other."""
    return "\n".join(_log_line(line) for line in lines)


def _log_line(line: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(line["time_s"]))
    worker = "" if line["worker"] is None else f"[{line['worker']}]"
    return f"{clock} {line['level']} {line['endpoint'] or 'server'}{worker} {line['text']}"
