"""The load generator's other end: its process, the jobs it gets, and what came of them. Kernel or terminal."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import orjson

from nbserve.errors import ProfileError
from nbserve.load.job import Job, Outcome
from nbserve.profiling.requests import Request

END_LIMIT_S = 5.0


class LoadGenerator:
    """A process that asks these requests in turn, as jobs say; it ends with the block, or with this process."""

    def __init__(self, requests: Sequence[Request]) -> None:
        # Its own session: who interrupts the terminal interrupts us, and we end it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nbserve.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._is_running = False
        bodies = [(request.content_type, base64.b64encode(request.body).decode()) for request in requests]
        self._order("requests", requests=bodies)

    def __enter__(self) -> LoadGenerator:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._pipes[0].close()
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in self._pipes[1:]:
            pipe.close()

    @property
    def _pipes(self) -> tuple[Any, Any, Any]:
        return self._process.stdin, self._process.stdout, self._process.stderr

    def start(self, job: Job) -> None:
        self._order("run", **asdict(job))
        self._is_running = True

    def run(self, job: Job) -> Outcome:
        """Start a job and wait for its end."""
        self.start(job)
        return self._outcome()

    def stop(self) -> Outcome | None:
        """End the job that runs; None when there is none."""
        if not self._is_running:
            return None
        self._order("stop")
        return self._outcome()

    def _outcome(self) -> Outcome:
        line = self._pipes[1].readline()
        if not line:
            raise self._gone()
        self._is_running = False
        outcome: Outcome = orjson.loads(line)
        return outcome

    def _order(self, what: str, **details: Any) -> None:
        try:
            self._pipes[0].write(orjson.dumps({"do": what, **details}) + b"\n")
            self._pipes[0].flush()
        except OSError:
            raise self._gone() from None

    def _gone(self) -> ProfileError:
        said = self._pipes[2].read().decode(errors="replace").strip().splitlines()
        return ProfileError(f"the load generator ended: {said[-1] if said else 'it said nothing'}")
