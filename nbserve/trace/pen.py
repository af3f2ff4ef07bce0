"""What still pictures share: the font, colours on white, and numbers in words. Pure; kernel or terminal."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import ImageFont

TEXT = "#1c2330"
MUTED = "#5f6b7c"
ACCENT = "#1d5fd1"
LINE = "#d9dee6"


@cache
def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow brings along: there need not be any on this machine."""
    return ImageFont.load_default(size)


def duration(ms: float) -> str:
    """Three figures and a unit: "12.3 ms"."""
    for size, unit in ((1e3, "s"), (1.0, "ms")):
        if ms >= size:
            return f"{_figures(ms / size)} {unit}"
    return f"{_figures(ms * 1e3)} µs"


def _figures(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tick_step(minimum: float) -> float:
    """The distance of ticks, at least `minimum`: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(minimum))
    return next(float(factor * power) for factor in (1, 2, 5, 10) if factor * power >= minimum * (1 - 1e-9))
