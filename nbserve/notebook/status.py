"""Status of endpoints as HTML for notebooks and as text for terminals: both say the same. Pure; runs in the kernel."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbserve.config import EndpointConfig
from nbserve.notebook import held

# Jupyter's theme variables, with fallbacks that can be read on light and on dark ground.
_BORDER = "1px solid var(--jp-border-color2, rgba(128,128,128,.4))"
_FAINT = "opacity:.7"
_MONO = "font-family:var(--jp-code-font-family, monospace);font-size:.95em"
_CARD = f"border:{_BORDER};border-radius:4px;padding:.5em .8em;margin:.2em 0;display:inline-block;max-width:100%"
_CELL = "text-align:left;padding:.1em 1.2em .1em 0;vertical-align:top;background:none;border:none"
_UNBROKEN = "white-space:nowrap"
_COLORS = {"ready": "#2e9d5b", "busy": "#2e9d5b", "starting": "#c98a00", "draining": "#c98a00", "held": "#c98a00"}
_BROKEN = "#d64545"
_SHORT = 60
# Rows to copy from.
_COPIED = ("URL", "try it", "folder", "next")


@dataclass(frozen=True)
class Shown:
    """Something to display in both forms."""

    html: str
    text: str

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def note(name: str, text: str) -> Shown:
    """One line of progress."""
    return Shown(f"<div><b>{_safe(name)}</b> <span style='{_FAINT}'>{_safe(text)}</span></div>", f"{name}: {text}")


def card(
    endpoint: Mapping[str, Any],
    curl: str,
    took_s: float | None = None,
    notes: Sequence[str] = (),
    holds: Sequence[Mapping[str, Any]] | None = None,
    *,
    figures: str | None = None,
    is_short: bool = False,
) -> Shown:
    """An endpoint: URL, a curl line to copy, version, workers, held ones, settings that differ from the defaults.

    `holds` may know more than the status: workers of a version that leaves are held too. A short card leaves out what
    the panel below it shows.
    """
    more = [("workers", workers(endpoint["workers"])), ("settings", settings(endpoint["settings"]))]
    rows = [
        *([] if is_short else [("URL", endpoint["url"] or "none")]),
        ("try it", curl),
        *([] if is_short else more[:1]),
        *(("held", text) for text in _held(endpoint, holds)),
        *([] if is_short else [*more[1:], *_requests_row(endpoint)]),
        *([("now", figures)] if figures else []),
        *(("note", text) for text in notes),
    ]
    head = f"version {endpoint['version']}, {endpoint['state'].lower()}" + _took(took_s)
    return Shown(_card_html(endpoint, head, rows), _card_text(endpoint["name"], head, rows))


def facts(name: str, head: str, rows: Sequence[tuple[str, str]]) -> Shown:
    """A card about something that is done."""
    return Shown(_card_html({"name": name, "state": "ready"}, head, rows), _card_text(name, head, rows))


def table(servers: Sequence[Mapping[str, Any]]) -> Shown:
    """All endpoints of these servers, one row each."""
    if not servers:
        return Shown(
            "<div>no server runs; <code>%%serve NAME</code> starts one</div>", "no server runs; %%serve starts one"
        )
    heads = ("endpoint", "state", "version", "workers", "queued", "answers", "URL")
    parts = [(_server_line(server), [_row(endpoint) for endpoint in server["endpoints"]]) for server in servers]
    tables = "".join(_table_html(line, heads, rows) for line, rows in parts)
    endpoints = [endpoint for server in servers for endpoint in server["endpoints"]]
    below = [f"{endpoint['name']}: {text}" for endpoint in endpoints for text in _held(endpoint)]
    notes = "".join(f"<div style='{_FAINT}'>{_safe(text)}</div>" for text in below)
    return Shown(tables + notes, "\n".join([_tables_text(heads, parts), *below]))


def workers(states: Iterable[Mapping[str, Any]]) -> str:
    """`2 ready (cpu)`, or each state with its count; a last error is told."""
    listed = list(states)
    counts: dict[str, int] = {}
    for worker in listed:
        key = _kind(worker)
        counts[key] = counts.get(key, 0) + 1
    restarts = sum(worker.get("restarts") or 0 for worker in listed)
    text = ", ".join(f"{count} {key}" for key, count in counts.items()) or "none"
    return text + (f", {restarts} restarted" if restarts else "")


def _kind(worker: Mapping[str, Any]) -> str:
    """`ready (cpu)`; a stand-in or a replay worker says what it is."""
    role = worker.get("role", "worker")
    told = [worker.get("device") or "", role if role != "worker" else ""]
    brackets = ", ".join(filter(None, told))
    return worker["state"].lower() + (f" ({brackets})" if brackets else "")


def settings(values: Mapping[str, Any]) -> str:
    """The settings that differ from the defaults, written as in `%serve config`."""
    defaults = EndpointConfig().as_dict()
    changed = [f"{name}={value}" for name, value in values.items() if value != defaults.get(name)]
    return " ".join(changed) or "defaults"


def answers(requests: Mapping[str, int]) -> str:
    """`200: 1,432  500: 2`"""
    return "  ".join(f"{status}: {count:,}" for status, count in sorted(requests.items()) if count) or "none"


def _requests_row(endpoint: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = answers(endpoint.get("requests") or {})
    return [("answers", told)] if told != "none" else []


def _took(seconds: float | None) -> str:
    return f", in {seconds:.2f} s" if seconds is not None else ""


def _server_line(server: Mapping[str, Any]) -> str:
    kind = "detached server" if server.get("detached") else "server"
    return f"{kind}, pid {server['pid']}" + ("" if server["endpoints"] else ": no endpoints yet")


def _held(endpoint: Mapping[str, Any], holds: Sequence[Mapping[str, Any]] | None = None) -> list[str]:
    now_s = time.time()
    return [held.sentence(endpoint["name"], each, now_s) for each in (held.of(endpoint) if holds is None else holds)]


def _row(endpoint: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        endpoint["name"],
        endpoint["state"].lower(),
        endpoint["version"],
        workers(endpoint["workers"]),
        str(endpoint["queued"]),
        answers(endpoint.get("requests") or {}),
        endpoint["url"] or "",
    )


def _card_html(endpoint: Mapping[str, Any], head: str, rows: Sequence[tuple[str, str]]) -> str:
    dot = f"<span style='color:{_color(endpoint['state'])}'>&#9679;</span>"
    title = f"<div>{dot} <b>{_safe(endpoint['name'])}</b> <span style='{_FAINT}'>{_safe(head)}</span></div>"
    body = "".join(_card_row_html(key, value) for key, value in rows)
    return f"<div style='{_CARD}'>{title}<table style='border:none;margin:.3em 0 0'>{body}</table></div>"


def _card_row_html(key: str, value: str) -> str:
    label = f"<td style='{_CELL};{_UNBROKEN};{_FAINT}'>{key}</td>"
    return f"<tr style='background:none'>{label}<td style='{_CELL}'>{_value_html(key, value)}</td></tr>"


def _value_html(key: str, value: str) -> str:
    # user-select:all: one click marks the whole line for copying, without a script.
    if key in _COPIED:
        style = f"{_MONO};user-select:all;overflow-wrap:anywhere;white-space:pre-wrap;background:none"
        return f"<code style='{style}'>{_safe(value)}</code>"
    return _safe(value)


def _card_text(name: str, head: str, rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([f"{name}: {head}", *(f"  {key:<9}{value}" for key, value in rows)])


def _table_html(line: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th style='{_CELL};{_FAINT};font-weight:normal'>{text}</th>" for text in heads)
    body = "".join(f"<tr style='background:none'>{_cells_html(row)}</tr>" for row in rows)
    inner = f"<table style='border:none;margin:.3em 0 0'><tr>{head}</tr>{body}</table>" if rows else ""
    return f"<div style='{_CARD}'><div style='{_FAINT}'>{_safe(line)}</div>{inner}</div>"


def _cells_html(row: Sequence[str]) -> str:
    name, state, *others = row
    first = f"<td style='{_CELL};{_UNBROKEN}'><b>{_safe(name)}</b></td>"
    second = f"<td style='{_CELL};{_UNBROKEN};color:{_color(state)}'>{_safe(state)}</td>"
    return first + second + "".join(f"<td style='{_CELL};{_wrapping(value)}'>{_safe(value)}</td>" for value in others)


def _wrapping(value: str) -> str:
    """Short texts stay on their line; longer ones, such as a URL in a narrow window, break anywhere."""
    return _UNBROKEN if len(value) <= _SHORT else "overflow-wrap:anywhere"


def _tables_text(heads: Sequence[str], parts: Sequence[tuple[str, list[tuple[str, ...]]]]) -> str:
    return "\n\n".join("\n".join([line, *_columns([tuple(heads), *rows])]) if rows else line for line, rows in parts)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _color(state: str) -> str:
    return _COLORS.get(state.lower(), _BROKEN)


def _safe(text: str) -> str:
    return html.escape(str(text), quote=True)
