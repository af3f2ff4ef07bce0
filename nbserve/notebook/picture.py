"""The panel as a PNG, for saved notebooks and readers that run no scripts. Pure; runs in the kernel."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nbserve.notebook import plot, status
from nbserve.notebook.live import Live, figure
from nbserve.notebook.plot import Box, Line
from nbserve.notebook.sheet import Pen, Sheet
from nbserve.trace import look
from nbserve.trace.pen import ACCENT, LINE, MUTED, TEXT, duration

_GOOD, _WAITS, _BAD, _OFF = "#2e9d5b", "#c98a00", "#d64545", "#9aa5b4"
_STATES = {"ready": _GOOD, "busy": _GOOD, "starting": _WAITS, "draining": _WAITS, "held": _WAITS, "stopped": _OFF}
_QUANTILES = (("p99", "#c9d1dc"), ("p95", "#8d9aae"), ("p50", ACCENT))
_COLUMN_PX, _BETWEEN_PX = 216, 20
_MOST_WORKERS = 8
# Samples come a little early or late.
_SLACK_S = 0.25
# Columns of the workers: title, where it begins, and how wide it may be.
_WORKERS = (
    ("worker", 0, 56),
    ("state", 56, 84),
    ("PID", 144, 56),
    ("device", 204, 58),
    ("threads", 266, 46),
    ("CPU", 316, 44),
    ("memory", 364, 56),
    ("batches", 424, 58),
    ("last error", 486, 202),
)
# Before the first sample.
NOTHING: Mapping[str, Any] = {"throughput": 0.0, "errors": 0, "queued": 0}


class History(NamedTuple):
    """All samples together: how often batches had which size, and the mean milliseconds of each stage."""

    requests: int
    batch_sizes: Sequence[tuple[int, int]]
    stages_ms: Mapping[str, float]

    @property
    def mean_batch_size(self) -> float:
        batches = sum(count for _, count in self.batch_sizes)
        return sum(size * count for size, count in self.batch_sizes) / batches if batches else 0.0


def history(samples: Sequence[Mapping[str, Any]], since_s: float) -> History:
    """Samples of which none overlaps another."""
    sizes: Counter[int] = Counter()
    sums: Counter[str] = Counter()
    requests = 0
    until_s = since_s
    for sample in samples:
        if sample["time_s"] - sample["window_s"] < until_s - _SLACK_S:
            continue
        until_s = sample["time_s"]
        requests += sample["requests"]
        sizes.update(dict(sample["batch_sizes"]))
        sums.update({stage: ms * sample["requests"] for stage, ms in sample["stages_ms"].items()})
    means = {stage: total / requests for stage, total in sums.items()} if requests else {}
    return History(requests, sorted(sizes.items()), means)


def png(live: Live, now_s: float) -> bytes:
    """How the endpoint does, and did in the last two minutes."""
    sheet = Sheet()
    told = history(live.samples, now_s - plot.SPAN_S)
    _head(sheet, live, now_s)
    _charts(sheet, live, told, now_s)
    _stages(sheet, told)
    _workers(sheet, [] if live.is_gone else live.endpoint["workers"])
    return sheet.png()


def _head(sheet: Sheet, live: Live, now_s: float) -> None:
    endpoint = live.endpoint
    state = "stopped" if live.is_gone else str(endpoint["state"]).lower()
    pen = sheet.strip(48)
    pen.dot(5, 10, 4.5, _STATES.get(state, _BAD))
    x = pen.text(16, 16, endpoint["name"], size=17, bold=True)
    pen.text(x + 10, 16, f"{state}, version {endpoint['version']}", MUTED, 12)
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_s))
    pen.text(pen.width, 16, date, MUTED, 11, anchor="rs")
    answers = status.answers(endpoint["requests"])
    words = [status.settings(endpoint["settings"]).replace("defaults", "default settings"), f"answers {answers}"]
    pen.text(16, 36, pen.fitting("   ·   ".join(words), 12, pen.width - 16), MUTED, 12)


def _charts(sheet: Sheet, live: Live, told: History, now_s: float) -> None:
    pen = sheet.strip(158)
    lefts = [column * (_COLUMN_PX + _BETWEEN_PX) for column in range(3)]
    throughput, latency, batches = (Box(left, 48, left + _COLUMN_PX, 146) for left in lefts)
    recent = [sample for sample in live.samples if sample["time_s"] >= now_s - plot.SPAN_S]
    _throughput(pen, throughput, recent, now_s)
    _latency(pen, latency, recent, now_s)
    _numbers(pen, batches, "Batch size", [Number(told.mean_batch_size if told.batch_sizes else None, "in the mean")])
    plot.histogram(pen, batches, told.batch_sizes, live.endpoint["settings"]["max_batch_size"])


def _throughput(pen: Pen, box: Box, samples: Sequence[Any], now_s: float) -> None:
    newest = samples[-1] if samples else NOTHING
    numbers = [Number(newest["throughput"], "/s")]
    if not newest["throughput"] and (most := max((sample["throughput"] for sample in samples), default=0)):
        numbers.append(Number(most, "/s at most"))
    if newest["queued"]:
        numbers.append(Number(newest["queued"], "waiting"))
    if newest["errors"]:
        numbers.append(Number(newest["errors"] / newest["window_s"], "errors/s", _BAD))
    _numbers(pen, box, "Throughput", numbers)
    answers = [(sample["time_s"], sample["throughput"]) for sample in samples]
    errors = [(sample["time_s"], sample["errors"] / sample["window_s"] or None) for sample in samples]
    plot.lines(pen, box, [Line(answers, ACCENT, is_filled=True), Line(errors, _BAD)], now_s, least=10)


def _latency(pen: Pen, box: Box, samples: Sequence[Any], now_s: float) -> None:
    # What was measured last: with nothing to answer there is nothing newer.
    last: Mapping[str, float] = next((sample["latency_ms"] for sample in reversed(samples) if sample["latency_ms"]), {})
    _numbers(
        pen, box, "Latency, ms", [Number(last.get(name), name, dot=colour) for name, colour in reversed(_QUANTILES)]
    )
    drawn = [
        Line([(sample["time_s"], (sample["latency_ms"] or {}).get(name)) for sample in samples], colour)
        for name, colour in _QUANTILES
    ]
    plot.lines(pen, box, drawn, now_s, least=1)


class Number(NamedTuple):
    """A large figure with a small word after it; None is none yet."""

    value: float | None
    word: str
    colour: str = TEXT
    dot: str = ""

    @property
    def text(self) -> str:
        return "-" if self.value is None else figure(self.value)


def _numbers(pen: Pen, box: Box, caption: str, numbers: Sequence[Number]) -> None:
    """In the line above a chart; large ones become smaller, so that all have their place."""
    pen.text(box.left, 12, caption, MUTED, 11)
    wanted = sum(_write(pen, 0, number, 1, is_drawn=False) for number in numbers)
    scale = min(1.0, box.width / wanted)
    x = box.left
    for number in numbers:
        x += _write(pen, x, number, scale)


def _write(pen: Pen, x: float, number: Number, scale: float, is_drawn: bool = True) -> float:
    """How wide a number is, with what keeps it apart from the next."""
    large, small, gap = 17 * scale, 11 * scale, 10 * scale
    start = gap if number.dot else 0
    word = start + pen.length(number.text, large) + 3
    if is_drawn:
        if number.dot:
            pen.dot(x + 3, 34 - large / 3, 3, number.dot)
        pen.text(x + start, 34, number.text, number.colour, large, bold=True)
        pen.text(x + word, 34, number.word, MUTED, small)
    return word + pen.length(number.word, small) + gap


def _stages(sheet: Sheet, told: History) -> None:
    total_ms = sum(told.stages_ms.values())
    pen = sheet.strip(64)
    pen.text(0, 12, "Where the time goes", MUTED, 11)
    if not total_ms:
        pen.text(0, 33, "nothing was answered in the last two minutes", size=12)
        return
    pen.text(pen.width, 12, f"{duration(total_ms)} for a request in the mean", MUTED, 11, anchor="rs")
    left = x = 0.0
    for kind in look.stages():
        share = told.stages_ms.get(kind.name, 0.0) / total_ms
        right = left + share * pen.width
        pen.box(left, 20, max(left, right - 1), 38, kind.colour)
        left = right
        if share >= 0.005:
            x = _legend(pen, x, kind, share)


def _legend(pen: Pen, x: float, kind: look.Kind, share: float) -> float:
    label = f"{kind.label} {share:.0%}"
    if x + 12 + pen.length(label, 11) > pen.width:
        return x
    pen.box(x, 47, x + 8, 55, kind.colour, 1)
    return pen.text(x + 12, 55, label, MUTED, 11) + 14


def _workers(sheet: Sheet, workers: Sequence[Mapping[str, Any]]) -> None:
    if not workers:
        return
    pen = sheet.strip(28)
    for title, x, _ in _WORKERS:
        pen.text(x, 20, title, MUTED, 11)
    pen.line([(0, 26), (pen.width, 26)], LINE, 0.75)
    for worker in workers[:_MOST_WORKERS]:
        _worker(sheet.strip(19), worker)
    if len(workers) > _MOST_WORKERS:
        sheet.strip(19).text(0, 14, f"and {len(workers) - _MOST_WORKERS} more", MUTED, 11)


def _worker(pen: Pen, worker: Mapping[str, Any]) -> None:
    state = str(worker["state"]).lower()
    values = (
        str(worker["index"]),
        state,
        str(worker["pid"] or ""),
        worker["device"],
        str(worker["threads"] or ""),
        f"{worker['cpu_percent']:.0f} %",
        _megabytes(worker["rss_bytes"]),
        f"{worker['batches']:,}",
        _error(worker),
    )
    pen.dot(60, 10, 3.5, _STATES.get(state, _BAD))
    for (title, x, width), value in zip(_WORKERS, values, strict=True):
        indent = 10 if title == "state" else 0
        colour = _BAD if title == "last error" else TEXT
        pen.text(x + indent, 14, pen.fitting(value, 12, width - indent - 6), colour, 12)


def _error(worker: Mapping[str, Any]) -> str:
    text = (worker.get("last_error") or "").strip()
    return text.splitlines()[-1] if text else ""


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
