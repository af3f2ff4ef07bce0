"""A sheet for a still picture: strips from above to below, drawn larger than shown, so that all is smooth. Kernel."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from nbserve.trace.pen import TEXT, font

WIDTH_PX = 720
MARGIN_PX = 16
# Two pixels of the picture to one of the page, as dense screens have them.
DENSITY = 2
# Pillow's lines have hard edges: drawn in double size they become soft.
_SMOOTH = 2
_SCALE = DENSITY * _SMOOTH

Point = tuple[float, float]


class Sheet:
    """Ask it for strips; what is drawn on them is in pixels of the page."""

    def __init__(self) -> None:
        self._strips: list[Image.Image] = []

    def strip(self, height: float) -> Pen:
        size = ((WIDTH_PX - 2 * MARGIN_PX) * _SCALE, round(height * _SCALE))
        self._strips.append(Image.new("RGB", size, "white"))
        return Pen(self._strips[-1])

    def png(self) -> bytes:
        height = sum(strip.height for strip in self._strips) + 2 * MARGIN_PX * _SCALE
        image = Image.new("RGB", (WIDTH_PX * _SCALE, height), "white")
        y = MARGIN_PX * _SCALE
        for strip in self._strips:
            image.paste(strip, (MARGIN_PX * _SCALE, y))
            y += strip.height
        file = io.BytesIO()
        # Few colours: a third of the size, drawn in a third of the time, and it looks the same.
        few = image.reduce(_SMOOTH).quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(file, "PNG")
        return file.getvalue()


class Pen:
    """Draws on one strip."""

    def __init__(self, image: Image.Image) -> None:
        self._draw = ImageDraw.Draw(image)
        self.width = image.width / _SCALE
        self.height = image.height / _SCALE

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = TEXT,
        size: float = 12,
        anchor: str = "ls",
        bold: bool = False,
    ) -> float:
        """Write from the baseline `y` on; gives where the text ends."""
        place = (x * _SCALE, y * _SCALE)
        # The font has one weight: a thin outline makes it bold.
        outline = 1.2 * bold * size / 14
        self._draw.text(place, text, colour, font(size * _SCALE), anchor=anchor, stroke_width=outline)
        return x + self.length(text, size)

    def length(self, text: str, size: float = 12) -> float:
        return float(self._draw.textlength(text, font(size * _SCALE))) / _SCALE

    def fitting(self, text: str, size: float, width: float) -> str:
        """The text, cut off where the room ends."""
        if self.length(text, size) <= width:
            return text
        while text and self.length(f"{text}…", size) > width:
            text = text[:-1]
        return f"{text.rstrip()}…"

    def box(self, left: float, top: float, right: float, bottom: float, colour: str, radius: float = 0) -> None:
        corners = (left * _SCALE, top * _SCALE, right * _SCALE - 1, bottom * _SCALE - 1)
        if corners[2] >= corners[0] and corners[3] >= corners[1]:
            self._draw.rounded_rectangle(corners, radius * _SCALE, colour)

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        corners = (x - radius, y - radius, x + radius, y + radius)
        self._draw.ellipse([corner * _SCALE for corner in corners], colour)

    def line(self, points: Sequence[Point], colour: str, width: float = 1) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, colour, round(width * _SCALE), joint="curve")

    def area(self, points: Sequence[Point], colour: str) -> None:
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], colour)
