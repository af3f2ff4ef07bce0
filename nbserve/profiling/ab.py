"""Settings tried out against the current ones: two trials, the same requests, blocks in turns. Kernel or terminal."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from nbserve.errors import ProfileError, ServerGone, from_object
from nbserve.exchange import Answer, predict_error
from nbserve.load.job import Job, Outcome
from nbserve.profiling import fixes, last
from nbserve.profiling.answers import Difference, difference
from nbserve.profiling.comparison import Comparison, Measure
from nbserve.profiling.fixes import Fix
from nbserve.profiling.generator import LoadGenerator
from nbserve.profiling.options import AbOptions
from nbserve.profiling.requests import Reply, Request, chosen
from nbserve.profiling.statistics import LEAST_PAIRS, estimate
from nbserve.profiling.summary import assignments

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint

# Enough for a tight interval; more of them would be too short for their number of requests.
MOST_PAIRS = 40
WARM_SHARE = 0.1
WARM_LIMIT_S = 2.0
ANSWERS_LIMIT_S = 10.0
# Slow handlers may take that many times as long as wished to get LEAST_PAIRS.
PATIENCE = 3
BLOCK_LIMIT_S = 60.0

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class Pair:
    """Two neighbouring blocks of the same requests."""

    current: Outcome
    changed: Outcome

    def ratio(self, measure: Measure) -> float:
        """How many times faster the changed settings were."""
        if measure == "throughput":
            return self.changed["rate"] / self.current["rate"]
        return self.current["latency_ms"]["p50"] / self.changed["latency_ms"]["p50"]


def compare(endpoint: Endpoint, fix: Fix, options: AbOptions, on_progress: OnProgress) -> Comparison:
    """Try `fix` out; leaving early stops its workers."""
    settings = fixes.settings_of(fix, _findings(endpoint, fix, on_progress))
    requests = chosen(endpoint, options.requests)
    clients = options.clients or _clients(endpoint)
    with ExitStack() as stack:
        current = stack.enter_context(trial(endpoint, {}, "the current settings", on_progress))
        changed = stack.enter_context(trial(endpoint, settings, assignments(settings), on_progress))
        on_progress("comparing answers")
        requests, replies = _answered(current, requests)
        own = _own_difference(current, requests, replies)
        apart = difference(replies, _refused_none(_ask_all(changed, requests), settings))
        generator = stack.enter_context(LoadGenerator(requests))
        blocks = Blocks(generator, current, changed, clients, options.seconds, on_progress)
        began_s = time.monotonic()
        pairs = blocks.measure()
        seconds = time.monotonic() - began_s
    measure: Measure = "median latency" if clients == 1 else "throughput"
    found = Comparison(
        endpoint=endpoint,
        settings=settings,
        measure=measure,
        estimate=estimate([pair.ratio(measure) for pair in pairs]),
        latency_ms=_medians(pairs, lambda outcome: outcome["latency_ms"]["p50"]),
        throughput=_medians(pairs, lambda outcome: outcome["rate"]),
        difference=apart,
        own_difference=own,
        clients=clients,
        seconds=seconds,
    )
    return _applied(found) if options.apply else found


def _findings(endpoint: Endpoint, fix: Fix, on_progress: OnProgress) -> Any:
    """Those of the last profile, if `fix` names one of them; there may have to be one first."""
    if not fixes.needs_findings(fix):
        return ()
    if (known := last.find(endpoint.server.server_id, endpoint.name)) is None:
        return endpoint.profile(on_progress=on_progress).findings
    return known.findings


def _clients(endpoint: Endpoint) -> int:
    known = last.find(endpoint.server.server_id, endpoint.name)
    return last.clients(endpoint.spans()) if known is None else known.clients  # type: ignore[arg-type]


def _applied(found: Comparison) -> Comparison:
    if found.verdict != "faster" or not found.has_same_answers:
        return found
    found.apply()
    return replace(found, is_applied=True)


def _medians(pairs: Sequence[Pair], of: Callable[[Outcome], float]) -> dict[str, float]:
    return {
        "current": statistics.median(of(pair.current) for pair in pairs),
        "changed": statistics.median(of(pair.changed) for pair in pairs),
    }


@contextmanager
def trial(endpoint: Endpoint, settings: dict[str, Any], what: str, on_progress: OnProgress) -> Iterator[str]:
    """Workers of their own with these settings laid over the current ones, while the block runs; gives their URL."""
    wish = orjson.dumps({"settings": settings})
    on_progress(f"starting workers with {what}")
    with endpoint.server.send("POST", f"{endpoint.path}/trials", wish, {"Content-Type": "application/json"}) as answer:
        for line in answer.lines():
            event = orjson.loads(line)
            if event["event"] == "ready":
                yield event["url"]
                return
            if event["event"] == "failed":
                raise from_object(event)
            on_progress(event["text"])
    raise ServerGone(f"the server ended while it started a trial of {endpoint.name}")


def ask(url: str, request: Request) -> Reply:
    parts = urlsplit(url)
    headers = {"Content-Type": request.content_type}
    with Answer(f"{parts.scheme}://{parts.netloc}", "POST", parts.path, request.body, headers) as answer:
        return Reply(answer.status, answer.content_type, answer.read())


def _ask_all(url: str, requests: Sequence[Request]) -> list[Reply]:
    return [ask(url, request) for request in requests]


def _own_difference(url: str, requests: Sequence[Request], replies: Sequence[Reply]) -> Difference:
    """How far the current settings' answers are apart from call to call, and from those of the worker recorded once."""
    known = [(request.recorded, reply) for request, reply in zip(requests, replies, strict=True)]
    earlier = [(before, now) for before, now in known if before is not None]
    found = difference([before for before, _ in earlier], [now for _, now in earlier])
    return found | difference(replies, _ask_all(url, requests))


