"""Bringing a worker process into being, by fork or by spawn. Runs in the nursery and, past the fork, in the worker."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable

import orjson

from nbserve.worker import process
from nbserve.worker.spec import WorkerSpec


def fork_worker(spec: WorkerSpec, channel_fd: int, log_fd: int, leave_nursery: Callable[[], None]) -> int:
    """Fork; gives the worker's pid to the nursery. `leave_nursery` closes, in the worker, what is the nursery's."""
    # What waits in a buffer now would be written twice.
    sys.stdout.flush()
    sys.stderr.flush()
    nursery_pid = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        process.die_with_parent(nursery_pid)
        process.reset_signals()
        leave_nursery()
        code = run_worker(spec, channel_fd, log_fd)
    except BaseException:
        traceback.print_exc()
    finally:
        process.exit_now(code)
    raise AssertionError("not reached")


def spawn_worker(spec: WorkerSpec, channel_fd: int, log_fd: int) -> int:
    """Start a worker in a fresh interpreter; gives its pid. Slow, as it imports torch, and safe everywhere."""
    for fd in (channel_fd, log_fd):
        os.set_inheritable(fd, True)
    command = [
        sys.executable,
        "-m",
        "nbserve.worker",
        str(channel_fd),
        str(log_fd),
        orjson.dumps(spec.as_json()).decode(),
    ]
    return os.posix_spawn(sys.executable, command, os.environ, setpgroup=0)


def run_worker(spec: WorkerSpec, channel_fd: int, log_fd: int) -> int:
    """Be a worker from here on; gives the exit code."""
    process.write_to_log(log_fd)
    process.dump_stacks_on_request()
    process.set_name(f"nbserve:{spec.worker_index}:{spec.endpoint}")
    process.bind(spec.cpus)
    process.set_threads(spec.threads)
    process.reseed()
    from nbserve.worker.worker import Worker

    with socket.socket(fileno=channel_fd) as channel:
        return Worker(channel, spec).run()
