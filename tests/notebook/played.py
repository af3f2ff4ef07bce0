"""What a server tells of an endpoint, made up: for tests without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbserve.config import EndpointConfig
from nbserve.notebook.live import Live

STAGES = ("receive", "queue", "batch_wait", "ipc", "preprocess", "inference", "postprocess", "encode", "respond")
BEGAN_S = 1_764_160_000.0


def sample(time_s: float, throughput: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Two seconds of an endpoint whose requests take 8 ms, three quarters of it inference, in batches of 4."""
    requests = round(2 * throughput)
    return {
        "time_s": time_s,
        "window_s": 2.0,
        "requests": requests,
        "throughput": throughput,
        "errors": 0,
        "latency_ms": {"p50": 8.0, "p95": 12.0, "p99": 20.0} if requests else None,
        "queued": 0,
        "batches": requests // 4,
        "mean_batch_size": 4.0 if requests else 0.0,
        "batch_sizes": [[4, requests // 4]] if requests else [],
        "stages_ms": {**dict.fromkeys(STAGES, 0.0), **({"queue": 2.0, "inference": 6.0} if requests else {})},
        **changes,
    }


def worker(index: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "index": index,
        "pid": 4000 + index,
        "state": "READY",
        "device": "cpu",
        "threads": 2,
        "rss_bytes": 312_000_000,
        "cpu_percent": 40.0,
        "batches": 1234,
        "restarts": 0,
        "role": "worker",
        "held": None,
        "last_error": None,
        **changes,
    }


def endpoint(answers: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "name": "digits",
        "version": "3f9c2a7710ab",
        "state": "READY",
        "url": "http://127.0.0.1:4000/predictions/digits",
        "settings": EndpointConfig(max_batch_size=8).as_dict(),
        "queued": 0,
        "workers": [worker()],
        "requests": {"200": answers},
        **changes,
    }


def live(samples: Sequence[dict[str, Any]] = (), **changes: Any) -> Live:
    found = Live(endpoint=endpoint(**changes))
    found.samples.extend(samples)
    return found


def minutes(throughput: float = 100.0, seconds: float = 120.0) -> list[dict[str, Any]]:
    """Samples of steady traffic, two a second, up to `seconds` after BEGAN_S."""
    return [sample(BEGAN_S + i / 2, throughput) for i in range(int(2 * seconds) + 1)]