def _answered(url: str, requests: Sequence[Request]) -> tuple[list[Request], list[Reply]]:
    """The requests that are answered well, as many as fit into the time; raises ProfileError when none is."""
    found: list[tuple[Request, Reply]] = []
    deadline_s = time.monotonic() + ANSWERS_LIMIT_S
    for request in requests:
        reply = ask(url, request)
        if reply.status < 400:
            found.append((request, reply))
        if found and time.monotonic() > deadline_s:
            break
    if not found:
        raise ProfileError(f"with the current settings no request is answered well: {_in_words(reply)}")
    return [request for request, _ in found], [reply for _, reply in found]


def _refused_none(replies: list[Reply], settings: dict[str, Any]) -> list[Reply]:
    if failed := [reply for reply in replies if reply.status >= 400]:
        raise ProfileError(
            f"with {assignments(settings)} {len(failed)} of {len(replies)} requests fail, so nothing was compared: "
            f"{_in_words(failed[0])}"
        )
    return replies


def _in_words(failed: Reply) -> str:
    return f"status {failed.status}, {predict_error(failed.status, failed.body)}"


class Blocks:
    """Measures the two in turns: A B, B A, A B ...; a pair of neighbours gets the same requests in the same order."""

    def __init__(
        self,
        generator: LoadGenerator,
        current: str,
        changed: str,
        clients: int,
        seconds: float,
        on_progress: OnProgress,
    ) -> None:
        self._generator = generator
        self._current = current
        self._changed = changed
        self._clients = clients
        self._seconds = seconds
        self._on_progress = on_progress

    def measure(self) -> list[Pair]:
        began_s = time.monotonic()
        count = self._count()
        pairs: list[Pair] = []
        while len(pairs) < MOST_PAIRS and self._goes_on(len(pairs), time.monotonic() - began_s):
            self._on_progress(f"comparing: block pair {len(pairs) + 1}, {time.monotonic() - began_s:.0f} s")
            pairs.append(self._pair(len(pairs), count))
        return pairs

    def _goes_on(self, pairs: int, spent_s: float) -> bool:
        return spent_s < self._seconds or (pairs < LEAST_PAIRS and spent_s < PATIENCE * self._seconds) or pairs == 0

    def _count(self) -> int:
        """Warm both up; gives the requests of one block, so that MOST_PAIRS of them fill the time."""
        warm_s = min(WARM_LIMIT_S, self._seconds * WARM_SHARE / 2)
        self._on_progress("warming up")
        rates = [self._block(url, Job(url, warm_s, self._clients))["rate"] for url in (self._current, self._changed)]
        block_s = self._seconds * (1 - WARM_SHARE) / (2 * MOST_PAIRS)
        per_client = max(1, round(block_s * min(rates) / self._clients))
        return self._clients * per_client

    def _pair(self, number: int, count: int) -> Pair:
        urls = [self._current, self._changed]
        outcomes = {}
        for url in urls if number % 2 == 0 else reversed(urls):
            job = Job(url, BLOCK_LIMIT_S, self._clients, count=count, first=number * count)
            outcomes[url] = self._block(url, job)
        return Pair(outcomes[self._current], outcomes[self._changed])

    def _block(self, url: str, job: Job) -> Outcome:
        outcome = self._generator.run(job)
        if outcome["errors"]:
            which = "current" if url == self._current else "changed"
            what = ", ".join(f"{number} times {error}" for error, number in outcome["errors"].items())
            hint = "; was the endpoint stopped meanwhile?" if "404" in outcome["errors"] else ""
            raise ProfileError(f"with the {which} settings requests failed while they were compared: {what}{hint}")
        return outcome
