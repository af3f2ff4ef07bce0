"""An auto-tune as HTML, while it runs and when it is done: progress, the frontier, what it says. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nbserve.tune import plot, summary
from nbserve.tune.plot import Dot, Plot
from nbserve.tune.state import State
from nbserve.tune.summary import Row

if TYPE_CHECKING:
    from nbserve.tune.tuned import Tuned

WIDTH_PX, HEIGHT_PX = 720, 300

# Jupyter's theme variables, with what can be read on light and on dark ground where there are none.
_LINE = "var(--jp-border-color2, rgba(128,128,128,.35))"
_FAINT = "opacity:.7"
_FONT = "font-family:var(--jp-ui-font-family, system-ui, sans-serif);font-size:13px;line-height:1.45"
_CARD = (
    f"{_FONT};border:1px solid {_LINE};border-radius:4px;padding:.6em .9em;margin:.2em 0;max-width:{WIDTH_PX}px;"
    "color:var(--jp-ui-font-color1, inherit)"
)
_CELL = "text-align:left;padding:.1em 1.2em .1em 0;background:none;border:none;white-space:nowrap"
_NUMBER = _CELL.replace("left", "right")
_CODE = "font-family:var(--jp-code-font-family, monospace);font-size:.95em;user-select:all"
_RADIUS = {"best": 6, "before": 5.5, "kept": 3.5, "late": 3}


def live(state: State) -> str:
    """While it runs."""
    clock = f"{state.spent_s:.0f} of {state.seconds:.0f} s"
    counted = f"{state.tried} settings, {state.measured} measurements"
    head = f"<b>{_safe(state.name)}</b> <span style='{_FAINT}'>{_safe(state.what)}</span>"
    bar = f"{_bar(state.share)}<div style='{_FAINT};font-size:12px'>{clock} · {counted}</div>"
    return _card([_cut(head), bar, _svg(state), _table(summary.rows(state))])


def result(tuned: Tuned) -> str:
    """When it is done."""
    name, _, said = summary.headline(tuned).partition(": ")
    notes = "".join(f"<div style='{_FAINT}'>{_safe(note)}</div>" for note in summary.notes(tuned))
    told = "".join(
        f"<div>{_safe(before)} <span style='{_CODE}'>{_safe(code)}</span></div>" for before, code in _next(tuned)
    )
    head = f"<div><b>{_safe(name)}</b> {_safe(said)}</div>"
    return _card([head, _svg(tuned.state), _table(summary.rows(tuned.state, tuned.proof)), notes, told])


def _next(tuned: Tuned) -> list[tuple[str, str]]:
    return list(summary.next_steps(tuned, "%serve"))


def _card(parts: Iterable[str]) -> str:
    return f"<div style='{_CARD}'>{''.join(parts)}</div>"


def _cut(text: str) -> str:
    """In one line, whatever its length: below it nothing may jump."""
    return f"<div style='white-space:nowrap;overflow:hidden;text-overflow:ellipsis'>{text}</div>"


def _bar(share: float) -> str:
    track = f"height:4px;border-radius:2px;background:{_LINE};margin:.4em 0 .2em;overflow:hidden"
    return (
        f"<div role='progressbar' aria-valuenow='{share:.0%}' style='{track}'>"
        f"<div style='height:100%;width:{share:.1%};background:{plot.BEST}'></div></div>"
    )


def _table(rows: list[Row]) -> str:
    heads = "".join(
        f"<th style='{style};font-weight:normal;{_FAINT}'>{head}</th>"
        for head, style in zip(("", "requests/s", "p99", "under", "settings"), _STYLES, strict=True)
    )
    body = "".join(f"<tr style='background:none'>{''.join(_cells(row))}</tr>" for row in rows)
    return f"<table style='border-collapse:collapse;margin:.2em 0 .4em;{_FONT}'><tr>{heads}</tr>{body}</table>"


_STYLES = (_CELL, _NUMBER, _NUMBER, _CELL, _CELL)


def _cells(row: Row) -> Iterator[str]:
    colour = {"best": plot.BEST, "before": plot.BEFORE}.get(row.title)
    mark = f"<span style='color:{colour}'>●</span> " if colour else ""
    texts = (mark + row.title, summary.rate(row.throughput), summary.milliseconds(row.p99_ms))
    for text, style in zip((*texts, row.load, _safe(row.settings)), _STYLES, strict=True):
        yield f"<td style='{style}'>{text}</td>"


def _svg(state: State) -> str:
    drawn = plot.plot(state, WIDTH_PX, HEIGHT_PX)
    size = f"viewBox='0 0 {WIDTH_PX} {HEIGHT_PX}' width='{WIDTH_PX}' height='{HEIGHT_PX}'"
    style = "display:block;max-width:100%;height:auto;font-size:11px;font-family:inherit"
    parts = [*_axes(drawn), *_goal(drawn), *_frontier(drawn), *map(_dot, drawn.dots)]
    return f"<svg {size} role='img' aria-label='throughput over latency' style='{style}'>{''.join(parts)}</svg>"


def _axes(drawn: Plot) -> Iterator[str]:
    left, right, bottom = plot.LEFT_PX, drawn.right, drawn.bottom
    for tick in drawn.y_ticks:
        yield f"<path d='M{left} {tick.at:.1f}H{right}' stroke='currentColor' stroke-opacity='.12'/>"
        yield _text(left - 8, tick.at + 4, tick.label, "end")
    for tick in drawn.x_ticks:
        yield f"<path d='M{tick.at:.1f} {bottom}v4' stroke='currentColor' stroke-opacity='.5'/>"
        yield _text(tick.at, bottom + 17, tick.label, "middle")
    yield f"<path d='M{left} {bottom}H{right}' stroke='currentColor' stroke-opacity='.5'/>"
    yield _text(left, 12, "requests/s", "start")
    yield _text(right, drawn.height - 6, "99th percentile of latency", "end")


def _goal(drawn: Plot) -> Iterator[str]:
    x, top, bottom = drawn.late_x, plot.TOP_PX, drawn.bottom
    late = f"x='{x:.1f}' y='{top}' width='{drawn.right - x:.1f}' height='{bottom - top}'"
    yield f"<rect {late} fill='currentColor' fill-opacity='.06'/>"
    yield f"<path d='M{x:.1f} {top}V{bottom}' stroke='currentColor' stroke-opacity='.6' stroke-dasharray='4 3'/>"
    yield _text(x, 14, drawn.goal, "middle")


def _frontier(drawn: Plot) -> Iterator[str]:
    if len(drawn.frontier) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in drawn.frontier)
        yield f"<path d='M{path}' fill='none' stroke='{plot.BEST}' stroke-opacity='.45' stroke-width='1.5'/>"


def _dot(dot: Dot) -> str:
    fill = {"best": plot.BEST, "before": plot.BEFORE, "kept": "currentColor", "late": "none"}[dot.kind]
    edge = "currentColor' stroke-opacity='.4" if dot.kind == "late" else "none"
    faint = " fill-opacity='.45'" if dot.kind == "kept" else ""
    circle = f"<circle cx='{dot.x:.1f}' cy='{dot.y:.1f}' r='{_RADIUS[dot.kind]}' fill='{fill}'{faint} stroke='{edge}'>"
    return f"{circle}<title>{_safe(dot.title)}</title></circle>{_label(dot) if dot.label else ''}"


def _label(dot: Dot) -> str:
    x, anchor = (dot.x + 10, "start") if dot.label_is_right else (dot.x - 10, "end")
    place = f"x='{x:.1f}' y='{dot.y + 4:.1f}' text-anchor='{anchor}'"
    return f"<text {place} fill='currentColor' font-weight='600'>{dot.label}</text>"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='currentColor' fill-opacity='.75'>{text}</text>"


def _safe(text: str) -> str:
    return html.escape(text)
