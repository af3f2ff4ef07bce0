"""The rows of a timeline as pixels: what the viewer shows, for a still picture. Pure; kernel or terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbserve.recording import Span
from nbserve.trace import look
from nbserve.trace.model import Events, Timeline, Track

GUTTER_PX = 130
_LANES = 16
_LANE_PX = 8
_DEPTHS = 6
_DEPTH_PX = 11
_MAX_TRACKS = 12
# A recording longer than this many median requests is shown in part: in the whole of it nothing would be seen.
_MANY_REQUESTS = 12
_SHOWN_REQUESTS = 6

Pixels = NDArray[np.uint8]
_BAND = np.array((243, 245, 248), np.uint8)


@dataclass(frozen=True)
class Window:
    """What part of a recording is shown; `start_ms` counts from the recording's start."""

    start_ns: int
    end_ns: int
    start_ms: float
    words: str

    @property
    def length_ms(self) -> float:
        return (self.end_ns - self.start_ns) / 1e6


@dataclass(frozen=True)
class Row:
    """One title and its pixels (height, width, 3)."""

    title: str
    note: str
    pixels: Pixels


@dataclass(frozen=True)
class Sketch:
    """All rows from above to below, and what their colours mean."""

    window: Window
    rows: Sequence[Row]
    legend: Sequence[Sequence[look.Kind]]
    notes: Sequence[str]


