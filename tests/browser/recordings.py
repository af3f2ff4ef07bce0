"""A recording of a real model on this machine's CPU, made without a server: what a worker would have left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch

from nbserve.recording import Recording, Span

BATCHES = 8
ROWS = 4


class Spans:
    """Makes up the requests of each batch from when it really ran."""

    def __init__(self) -> None:
        self.all: list[Span] = []

    def add(self, batch_id: int, stamps: list[int]) -> None:
        """`stamps` are the borders of preprocess, inference, postprocess and encode, in ns."""
        preprocess, inference, postprocess, encode = ((b - a) / 1e6 for a, b in pairwise(stamps))
        for row in range(ROWS):
            waits = {"receive_ms": 0.05, "queue_ms": 0.8 + row * 0.5, "batch_wait_ms": 1.5 - row * 0.4, "ipc_ms": 0.2}
            received_ns = stamps[0] - round(sum(waits.values()) * 1e6)
            self.all.append(
                {
                    "request_id": f"{batch_id:04x}-{row}",
                    "batch_id": batch_id,
                    "rows": ROWS,
                    "worker": 0,
                    "received_ns": received_ns,
                    **waits,
                    "preprocess_ms": preprocess,
                    "inference_ms": inference,
                    "postprocess_ms": postprocess,
                    "encode_ms": encode,
                    "respond_ms": 0.1,
                    "total_ms": (stamps[-1] - received_ns) / 1e6 + 0.1,
                }
            )


def cpu_recording(folder: Path) -> Recording:
    """A small transformer, batches of four rows, with Python stacks and memory."""
    layer = torch.nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    spans = Spans()
    epoch_offset_ns = time.time_ns() - time.monotonic_ns()
    started_ns = time.monotonic_ns()
    with torch.autograd.profiler.profile(use_kineto=True, record_shapes=True, profile_memory=True) as profiler:
        for batch_id in range(1, BATCHES + 1):
            spans.add(batch_id, _batch(batch_id, model))
    ended_ns = time.monotonic_ns()
    trace = folder / "w0.trace.json"
    profiler.export_chrome_trace(str(trace))
    samples = folder / "w0.samples.json"
    samples.write_text(json.dumps(_samples()))
    return {
        "endpoint": "encoder",
        "version": "1",
        "settings": {"max_batch_size": ROWS, "workers": 1},
        "cores": os.cpu_count() or 1,
        "started_ns": started_ns,
        "ended_ns": ended_ns,
        "spans": sorted(spans.all, key=lambda span: span["received_ns"]),
        "workers": [
            {
                "index": 0,
                "pid": os.getpid(),
                "device": "cpu",
                "threads": torch.get_num_threads(),
                "batches": list(range(1, BATCHES + 1)),
                "started_ns": started_ns,
                "ended_ns": ended_ns,
                "epoch_offset_ns": epoch_offset_ns,
                "trace": str(trace),
                "samples": str(samples),
                "memory": None,
                "facts": {"torch": torch.__version__, "num_threads": torch.get_num_threads(), "modules": []},
                "error": None,
            }
        ],
    }


def _batch(batch_id: int, model: Callable[[torch.Tensor], torch.Tensor]) -> list[int]:
    with torch.autograd.profiler.record_function(f"nbserve.batch {batch_id}"):
        stamps = [time.monotonic_ns()]
        rows = torch.stack([torch.randn(24, 128) for _ in range(ROWS)])
        stamps.append(time.monotonic_ns())
        with torch.inference_mode():
            answer = model(rows)
        stamps.append(time.monotonic_ns())
        numbers = answer.mean(dim=1).tolist()
        stamps.append(time.monotonic_ns())
        json.dumps(numbers)
        stamps.append(time.monotonic_ns())
    return stamps


def _samples() -> dict[str, object]:
    handler, encoder = ["inference", "cell 3", 14], ["forward", "torch/nn/modules/transformer.py", 510]
    stacks = [
        {"frames": [handler, encoder, ["linear", "torch/nn/functional.py", 120]], "ms": 40.0},
        {"frames": [handler, encoder, ["layer_norm", "torch/nn/functional.py", 290]], "ms": 15.0},
        {"frames": [handler, ["tokenize", "cell 3", 8]], "ms": 25.0},
        {"frames": [["postprocess", "cell 3", 20]], "ms": 10.0},
    ]
    return {"interval_ms": 5, "total_ms": 90.0, "stacks": stacks}
