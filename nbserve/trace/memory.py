"""What a worker's memory was used for, from its trace and its memory file. Pure; kernel or terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbserve.trace.model import MemoryRow, MemoryUse
from nbserve.trace.parse import RawTrace


def uses(worker: int, recorded: Mapping[str, Any], trace: RawTrace | None, epoch_offset_ns: int) -> list[MemoryUse]:
    """By device what torch had allocated over time, the places of Python's memory with the first of them."""
    curves = {
        device: (time_ns - epoch_offset_ns, allocated)
        for device, (time_ns, allocated) in (trace.memory.items() if trace else ())
    }
    if not curves and recorded:
        points = np.array(recorded.get("torch") or [], np.int64).reshape(-1, 2)
        curves[str(recorded.get("device", "cpu"))] = (points[:, 0], points[:, 1])
    rows = _rows(recorded)
    return [
        MemoryUse(worker, time_ns, allocated, device, rows if number == 0 else ())
        for number, (device, (time_ns, allocated)) in enumerate(curves.items())
    ]


def _rows(recorded: Mapping[str, Any]) -> tuple[MemoryRow, ...]:
    rows = [
        MemoryRow(str(row["place"]), int(row["bytes"]), int(row["peak_bytes"]), int(row["count"]))
        for row in recorded.get("python") or []
    ]
    return tuple(sorted(rows, key=lambda row: -row.peak_bytes))
