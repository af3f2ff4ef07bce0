"""An auto-tune as a PNG, for readers that show no HTML: GitHub, untrusted notebooks. Pure; kernel or terminal."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from nbserve.trace.pen import LINE, MUTED, TEXT, font
from nbserve.tune import plot, summary
from nbserve.tune.plot import Dot, Plot
from nbserve.tune.summary import Row

if TYPE_CHECKING:
    from nbserve.tune.tuned import Tuned

WIDTH_PX, PLOT_PX = 760, 310
_MARGIN_PX, _LINE_PX = 14, 19
# Drawn so many times larger, then made smaller: Pillow has no smooth edges.
_FINE = 4
_KEPT, _LATE, _LATE_GROUND, _FRONTIER = "#8d9aae", "#c3cbd6", "#f3f4f7", "#a5d3b8"
_RADIUS = {"best": 6, "before": 5.5, "kept": 3.5, "late": 3}
# Of the table: title, requests/s (to its right end), p99 (likewise), under, settings.
_COLUMNS = (0, 130, 210, 230, 330)
_LETTERS = 100


def png(tuned: Tuned) -> bytes:
    """The verdict, the frontier, the best settings and those before."""
    said = textwrap.wrap(summary.headline(tuned), _LETTERS)
    rows = summary.rows(tuned.state, tuned.proof)
    below_px = _MARGIN_PX + len(said) * _LINE_PX + 6
    table_px = below_px + PLOT_PX + 8
    image = Image.new("RGB", (WIDTH_PX, table_px + (len(rows) + 1) * _LINE_PX + _MARGIN_PX), "white")
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(said):
        pen.text((_MARGIN_PX, _MARGIN_PX + number * _LINE_PX), line, TEXT, font(14))
    drawn = plot.plot(tuned.state, WIDTH_PX - 2 * _MARGIN_PX, PLOT_PX)
    image.paste(_picture(drawn), (_MARGIN_PX, below_px))
    for number, row in enumerate([None, *rows]):
        _row(pen, row, table_px + number * _LINE_PX)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _picture(drawn: Plot) -> Image.Image:
    fine = Image.new("RGB", (drawn.width * _FINE, drawn.height * _FINE), "white")
    _shapes(_Fine(fine), drawn)
    image = fine.resize((drawn.width, drawn.height), Image.Resampling.LANCZOS)
    _texts(ImageDraw.Draw(image), drawn)
    return image


class _Fine:
    """A pen whose pixels are those of the picture, on a ground that is so many times larger."""

    def __init__(self, image: Image.Image) -> None:
        self._pen = ImageDraw.Draw(image)

    def line(self, points: list[tuple[float, float]], colour: str, width: float = 1.0) -> None:
        self._pen.line([(x * _FINE, y * _FINE) for x, y in points], colour, round(width * _FINE), joint="curve")

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._pen.rectangle((left * _FINE, top * _FINE, right * _FINE, bottom * _FINE), colour)

    def circle(self, x: float, y: float, radius: float, fill: str | None, edge: str | None = None) -> None:
        box = [(value) * _FINE for value in (x - radius, y - radius, x + radius, y + radius)]
        self._pen.ellipse(box, fill, edge, width=_FINE)


def _shapes(pen: _Fine, drawn: Plot) -> None:
    left, right, top, bottom = plot.LEFT_PX, drawn.right, plot.TOP_PX, drawn.bottom
    pen.rectangle(drawn.late_x, top, right, bottom, _LATE_GROUND)
    for tick in drawn.y_ticks:
        pen.line([(left, tick.at), (right, tick.at)], LINE)
    pen.line([(left, bottom), (right, bottom)], MUTED)
    for tick in drawn.x_ticks:
        pen.line([(tick.at, bottom), (tick.at, bottom + 4)], MUTED)
    for y in range(top, bottom, 7):
        pen.line([(drawn.late_x, y), (drawn.late_x, min(bottom, y + 4))], MUTED)
    if len(drawn.frontier) > 1:
        pen.line(list(drawn.frontier), _FRONTIER, 1.5)
    for dot in drawn.dots:
        _dot(pen, dot)


def _dot(pen: _Fine, dot: Dot) -> None:
    if dot.kind == "late":
        pen.circle(dot.x, dot.y, _RADIUS["late"], "white", _LATE)
    else:
        colour = {"best": plot.BEST, "before": plot.BEFORE, "kept": _KEPT}[dot.kind]
        pen.circle(dot.x, dot.y, _RADIUS[dot.kind], colour)


def _texts(pen: ImageDraw.ImageDraw, drawn: Plot) -> None:
    for tick in drawn.y_ticks:
        pen.text((plot.LEFT_PX - 8, tick.at), tick.label, MUTED, font(11), anchor="rm")
    for tick in drawn.x_ticks:
        pen.text((tick.at, drawn.bottom + 13), tick.label, MUTED, font(11), anchor="mm")
    pen.text((plot.LEFT_PX, 10), "requests/s", MUTED, font(11), anchor="lm")
    pen.text((drawn.right, drawn.height - 7), "99th percentile of latency", MUTED, font(11), anchor="rm")
    pen.text((drawn.late_x, 10), drawn.goal, MUTED, font(11), anchor="mm")
    for dot in drawn.dots:
        if dot.label:
            x, anchor = (dot.x + 10, "lm") if dot.label_is_right else (dot.x - 10, "rm")
            pen.text((x, dot.y), dot.label, TEXT, font(12), anchor=anchor)


def _row(pen: ImageDraw.ImageDraw, row: Row | None, y: int) -> None:
    """One line of the table; None is its head."""
    texts = ("", "requests/s", "p99", "under", "settings") if row is None else _texts_of(row)
    colour = MUTED if row is None else TEXT
    mark = {"best": plot.BEST, "before": plot.BEFORE}.get(texts[0])
    if mark is not None:
        pen.ellipse((_MARGIN_PX, y + 4, _MARGIN_PX + 8, y + 12), mark)
    for number, (text, x) in enumerate(zip(texts, _COLUMNS, strict=True)):
        indent = 14 if number == 0 else 0
        pen.text((_MARGIN_PX + x + indent, y + 8), text, colour, font(12), anchor="rm" if number in (1, 2) else "lm")


def _texts_of(row: Row) -> tuple[str, str, str, str, str]:
    return row.title, summary.rate(row.throughput), summary.milliseconds(row.p99_ms), row.load, row.settings
