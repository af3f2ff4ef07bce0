"""What the server tells of requests and of a recording, as JSON. Used by all processes."""

from __future__ import annotations

from typing import Any, TypedDict


class Span(TypedDict):
    """One request. The stages follow each other and add up to `total_ms`.

    receive: first byte to queue. queue: waiting for a worker. batch_wait: a worker was idle but the policy waited for
    company. ipc: to the worker. preprocess, inference, postprocess, encode: in the worker, the same for the whole
    batch. respond: back to the server and out to the client's socket.
    """

    request_id: str
    batch_id: int
    rows: int
    worker: int
    received_ns: int
    receive_ms: float
    queue_ms: float
    batch_wait_ms: float
    ipc_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float
    encode_ms: float
    respond_ms: float
    total_ms: float


class WorkerRecording(TypedDict):
    """What one worker left: paths of its files (None: it has none), what it knows of its model, why it failed.

    A trace's times are Unix time: `epoch_offset_ns` is Unix time minus CLOCK_MONOTONIC in that process.
    """

    index: int
    pid: int
    device: str
    threads: int
    batches: list[int]
    started_ns: int
    ended_ns: int
    epoch_offset_ns: int
    trace: str | None
    samples: str | None
    memory: str | None
    facts: dict[str, Any]
    error: str | None


class Recording(TypedDict):
    """What the server tells when a recording is done. `spans` are all requests answered meanwhile, recorded or not."""

    endpoint: str
    version: str
    settings: dict[str, Any]
    cores: int
    started_ns: int
    ended_ns: int
    spans: list[Span]
    workers: list[WorkerRecording]
