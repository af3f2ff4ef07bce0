"""The timeline's canvas, seen and touched as a person would: pixels, places of events, the pointer."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Frame, Locator, Page

_SETTLE = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass
class Canvas:
    """`view` is the page or the frame that the viewer is in."""

    page: Page
    view: Page | Frame

    @property
    def element(self) -> Locator:
        return self.view.locator("canvas")

    def settle(self) -> None:
        """Until what was asked for is painted."""
        self.view.evaluate(_SETTLE)

    def pixels(self) -> NDArray[np.int64]:
        self.settle()
        image = Image.open(io.BytesIO(self.element.screenshot())).convert("RGB")
        return np.asarray(image).astype(np.int64)

    def shown(self) -> tuple[float, float]:
        """The visible range of time, in microseconds."""
        start, end = self.view.evaluate("[nbserveTrace.scene.camera.start, nbserveTrace.scene.camera.end]")
        return start, end

    def box(self, kind: str, number: int) -> dict[str, float]:
        """Where on the canvas an event or a request is."""
        found: dict[str, float] = self.view.evaluate(
            "([kind, number]) => nbserveTrace.timeline.boxOf({ kind, [kind]: number })", [kind, number]
        )
        return found

    def event(self, name: str, *, nth: int = 0) -> int:
        """The number of an event by its name."""
        number: int = self.view.evaluate(
            """([name, nth]) => {
                const { header, events } = nbserveTrace.scene.trace;
                const id = header.names.indexOf(name);
                let at = -1;
                for (let i = 0; i <= nth; i++) at = events.name.indexOf(id, at + 1);
                return at;
            }""",
            [name, nth],
        )
        assert number >= 0, f"no event {name}"
        return number

    def point(self, box: dict[str, float]) -> dict[str, Any]:
        """The middle of a box, as `position` of clicks and hovers."""
        return {"x": box["left"] + box["width"] / 2, "y": box["top"] + box["height"] / 2}

    def come_close(self, event: int) -> None:
        """Zoom until an event fills most of the width, however short it was."""
        self.view.evaluate("(event) => nbserveTrace.timeline.show(nbserveTrace.scene.rangeOf(event))", event)
        self.settle()

    def hover(self, kind: str, number: int) -> str:
        """Point at something; what the tooltip says."""
        self.element.hover(position=self.point(self.box(kind, number)))  # type: ignore[arg-type]
        tooltip = self.view.locator(".tooltip")
        tooltip.wait_for(state="visible")
        return tooltip.inner_text()

    def drag(self, from_x: float, to_x: float, y: float) -> None:
        """Press, move, let go; in the canvas's own pixels."""
        place = self.element.bounding_box()
        assert place
        self.page.mouse.move(place["x"] + from_x, place["y"] + y)
        self.page.mouse.down()
        self.page.mouse.move(place["x"] + to_x, place["y"] + y, steps=6)
        self.page.mouse.up()
        self.settle()

    def press(self, key: str) -> None:
        self.element.press(key)
        self.settle()
