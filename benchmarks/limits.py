"""The in-process limit: a workload in a bare loop, bytes to bytes, with no server around it. Runs in its own process.

`python -m benchmarks.limits mlp --threads 1` prints requests per second at batch 1, 8 and 32 as JSON;
with `--answers N` it prints the answers to the first N examples instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.workloads import WORKLOADS, Workload, examples

BATCH_SIZES = (1, 8, 32)


def answer(workload: Workload, bodies: Sequence[bytes]) -> list[bytes]:
    """What a worker does for one batch."""
    answers = workload.run([workload.decode(body) for body in bodies])
    return [workload.encode(one) for one in answers]


def requests_per_s(workload: Workload, bodies: Sequence[bytes], seconds: float) -> float:
    for _ in range(3):
        answer(workload, bodies)
    batches, start_s = 0, time.perf_counter()
    while time.perf_counter() - start_s < seconds:
        answer(workload, bodies)
        batches += 1
    return batches * len(bodies) / (time.perf_counter() - start_s)


def measure(python: str, name: str, *, threads: int, processes: int, seconds: float) -> list[dict[str, float]]:
    """Runs `processes` such loops at the same time; one result per process, by batch size."""
    command = [python, "-m", "benchmarks.limits", name, "--threads", str(threads), "--seconds", str(seconds)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) for _ in range(processes)]
    try:
        for process in running:
            assert process.stdout
            process.stdout.readline()
        for process in running:
            assert process.stdin
            process.stdin.close()
        return [_last_line(process) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()


def expected(python: str, name: str, count: int) -> list[Any]:
    """The right answers, from a process of their own so that the caller needs no torch."""
    command = [python, "-m", "benchmarks.limits", name, "--threads", "1", "--answers", str(count)]
    answers: list[Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answers


def _last_line(process: subprocess.Popen[bytes]) -> dict[str, float]:
    assert process.stdout
    with process.stdout as output:
        rates: dict[str, float] = json.loads(output.read())
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--answers", type=int, default=0)
    options = parser.parse_args()
    workload = WORKLOADS[options.workload](options.threads)
    if options.answers:
        bodies = examples(options.workload, options.answers)
        print(json.dumps([json.loads(answer(workload, [body])[0]) for body in bodies]))
        return
    bodies = examples(options.workload, max(BATCH_SIZES))
    answer(workload, bodies)
    print("ready", flush=True)
    sys.stdin.read()
    print(json.dumps({str(size): requests_per_s(workload, bodies[:size], options.seconds) for size in BATCH_SIZES}))


if __name__ == "__main__":
    main()
