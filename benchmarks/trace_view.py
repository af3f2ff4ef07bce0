"""How long the trace viewer takes to show a recording: `python -m benchmarks.trace_view`. Needs chromium.

Made-up recordings like those of a real worker: batches with nested operators, launches, and kernels on two streams.
Times are the browser's own, from opening the page to the first frame, then of redraws while zooming in and moving.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from nbserve.recording import Recording, Span
from nbserve.trace import page
from nbserve.trace.model import CATEGORIES, Batch, Events, Timeline, Track
from nbserve.trace.pack import pack

COUNTS = (100_000, 1_000_000)
EVENTS_OF_A_BATCH = 400
BATCH_NS = 4_000_000
NAMES = ("nbserve.batch 1", "aten::linear", "aten::addmm", "cudaLaunchKernel", "sgemm_128x128", "elementwise_kernel")
_OPENED = "performance.now()"
_REDRAWS = """async () => {
  const { timeline, scene } = nbserveTrace;
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  for (let i = 0; i < 60; i++) {
    const middle = (scene.camera.start + scene.camera.end) / 2;
    if (i < 40) scene.camera.zoom(middle, 0.8);
    else scene.camera.pan(scene.camera.span / 10);
    const begun = performance.now();
    timeline.paint();
    times.push(performance.now() - begun);
    await frame();
  }
  return times;
}"""


def main() -> None:
    """Print one line for each size."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise SystemExit("the benchmark needs chromium")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        for count in COUNTS:
            file = Path(folder) / f"{count}.html"
            block = pack(recording(count))
            file.write_text(page.document(block), encoding="utf-8")
            view = browser.new_page(viewport={"width": 1200, "height": 900})
            shown_ms, redraws = measured(view, file)
            size = f"{file.stat().st_size / 2**20:.1f} MiB"
            redraw = f"redraw median {statistics.median(redraws):.1f} ms, longest {max(redraws):.1f} ms"
            print(f"{count:>9,} events: {size:>9}, shown in {shown_ms / 1e3:.2f} s, {redraw}")
            view.close()
        browser.close()


def measured(view: Page, file: Path) -> tuple[float, list[float]]:
    """Milliseconds until the first frame, and of each redraw."""
    view.goto(file.as_uri(), wait_until="commit")
    view.wait_for_selector("main[aria-busy=false]", timeout=60_000)
    shown = view.evaluate(f"new Promise((done) => requestAnimationFrame(() => setTimeout(() => done({_OPENED}))))")
    return shown, view.evaluate(_REDRAWS)


def recording(count: int) -> Timeline:
    """`count` events in batches of EVENTS_OF_A_BATCH: half of them on the CPU, nested, and half on two streams."""
    batches = count // EVENTS_OF_A_BATCH
    events = _events(batches)
    spans = [_span(batch) for batch in range(batches)]
    found: Recording = {
        "endpoint": "made-up",
        "version": "1",
        "settings": {},
        "cores": 2,
        "started_ns": 0,
        "ended_ns": batches * BATCH_NS,
        "spans": spans,
        "workers": [],
    }
    tracks = [
        Track("cpu", 0, 1000, 1, "main thread"),
        Track("gpu", 0, 1000, 7, "stream 7"),
        Track("gpu", 0, 1000, 20, "stream 20"),
    ]
    return Timeline(found, spans, [_batch(batch) for batch in range(batches)], tracks, events)


def _events(batches: int) -> Events:
    """Of each batch 1 annotation, 66 operators with a child that launches, and 100 kernels on each stream."""
    one = EVENTS_OF_A_BATCH
    place = np.tile(np.arange(one), batches)
    batch = np.repeat(np.arange(batches), one)
    on_cpu = place < one // 2
    step = np.where(on_cpu, (place - 1) // 3, (place - one // 2) // 2)
    level = np.where(on_cpu & (place > 0), 1 + (place - 1) % 3, 0)
    start = batch * BATCH_NS + np.where(on_cpu, step * 55_000 + level * 4_000, 9_000 + step * 37_000)
    duration = np.where(on_cpu, np.array([3_800_000, 50_000, 38_000, 6_000])[level], 3_000 + 9_000 * (step % 4))
    track = np.where(on_cpu, 0, 1 + place % 2)
    # Times that repeat would compress better than real ones.
    noise = np.random.default_rng(1)
    start = start + noise.integers(0, 500, len(start))
    duration = duration + noise.integers(0, 900, len(start))
    order = np.lexsort((level, start, track))
    kinds = np.array([CATEGORIES.index(name) for name in ("annotation", "op", "op", "runtime")])
    columns = {
        "name": np.where(on_cpu, level, 4 + place % 2).astype(np.int32),
        "detail": np.zeros(len(place), np.int32),
        "track": track.astype(np.int16),
        "start_ns": start.astype(np.int64),
        "duration_ns": duration.astype(np.int64),
        "self_ns": (duration // 2).astype(np.int64),
        "depth": level.astype(np.int16),
        "parent": np.full(len(place), -1, np.int32),
        "batch": batch.astype(np.int32),
        "correlation": np.zeros(len(place), np.int64),
        "category": np.where(on_cpu, kinds[level], CATEGORIES.index("kernel")).astype(np.int8),
    }
    ordered = {name: column[order] for name, column in columns.items()}
    return Events(names=NAMES, details=["float32[8,64], float32[64,64]"], **ordered)


def _span(batch: int) -> Span:
    return {
        "request_id": f"{batch:x}",
        "batch_id": batch,
        "rows": 1,
        "worker": 0,
        "received_ns": batch * BATCH_NS,
        "receive_ms": 0.0,
        "queue_ms": 0.1,
        "batch_wait_ms": 0.0,
        "ipc_ms": 0.0,
        "preprocess_ms": 0.1,
        "inference_ms": 3.6,
        "postprocess_ms": 0.0,
        "encode_ms": 0.0,
        "respond_ms": 0.1,
        "total_ms": 3.9,
    }


def _batch(batch: int) -> Batch:
    start = batch * BATCH_NS
    marks = (start + 100_000, start + 200_000, start + 3_800_000, start + 3_800_000, start + 3_800_000)
    return Batch(batch, 0, (batch,), *marks, is_recorded=True)


if __name__ == "__main__":
    main()
