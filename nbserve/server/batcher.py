"""When is a batch due, and what goes into it? No clock, no I/O: callers pass `now_ns`. Runs in the server process."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable

from nbserve.config import EndpointConfig
from nbserve.errors import Overloaded
from nbserve.server.returns import Returns
from nbserve.server.service_times import Rate, ServiceLine
from nbserve.server.ticket import Ticket

_WORTH_SPLITTING = 0.9  # share batches between idle workers if that makes them at least 10 % faster
_LONGEST_RETRY_S = 60


class Batcher:
    """The bounded queue of one endpoint version and its batching policy; all times are CLOCK_MONOTONIC nanoseconds.

    Policy `window`: a batch is due when it is full or its oldest request has waited `max_batch_delay_ms`.
    Policy `adaptive`: an idle worker takes what waits, but after an answered batch it waits for those connections that
    are known to come back, as long as that pays (returns.py).
    Every limit is read at each decision, so `configure` takes effect at once.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self.held_since_ns = 0
        self._waiting: deque[Ticket] = deque()
        self._retries: deque[Ticket] = deque()
        self._returns = Returns()
        self._line = ServiceLine()
        self._drain = Rate()
        self._strangers = Rate()
        self._ends_ns: dict[int, int] = {}
        self._held_ns = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._retries)

    @property
    def waiting(self) -> int:
        return len(self)

    def configure(self, config: EndpointConfig) -> None:
        self.config = config

    def add(self, ticket: Ticket, now_ns: int) -> None:
        """Queue a ticket; a full queue raises Overloaded, which says after what time to try again."""
        if len(self._waiting) >= self.config.queue_size:
            raise Overloaded(f"{len(self)} requests already wait", self.retry_after_s(now_ns))
        ticket.queued_ns = now_ns
        self._waiting.append(ticket)
        self._returns.arrived(ticket.source, now_ns)

    def put_back(self, tickets: Iterable[Ticket]) -> None:
        """Return tickets that no worker has begun with to the front of the queue, in their order."""
        self._waiting.extendleft(reversed(list(tickets)))

    def retry(self, ticket: Ticket) -> None:
        """Queue a ticket before all others, to be run alone."""
        self._retries.append(ticket)

    def left(self, source: Hashable) -> None:
        """A connection was closed: nobody needs to wait for it."""
        self._returns.left(source)

    def retry_after_s(self, now_ns: int) -> int:
        per_second = self._drain.per_second(now_ns)
        seconds = len(self) / per_second if per_second > 0 else 1
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_S)

    def has_full_batch(self) -> bool:
        """Whether a batch may be sent ahead to a busy worker: that costs nothing if it is full, else 50 % of p50."""
        return len(self._waiting) >= self.config.max_batch_size and not self._retries

    def due_in_ns(self, now_ns: int, idle_workers: int) -> int | None:
        """Nanoseconds until `take` should be called: 0 is now, None is not before something else happens."""
        if idle_workers < 1 or not len(self):
            return None
        if self._retries or len(self._waiting) >= self.config.max_batch_size:
            return 0
        wait_ns = self._window_ns(now_ns) if self.config.policy == "window" else self._company_ns(now_ns, idle_workers)
        if wait_ns and not self._held_ns:
            self._held_ns = now_ns
        return wait_ns

    def take(self, now_ns: int, limit: int | None = None, idle_workers: int = 1) -> list[Ticket]:
        """The next batch, without tickets whose client has gone (so it can be empty); a retry comes alone.

        `idle_workers` counts the worker this batch is for: several idle ones share what waits. `held_since_ns` then
        says since when the policy, not a busy worker, kept this batch waiting.
        """
        self.held_since_ns, self._held_ns = self._held_ns or now_ns, 0
        if self._retries:
            return _pop(self._retries, 1)
        size = self.config.max_batch_size if limit is None else min(limit, self.config.max_batch_size)
        if idle_workers > 1 and self.config.policy == "adaptive":
            size = min(size, self._fair_share(now_ns, idle_workers))
        batch = _pop(self._waiting, size)
        if batch:
            self._expect_end(batch, now_ns)
        return batch

    def finished(self, tickets: list[Ticket], service_ns: int, now_ns: int) -> None:
        """A batch was answered after `service_ns` with its worker: learn what it cost and who comes back."""
        if not tickets:
            return
        self._ends_ns.pop(tickets[0].request_id, None)
        self._line.learn(len(tickets), service_ns)
        self._drain.learn(len(tickets), now_ns)
        sources = [ticket.source for ticket in tickets]
        most, workers = self.config.max_batch_size, len(self._ends_ns) + 1
        regulars = self._returns.answered(sources, len(self._waiting) / workers, now_ns, self._line, most)
        self._strangers.learn(len(tickets) - regulars, now_ns)

    def take_all(self) -> list[Ticket]:
        """Empty the queue, for moving it to a new version; retries come first."""
        tickets = [*self._retries, *self._waiting]
        self._retries.clear()
        self._waiting.clear()
        return tickets

    def _window_ns(self, now_ns: int) -> int:
        delay_ns = int(self.config.max_batch_delay_ms * 1e6)
        return max(0, self._waiting[0].queued_ns + delay_ns - now_ns)

    def _company_ns(self, now_ns: int, idle_workers: int) -> int:
        """How long to wait for connections that are about to come back; several idle workers share them."""
        missing, until_ns = self._returns.missing(now_ns)
        if missing and len(self._waiting) < (len(self._waiting) + missing) // idle_workers:
            return until_ns - now_ns
        return self._headway_ns(now_ns, idle_workers) if self._ends_ns else 0

    def _headway_ns(self, now_ns: int, idle_workers: int) -> int:
        """How long an idle worker waits for strangers while others are busy: the cure for bunching buses.

        Workers that each start as soon as they can end up starting together, and who comes just after waits for all
        of them. So the idle ones start evenly over the time until the next one is free. Holding n requests for one
        more costs n times the time in which one comes, and n times its row; it saves that one its share of that time.
        """
        per_ns = self._strangers.per_second(now_ns) / 1e9
        free_ns = min((end_ns for end_ns in self._ends_ns.values() if end_ns > now_ns), default=now_ns) - now_ns
        if not free_ns or not per_ns:
            return 0
        waiting = len(self._waiting)
        cost_ns = waiting * (1 / per_ns + self._line.row_ns)
        saved_ns = min(free_ns / idle_workers, self._line.at(waiting))
        return int(free_ns - cost_ns * idle_workers) if saved_ns > cost_ns else 0

    def _expect_end(self, batch: list[Ticket], now_ns: int) -> None:
        if len(self._ends_ns) > 2 * self.config.workers:  # batches of workers that died are never finished
            self._ends_ns = {batch_id: end_ns for batch_id, end_ns in self._ends_ns.items() if end_ns > now_ns}
        self._ends_ns[batch[0].request_id] = now_ns + int(self._line.at(len(batch)))

    def _fair_share(self, now_ns: int, idle_workers: int) -> int:
        everybody = len(self._waiting) + self._returns.missing(now_ns)[0]
        share = -(-everybody // idle_workers)
        is_faster = self._line.at(share) < _WORTH_SPLITTING * self._line.at(everybody)
        return share if is_faster else everybody


def _pop(queue: deque[Ticket], size: int) -> list[Ticket]:
    batch: list[Ticket] = []
    while queue and len(batch) < size:
        ticket = queue.popleft()
        if not ticket.is_gone():
            batch.append(ticket)
    return batch
