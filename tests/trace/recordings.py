"""Recordings for tests: real ones that torch makes in this process, and the frame that any needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.autograd.profiler import profile, record_function

from nbserve.recording import Recording, Span, WorkerRecording


def recorded(folder: Path, work: Callable[[int], object], *, batches: int = 3, **options: Any) -> tuple[Recording, Any]:
    """Calls `work(batch id)` in batches under torch's profiler, as a worker does; gives torch's profile too."""
    work(0)
    spans: list[Span] = []
    started_ns = time.monotonic_ns()
    with profile(use_kineto=True, record_shapes=True, **options) as torch_profile:
        for batch_id in range(1, batches + 1):
            taken_ns = time.monotonic_ns()
            with record_function(f"nbserve.batch {batch_id}"):
                work(batch_id)
            spans.append(span(batch_id, taken_ns, time.monotonic_ns()))
    path = folder / "w0.trace.json"
    torch_profile.export_chrome_trace(str(path))
    offset_ns = sorted(time.time_ns() - time.monotonic_ns() for _ in range(9))[4]
    worker = worker_recording(path, batches=range(1, batches + 1), epoch_offset_ns=offset_ns)
    return recording([worker], spans, started_ns, time.monotonic_ns()), torch_profile


def span(batch_id: int, taken_ns: int, encoded_ns: int, *, worker: int = 0, rows: int = 1, row: int = 0) -> Span:
    """A request that came 300 us before its batch was taken, and left 100 us after."""
    duration_ms = (encoded_ns - taken_ns) / 1e6
    return {
        "request_id": f"{worker:x}{batch_id:x}{row:02x}",
        "batch_id": batch_id,
        "rows": rows,
        "worker": worker,
        "received_ns": taken_ns - 300_000,
        "receive_ms": 0.05,
        "queue_ms": 0.1,
        "batch_wait_ms": 0.1,
        "ipc_ms": 0.05,
        "preprocess_ms": 0.2 * duration_ms,
        "inference_ms": 0.5 * duration_ms,
        "postprocess_ms": 0.2 * duration_ms,
        "encode_ms": 0.1 * duration_ms,
        "respond_ms": 0.1,
        "total_ms": duration_ms + 0.4,
    }


def worker_recording(
    trace: Path | None, *, index: int = 0, batches: Sequence[int] = (), epoch_offset_ns: int = 0
) -> WorkerRecording:
    return {
        "index": index,
        "pid": 40_000 + index,
        "device": "cpu",
        "threads": 1,
        "batches": list(batches),
        "started_ns": 0,
        "ended_ns": 0,
        "epoch_offset_ns": epoch_offset_ns,
        "trace": str(trace) if trace else None,
        "samples": None,
        "memory": None,
        "facts": {},
        "error": None,
    }


def recording(workers: list[WorkerRecording], spans: list[Span], started_ns: int = 0, ended_ns: int = 0) -> Recording:
    return {
        "endpoint": "net",
        "version": "1",
        "settings": {"max_batch_size": 8},
        "cores": 2,
        "started_ns": started_ns,
        "ended_ns": ended_ns,
        "spans": spans,
        "workers": workers,
    }
