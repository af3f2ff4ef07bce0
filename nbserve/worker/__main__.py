"""A worker in a fresh interpreter: `python -m nbserve.worker CHANNEL_FD LOG_FD SPEC`, run by the nursery."""

from __future__ import annotations

import os
import signal
import sys

import orjson

from nbserve.worker import process
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.start import run_worker


def main(arguments: list[str]) -> int:
    channel_fd, log_fd, spec = arguments
    process.die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for fd in (int(channel_fd), int(log_fd)):
        os.set_inheritable(fd, False)
    return run_worker(WorkerSpec.from_json(orjson.loads(spec)), int(channel_fd), int(log_fd))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