def median_span(spans: Sequence[Span]) -> Span | None:
    """The request in the middle of all, by how long it took."""
    return sorted(spans, key=lambda span: span["total_ms"])[len(spans) // 2] if spans else None


def stages_of(span: Span) -> list[tuple[str, float]]:
    """Each stage's name and milliseconds, in their order."""
    return [(stage.name, span[f"{stage.name}_ms"]) for stage in look.stages()]  # type: ignore[literal-required]


def window(timeline: Timeline, span: Span | None) -> Window:
    """From the first thing in a recording to the last, or of a long one what is around `span`."""
    zero_ns, _ = timeline.extent_ns()
    start_ns, end_ns = _extent(timeline)
    length_ms = (end_ns - start_ns) / 1e6
    if span is None or length_ms <= span["total_ms"] * _MANY_REQUESTS:
        return Window(start_ns, end_ns, (start_ns - zero_ns) / 1e6, f"shown: all {length_ms:,.4g} ms")
    length_ns = int(span["total_ms"] * _SHOWN_REQUESTS * 1e6)
    middle_ns = span["received_ns"] + int(span["total_ms"] / 2 * 1e6)
    begin_ns = min(max(start_ns, middle_ns - length_ns // 2), end_ns - length_ns)
    words = f"shown: {length_ns / 1e6:,.4g} of {length_ms:,.4g} ms, around the median request"
    return Window(begin_ns, begin_ns + length_ns, (begin_ns - zero_ns) / 1e6, words)


def _extent(timeline: Timeline) -> tuple[int, int]:
    """When the first request or event begins and the last ends; the recording's own times when there is none."""
    spans, events = timeline.spans, timeline.events
    starts = [span["received_ns"] for span in spans]
    ends = [_end_ns(span) for span in spans]
    if len(events):
        starts.append(int(events.start_ns.min()))
        ends.append(int((events.start_ns + events.duration_ns).max()))
    start_ns, end_ns = (min(starts), max(ends)) if starts else timeline.extent_ns()
    return start_ns, max(end_ns, start_ns + 1)


def draw(timeline: Timeline, shown: Window, width_px: int) -> Sketch:
    """Requests above, then each worker's threads and streams."""
    width = width_px - GUTTER_PX
    notes: list[str] = []
    rows = [*_requests(timeline.spans, shown, width, notes), *_tracks(timeline, shown, width, notes)]
    used = set(np.unique(look.families_of(timeline.events)).tolist())
    families = [family for i, family in enumerate(look.families()) if i in used]
    seen = {name for span in timeline.spans for name, ms in stages_of(span) if ms > 0}
    stages = [stage for stage in look.stages() if stage.name in seen]
    return Sketch(shown, rows, [kinds for kinds in (stages, families) if kinds], notes)


def _requests(spans: Sequence[Span], shown: Window, width: int, notes: list[str]) -> Iterator[Row]:
    visible = [span for span in spans if _end_ns(span) > shown.start_ns and span["received_ns"] < shown.end_ns]
    if not visible:
        return
    lanes = _lanes(visible)
    if len(lanes) > _LANES:
        notes.append(f"{_LANES} of {len(lanes)} rows of requests are shown")
    pixels = _empty(min(len(lanes), _LANES) * _LANE_PX, width)
    for lane, own in enumerate(lanes[:_LANES]):
        for span in own:
            _request(pixels[lane * _LANE_PX : (lane + 1) * _LANE_PX - 1], span, shown)
    yield Row("requests", f"{len(visible):,}", pixels)


def _lanes(spans: Sequence[Span]) -> list[list[Span]]:
    """Each request in the first row that is free."""
    lanes: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: span["received_ns"]):
        for lane in lanes:
            if _end_ns(lane[-1]) <= span["received_ns"]:
                lane.append(span)
                break
        else:
            lanes.append([span])
    return lanes


def _request(pixels: Pixels, span: Span, shown: Window) -> None:
    scale = pixels.shape[1] / (shown.end_ns - shown.start_ns)
    time = (span["received_ns"] - shown.start_ns) * scale
    for stage, (_, ms) in zip(look.stages(), stages_of(span), strict=True):
        left, time = time, time + ms * 1e6 * scale
        pixels[:, max(0, round(left)) : max(0, round(time))] = rgb(stage.colour)


def _tracks(timeline: Timeline, shown: Window, width: int, notes: list[str]) -> Iterator[Row]:
    events = timeline.events
    families = look.families_of(events)
    visible = (events.start_ns < shown.end_ns) & (events.start_ns + events.duration_ns > shown.start_ns)
    tracks = [track for track in _in_order(timeline.tracks) if (visible & (events.track == track)).any()]
    if len(tracks) > _MAX_TRACKS:
        notes.append(f"{_MAX_TRACKS} of {len(tracks)} threads and streams are shown")
    for number in tracks[:_MAX_TRACKS]:
        own = np.flatnonzero(visible & (events.track == number) & (events.depth < _DEPTHS))
        track = timeline.tracks[number]
        yield Row(_title(track), f"worker {track.worker}", _track(events, own, families, shown, width))


def _in_order(tracks: Sequence[Track]) -> list[int]:
    return sorted(range(len(tracks)), key=lambda i: (tracks[i].worker, tracks[i].kind, i))


def _title(track: Track) -> str:
    return track.name.strip() or f"{'stream' if track.kind == 'gpu' else 'thread'} {track.number}"


def _track(events: Events, own: NDArray[np.int64], families: NDArray[np.int64], shown: Window, width: int) -> Pixels:
    depths = int(events.depth[own].max(initial=0)) + 1
    pixels = _empty(max(2, depths) * _DEPTH_PX, width)
    for depth in range(depths):
        row = own[events.depth[own] == depth]
        band = pixels[depth * _DEPTH_PX : (depth + 1) * _DEPTH_PX - 1]
        scale = width / (shown.end_ns - shown.start_ns)
        left = (events.start_ns[row] - shown.start_ns) * scale
        bars(band, left, left + events.duration_ns[row] * scale, families[row])
    return pixels


def bars(pixels: Pixels, left: NDArray[np.float64], right: NDArray[np.float64], families: NDArray[np.int64]) -> None:
    """One row of bars. Thinner ones than two pixels are merged by column: as full as it was busy, and hatched."""
    colours = np.array([rgb(family.colour) for family in look.families()])
    is_wide = right - left >= 2
    _thin(pixels, left[~is_wide], right[~is_wide], colours[families[~is_wide]])
    for begin, end, colour in zip(left[is_wide], right[is_wide], colours[families[is_wide]], strict=True):
        pixels[:, max(0, round(begin)) : max(0, round(end) - 1)] = colour


def _thin(pixels: Pixels, left: NDArray[np.float64], right: NDArray[np.float64], colours: Pixels) -> None:
    height, width = pixels.shape[:2]
    column = np.clip(np.floor(left), 0, width - 1).astype(np.int64)
    busy = np.bincount(column, right - left, width)
    count = np.bincount(column, minlength=width)
    colour = np.zeros((width, 3), np.uint8)
    colour[column] = colours
    for x in np.flatnonzero(count):
        filled = height if count[x] == 1 else max(1, round(min(1.0, float(busy[x])) * height))
        is_gap = count[x] > 1 and x % 3 == 0
        pixels[: height - filled, x] = _mixed(colour[x], 0.12 if is_gap else 0.28)
        pixels[height - filled :, x] = _mixed(colour[x], 0.5 if is_gap else 1.0)


def _mixed(colour: Pixels, part: float) -> Pixels:
    mixed: Pixels = (colour * part + _BAND * (1 - part)).astype(np.uint8)
    return mixed


def _empty(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), _BAND, np.uint8)


def _end_ns(span: Span) -> int:
    return span["received_ns"] + round(span["total_ms"] * 1e6)


def rgb(colour: str) -> tuple[int, int, int]:
    """ "#a0b1c2" as numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
