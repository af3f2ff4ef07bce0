"""Recordings as workers on GPUs would leave them: Kineto's events with the same fields, made up so that all is known.

`thin_stripes` is bound by its launches: many tiny kernels, between which the GPU waits for the host. `thick_bars` is
bound by the GPU: few large matrix products, launched far ahead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nbserve.recording import Recording, Span, WorkerRecording

MONOTONIC_NS = 5_000_000_000_000
BASE_NS = 1_790_857_026_000_000_000
EPOCH_OFFSET_NS = 1_795_400_000_123_456_789
STREAM = 7
COPY_STREAM = 20
ELEMENTWISE = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::{}_kernel_cuda(at::TensorIteratorBase&)::"
    "{{lambda()#1}}::operator()() const::{{lambda(float)#1}}, std::array<char*, 2ul> >(int, {}, std::array<char*, 2ul>)"
)
MATMUL = "ampere_sgemm_128x128_tn"

# Who reads a profile sees the launches between 3 and 6 us long; a kernel starts some us after its launch.
_LAUNCH_US = 4.25
_START_LATENCY_US = 3.5
_CALL_US = 5.75


class GpuTrace:
    """Writes one worker's events; the host and each stream have clocks of their own, in us of MONOTONIC_NS."""

    def __init__(self, worker: int = 0, device: int = 0, start_us: float = 0.0) -> None:
        self.worker = worker
        self.device = device
        self.pid = 40_000 + worker
        self.now_us = start_us
        self.events: list[dict[str, Any]] = self._names()
        self.spans: list[Span] = []
        self._free_us: dict[int, float] = {}
        self._correlation = 4_000
        self._external = 0

    def op(self, name: str, kernel: str, kernel_us: float, shapes: list[list[int]], kind: str = "float") -> None:
        """One operator that launches one kernel."""
        start_us = self.now_us
        self.now_us += _CALL_US
        external = self._next_external()
        self._launch("cudaLaunchKernel", 211, external, STREAM, kernel_us, self._kernel(kernel, external))
        self.now_us += 1.5
        arguments = {
            "External id": external,
            "Record function id": 0,
            "Concrete Inputs": [""] * len(shapes),
            "Input type": [kind] * len(shapes),
            "Input Dims": shapes,
            "Ev Idx": external,
        }
        self._complete("cpu_op", name, start_us, self.now_us - start_us, arguments)

    def copy(self, direction: str, size: int, stream: int = STREAM) -> None:
        """`aten::copy_` with a transfer, "HtoD" or "DtoH"; the latter waits until all before it is done."""
        start_us = self.now_us
        self.now_us += 3.0
        external = self._next_external()
        places = "Pageable -> Device" if direction == "HtoD" else "Device -> Pageable"
        copy_us = 1.5 + size / 12_000
        event = {
            "cat": "gpu_memcpy",
            "name": f"Memcpy {direction} ({places})",
            "args": {"External id": external, "bytes": size, "memory bandwidth (GB/s)": size / copy_us / 1e3},
        }
        end_us = self._launch("cudaMemcpyAsync", 41, external, stream, copy_us, event)
        if direction == "DtoH":
            self._wait(end_us)
        self._complete("cpu_op", "aten::copy_", start_us, self.now_us - start_us + 1.0, {"External id": external})
        self.now_us += 1.0

    def host(self, duration_us: float) -> None:
        """Time in Python, outside of any operator."""
        self.now_us += duration_us

    def batch(self, batch_id: int, rows: int, work: Any, queue_us: float = 40.0) -> None:
        """Runs `work` as one batch: its annotation on the host and the GPU, and the spans of its requests."""
        taken_us = self.now_us
        self.now_us += 8.0
        start_us, first = self.now_us, len(self.events)
        work()
        name = f"nbserve.batch {batch_id}"
        arguments = {"External id": self._next_external(), "Ev Idx": 0}
        self._complete("user_annotation", name, start_us, self.now_us - start_us, arguments)
        self._annotate_gpu(name, self.events[first:], arguments)
        inferred_us = self.now_us
        self.now_us += 20.0
        for row in range(rows):
            self.spans.append(self._span(batch_id, row, rows, taken_us, inferred_us, queue_us))

    def recording(self, path: Path) -> WorkerRecording:
        """Writes the trace."""
        path.write_text(json.dumps(self.trace()))
        return {
            "index": self.worker,
            "pid": self.pid,
            "device": f"cuda:{self.device}",
            "threads": 1,
            "batches": sorted({span["batch_id"] for span in self.spans}),
            "started_ns": MONOTONIC_NS,
            "ended_ns": MONOTONIC_NS + int(self.now_us * 1000),
            "epoch_offset_ns": EPOCH_OFFSET_NS,
            "trace": str(path),
            "samples": None,
            "memory": None,
            "facts": {"torch": "2.13.0", "num_threads": 1, "has_bf16": True, "modules": [], "stages": True},
            "error": None,
        }

    def trace(self) -> dict[str, Any]:
        """What Kineto would have written."""
        return {
            "schemaVersion": 1,
            "deviceProperties": [
                {
                    "id": self.device,
                    "name": "NVIDIA H100 80GB HBM3",
                    "totalGlobalMem": 85_017_755_648,
                    "computeMajor": 9,
                    "computeMinor": 0,
                    "maxThreadsPerBlock": 1024,
                    "warpSize": 32,
                    "numSms": 132,
                }
            ],
            "cuda_runtime_version": 12_080,
            "record_shapes": 1,
            "displayTimeUnit": "ms",
            "baseTimeNanoseconds": BASE_NS,
            "traceEvents": self.events,
            "traceName": "w.trace.json",
        }

    def _names(self) -> list[dict[str, Any]]:
        places = [
            ("process_name", self.pid, 0, {"name": "python"}),
            ("process_labels", self.pid, 0, {"labels": "CPU"}),
            ("thread_name", self.pid, self.pid, {"name": f"thread {self.pid} (python)"}),
            ("process_name", self.device, 0, {"name": "python"}),
            ("process_labels", self.device, 0, {"labels": f"GPU {self.device}"}),
            ("thread_name", self.device, STREAM, {"name": f"stream {STREAM} "}),
            ("thread_name", self.device, COPY_STREAM, {"name": f"stream {COPY_STREAM} "}),
        ]
        return [
            {"ph": "M", "name": name, "ts": 0, "pid": pid, "tid": tid, "args": args} for name, pid, tid, args in places
        ]

    def _kernel(self, name: str, external: int) -> dict[str, Any]:
        arguments = {
            "External id": external,
            "queued": 0,
            "registers per thread": 64,
            "shared memory": 0,
            "blocks per SM": 0.5,
            "warps per SM": 2.0,
            "grid": [64, 1, 1],
            "block": [128, 1, 1],
            "est. achieved occupancy %": 3,
        }
        return {"cat": "kernel", "name": name, "args": arguments}

    def _launch(
        self, call: str, cbid: int, external: int, stream: int, duration_us: float, event: dict[str, Any]
    ) -> float:
        """A call of the CUDA runtime and what it starts on a stream; gives when that ends."""
        self._correlation += 1
        link = {"id": self._correlation, "cat": "ac2g", "name": "ac2g"}
        arguments = {"External id": external, "cbid": cbid, "correlation": self._correlation}
        self._complete("cuda_runtime", call, self.now_us, _LAUNCH_US, arguments)
        self.events.append({"ph": "s", **link, "pid": self.pid, "tid": self.pid, "ts": self._ts(self.now_us)})
        self.now_us += _LAUNCH_US
        begin_us = max(self.now_us + _START_LATENCY_US, self._free_us.get(stream, 0.0) + 0.75)
        self._free_us[stream] = begin_us + duration_us
        place = {"device": self.device, "context": 1, "stream": stream, "correlation": self._correlation}
        self.events.append(
            {
                "ph": "X",
                "cat": event["cat"],
                "name": event["name"],
                "pid": self.device,
                "tid": stream,
                "ts": self._ts(begin_us),
                "dur": round(duration_us, 3),
                "args": event["args"] | place,
            }
        )
        where = {"pid": self.device, "tid": stream, "ts": self._ts(begin_us)}
        self.events.append({"ph": "f", **link, **where, "bp": "e"})
        return begin_us + duration_us

    def _wait(self, until_us: float) -> None:
        start_us, self.now_us = self.now_us, max(self.now_us, until_us) + 2.0
        self._correlation += 1
        arguments = {"External id": self._external, "cbid": 131, "correlation": self._correlation}
        self._complete("cuda_runtime", "cudaStreamSynchronize", start_us, self.now_us - start_us, arguments)

    def _annotate_gpu(self, name: str, launched: list[dict[str, Any]], arguments: dict[str, Any]) -> None:
        """The annotation's twin on each stream, over what was launched within."""
        on_gpu = [event for event in launched if event["ph"] == "X" and event["pid"] == self.device]
        for stream in sorted({event["tid"] for event in on_gpu}):
            own = [event for event in on_gpu if event["tid"] == stream]
            start = min(event["ts"] for event in own)
            end = max(event["ts"] + event["dur"] for event in own)
            place = {"pid": self.device, "tid": stream, "ts": start, "dur": round(end - start, 3)}
            self.events.append({"ph": "X", "cat": "gpu_user_annotation", "name": name, **place, "args": arguments})

    def _complete(self, cat: str, name: str, start_us: float, duration_us: float, arguments: dict[str, Any]) -> None:
        place = {"pid": self.pid, "tid": self.pid, "ts": self._ts(start_us), "dur": round(duration_us, 3)}
        self.events.append({"ph": "X", "cat": cat, "name": name, **place, "args": arguments})

    def _ts(self, at_us: float) -> float:
        """As in the file: after the base time, in us with three digits."""
        return round((MONOTONIC_NS + EPOCH_OFFSET_NS - BASE_NS) / 1000 + at_us, 3)

    def _next_external(self) -> int:
        self._external += 1
        return self._external

    def _span(self, batch_id: int, row: int, rows: int, taken_us: float, inferred_us: float, queue_us: float) -> Span:
        received_us = taken_us - queue_us - 30.0 - row
        return {
            "request_id": f"{self.worker:x}-{batch_id:x}{row:02x}",
            "batch_id": batch_id,
            "rows": rows,
            "worker": self.worker,
            "received_ns": MONOTONIC_NS + round(received_us * 1000),
            "receive_ms": 0.01,
            "queue_ms": (queue_us + row) / 1000,
            "batch_wait_ms": 0.0,
            "ipc_ms": 0.02,
            "preprocess_ms": 0.005,
            "inference_ms": (inferred_us - taken_us) / 1000 - 0.005,
            "postprocess_ms": 0.002,
            "encode_ms": 0.01,
            "respond_ms": 0.05,
            "total_ms": (inferred_us - received_us) / 1000 + 0.062,
        }


