"""Closed-loop load from wrk with one thread, on one URL, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Load:
    """What came back in one run; `errors` counts answers other than 2xx, lost connections and time-outs."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


def press(url: str, body: Path, content_type: str, *, connections: int, seconds: int) -> Load:
    """Runs wrk; raises RuntimeError when wrk itself fails."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "--latency",
        "-s",
        str(SCRIPT),
        url,
    ]
    variables = {"BENCH_BODY": str(body), "BENCH_CONTENT_TYPE": content_type}
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"wrk failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """The Load in wrk's output; raises ValueError when the script's line is not there."""
    lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
    if len(lines) != 1:
        raise ValueError(f"wrk printed no result: {output[-300:]!r}")
    said = json.loads(lines[0])
    return Load(
        requests=said["requests"],
        seconds=said["duration_us"] / 1e6,
        p50_ms=said["p50_us"] / 1e3,
        p99_ms=said["p99_us"] / 1e3,
        errors=sum(said[name] for name in ("connect", "read", "write", "status", "timeout")),
    )
