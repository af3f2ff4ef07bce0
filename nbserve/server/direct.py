"""Requests that are for one worker alone and wait until it is free. Server process."""

from __future__ import annotations

from collections import deque

from nbserve.errors import NbserveError
from nbserve.server.own_request import OwnRequest
from nbserve.server.worker import Worker


class DirectRequests:
    """`waiting` has a queue for each worker that anything waits for."""

    def __init__(self) -> None:
        self.waiting: dict[Worker, deque[OwnRequest]] = {}

    def __contains__(self, worker: Worker) -> bool:
        return worker in self.waiting

    def workers(self) -> list[Worker]:
        return list(self.waiting)

    def add(self, worker: Worker, request: OwnRequest) -> None:
        self.waiting.setdefault(worker, deque()).append(request)

    def take(self, worker: Worker) -> OwnRequest | None:
        """The next request for this worker whose sender still waits."""
        queue = self.waiting.pop(worker, deque[OwnRequest]())
        while queue and queue[0].is_gone():
            queue.popleft()
        if len(queue) > 1:
            self.waiting[worker] = queue
        return queue.popleft() if queue else None

    def refuse(self, error: NbserveError, worker: Worker | None = None) -> None:
        """Answer those that wait for this worker, or all, with an error."""
        for asked in self.workers() if worker is None else [worker]:
            while (request := self.take(asked)) is not None:
                request.fail(error)