def thin_stripes(folder: Path, *, batches: int = 6, ops: int = 300, workers: int = 1) -> Recording:
    """Many tiny kernels: about 2 us of each 14 us are spent on the GPU, which waits for its host."""
    names = ("add", "mul", "relu", "sigmoid")

    def work(trace: GpuTrace) -> None:
        trace.copy("HtoD", 4_096)
        for i in range(ops):
            name = names[i % len(names)]
            kernel = ELEMENTWISE.format(name, f"at::native::{name}_functor")
            trace.op(f"aten::{name}", kernel, 1.5 + i % 3 * 0.4, [[16, 256], [16, 256]])
            trace.host(2.5)
        trace.copy("DtoH", 4_096)

    return _recorded(folder, "stripes", work, batches, workers)


def thick_bars(folder: Path, *, batches: int = 6, ops: int = 8, workers: int = 1) -> Recording:
    """Few large fp32 matrix products of 2.5 ms each, launched ahead: the GPU is never idle for long."""

    def work(trace: GpuTrace) -> None:
        trace.copy("HtoD", 1_048_576)
        for _ in range(ops):
            trace.op("aten::addmm", MATMUL, 2_500.0, [[4096], [4096, 4096], [4096, 4096]])
        trace.copy("DtoH", 1_048_576)

    return _recorded(folder, "bars", work, batches, workers)


def _recorded(folder: Path, name: str, work: Any, batches: int, workers: int) -> Recording:
    traces = [GpuTrace(worker=worker, device=worker % 8, start_us=1_000.0 + 37 * worker) for worker in range(workers)]
    for number in range(batches):
        for trace in traces:
            trace.host(60.0)
            trace.batch(1 + number * workers + trace.worker, 4, lambda trace=trace: work(trace))
    recordings = [trace.recording(folder / f"{name}-w{trace.worker}.trace.json") for trace in traces]
    return {
        "endpoint": name,
        "version": "1",
        "settings": {"max_batch_size": 4, "workers": workers},
        "cores": 8,
        "started_ns": MONOTONIC_NS,
        "ended_ns": max(recording["ended_ns"] for recording in recordings) + 100_000,
        "spans": sorted((span for trace in traces for span in trace.spans), key=lambda span: span["received_ns"]),
        "workers": recordings,
    }
