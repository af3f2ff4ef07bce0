"""The timeline as a PNG, for readers that run no scripts: GitHub, untrusted notebooks. Pure; kernel or terminal."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from nbserve.recording import Span
from nbserve.trace import look, sketch
from nbserve.trace.model import Finding, Timeline
from nbserve.trace.pen import ACCENT, LINE, MUTED, TEXT, duration, font, tick_step
from nbserve.trace.sketch import Sketch, Window

WIDTH_PX = 1000
_MARGIN_PX = 14
_MAX_FINDINGS = 4
# Two lines.
_TITLE_PX = 29
# Around 115 letters of the font fit into the width.
_LINE_LETTERS = 118


def png(timeline: Timeline, findings: Sequence[Finding] = ()) -> bytes:
    """One picture of where the time goes: the median request, the findings, and the rows of the timeline around it."""
    canvas = _Canvas()
    span = sketch.median_span(timeline.spans)
    _headline(canvas, timeline, span)
    if span:
        _stage_bar(canvas, span)
    for number, finding in enumerate(findings[:_MAX_FINDINGS], 1):
        _finding(canvas, number, finding)
    if len(findings) > _MAX_FINDINGS:
        canvas.line(f"and {len(findings) - _MAX_FINDINGS} more findings", MUTED)
    drawing = sketch.draw(timeline, sketch.window(timeline, span), WIDTH_PX - 2 * _MARGIN_PX)
    _timeline(canvas, drawing)
    return canvas.png()


class _Canvas:
    """Grows downwards as lines and pictures are added."""

    def __init__(self) -> None:
        self.y = _MARGIN_PX
        self._parts: list[tuple[int, Image.Image]] = []

    def add(self, part: Image.Image, gap: int = 4) -> None:
        self._parts.append((self.y, part))
        self.y += part.height + gap

    def line(self, text: str, colour: str = TEXT, size: int = 14, indent: int = 0) -> None:
        part, pen = self.strip(size + 6)
        pen.text((indent, 1), text, colour, font(size))
        self.add(part, 0)

    def strip(self, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """An empty part as wide as the canvas, and its pen."""
        part = Image.new("RGB", (WIDTH_PX - 2 * _MARGIN_PX, height), "white")
        return part, ImageDraw.Draw(part)

    def png(self) -> bytes:
        image = Image.new("RGB", (WIDTH_PX, self.y + _MARGIN_PX), "white")
        for y, part in self._parts:
            image.paste(part, (_MARGIN_PX, y))
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        return file.getvalue()


def _headline(canvas: _Canvas, timeline: Timeline, span: Span | None) -> None:
    name = timeline.recording["endpoint"]
    if span is None:
        canvas.line(f"{name} answered no request while this was recorded.", size=17)
        return
    stages = sorted(sketch.stages_of(span), key=lambda stage: -stage[1])
    first, total_ms = stages[0], span["total_ms"] or 1e-9
    words = f"The median request to {name} took {duration(total_ms)}: {first[1] / total_ms:.0%} {_label(first[0])}"
    if stages[1][1] / total_ms >= 0.05:
        words += f", then {stages[1][1] / total_ms:.0%} {_label(stages[1][0])}"
    canvas.line(f"{words}.", size=17)
    canvas.line(f"{len(timeline.spans):,} requests in {len(timeline.batches):,} batches were recorded.", MUTED)
    canvas.y += 4


def _stage_bar(canvas: _Canvas, span: Span) -> None:
    part, pen = canvas.strip(24)
    scale = part.width / (sum(ms for _, ms in sketch.stages_of(span)) or 1e-9)
    x = 0.0
    for kind, (_, ms) in zip(look.stages(), sketch.stages_of(span), strict=True):
        right = x + ms * scale
        if right - x >= 1:
            pen.rectangle((round(x), 0, max(round(x), round(right) - 2), part.height), kind.colour)
            label = f"{kind.label} {ms * scale / part.width:.0%}"
            if pen.textlength(label, font(13)) < right - x - 10:
                pen.text((round(x) + 6, 4), label, TEXT, font(13))
        x = right
    canvas.add(part, 8)


def _finding(canvas: _Canvas, number: int, finding: Finding) -> None:
    gain = f" (up to {finding.expected_gain:.1f} times faster)" if finding.expected_gain > 1.05 else ""
    title = finding.name.replace("-", " ").replace("_", " ").capitalize()
    for i, line in enumerate(_wrapped(f"{number}. {title}: {finding.figure}")):
        canvas.line(line, TEXT, indent=0 if i == 0 else 18)
    for line in _wrapped(f"Fix: {finding.fix}{gain}"):
        canvas.line(line, ACCENT if number == 1 else MUTED, indent=18)
    canvas.y += 3


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _LINE_LETTERS)


def _timeline(canvas: _Canvas, drawing: Sketch) -> None:
    canvas.y += 4
    canvas.add(_axis(canvas, drawing.window), 0)
    for row in drawing.rows:
        part, pen = canvas.strip(max(row.pixels.shape[0], _TITLE_PX))
        part.paste(Image.fromarray(row.pixels), (sketch.GUTTER_PX, 0))
        _title(pen, row.title, row.note)
        canvas.add(part, 5)
    canvas.y += 2
    for kinds in drawing.legend:
        canvas.add(_legend(canvas, kinds), 0)
    canvas.line(drawing.window.words, MUTED, 12)
    for note in drawing.notes:
        canvas.line(note, MUTED, 12)


def _title(pen: ImageDraw.ImageDraw, title: str, note: str) -> None:
    """Two lines where the row has room for them; what does not fit is cut off."""
    for y, text, colour in ((0, title, TEXT), (14, note, MUTED)):
        while text and pen.textlength(text, font(12)) > sketch.GUTTER_PX - 8:
            text = text[:-1]
        pen.text((0, y), text, colour, font(12))


def _axis(canvas: _Canvas, window: Window) -> Image.Image:
    part, pen = canvas.strip(20)
    width = part.width - sketch.GUTTER_PX
    step_ms = tick_step(window.length_ms / 8)
    pen.line((sketch.GUTTER_PX, 18, part.width, 18), LINE)
    first = np.ceil(window.start_ms / step_ms) * step_ms
    for time_ms in np.arange(first, window.start_ms + window.length_ms, step_ms):
        x = sketch.GUTTER_PX + round((time_ms - window.start_ms) / window.length_ms * width)
        pen.line((x, 12, x, 18), MUTED)
        label = f"{time_ms:g} ms" if abs(time_ms) > step_ms / 100 else "0 ms"
        if x + 4 + pen.textlength(label, font(12)) <= part.width:
            pen.text((x + 4, 0), label, MUTED, font(12))
    return part


def _legend(canvas: _Canvas, kinds: Sequence[look.Kind]) -> Image.Image:
    part, pen = canvas.strip(19)
    x = sketch.GUTTER_PX
    for kind in kinds:
        pen.rectangle((x, 4, x + 10, 14), kind.colour)
        pen.text((x + 15, 2), kind.label, MUTED, font(12))
        x += 32 + int(pen.textlength(kind.label, font(12)))
    return part


def _label(stage: str) -> str:
    return next(kind.label for kind in look.stages() if kind.name == stage)
