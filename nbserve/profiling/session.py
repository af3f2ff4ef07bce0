"""One recording from its order to a Profile, and somebody to ask for predictions meanwhile when nobody does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from nbserve import runfile
from nbserve.errors import ProfileError, ServerGone, from_object
from nbserve.load.job import Job, Outcome
from nbserve.profiling import folders
from nbserve.profiling.generator import LoadGenerator
from nbserve.profiling.options import ProfileOptions
from nbserve.profiling.profile import Profile
from nbserve.profiling.requests import Request, chosen, recorded
from nbserve.profiling.summary import plural
from nbserve.recording import Recording, WorkerRecording

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint

# Who records in silence for that long is helped out with recorded requests.
SILENCE_S = 1.0
# ... and so is who waits for further batches: clients may just be slow, or have given up.
LATER_SILENCE_S = 10.0
# The recording ends before that, and its load with it.
LOAD_LIMIT_S = 24 * 3600.0

_FILES: tuple[Literal["trace", "samples", "memory"], ...] = ("trace", "samples", "memory")

OnProgress = Callable[[str], None]


def record(endpoint: Endpoint, options: ProfileOptions, on_progress: OnProgress) -> Profile:
    """Record as asked and read what was recorded; leaving early ends the recording and keeps nothing."""
    with Asker(endpoint, options, on_progress) as asker:
        found, number = _recording(endpoint, options, asker, on_progress)
        load = asker.stop()
    on_progress("reading the trace")
    return Profile.of(found, _own_folder(endpoint, found, number), endpoint.server.server_id, load)


class Asker:
    """Asks the endpoint while it records: as it was wished, else when nobody else does."""

    def __init__(self, endpoint: Endpoint, options: ProfileOptions, on_progress: OnProgress) -> None:
        self._endpoint = endpoint
        self._options = options
        self._on_progress = on_progress
        self._given = [] if options.request is None else [_request(options.request, options.content_type)]
        self._is_wished = options.load is not None or bool(self._given)
        self._generator = LoadGenerator(chosen(endpoint, self._given)) if self._is_wished else None
        self._heard_s = 0.0
        self._batches = 0

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._generator is not None:
            self._generator.__exit__()

    def begin(self) -> None:
        """The recording has begun."""
        self._heard_s = time.monotonic()
        if self._is_wished:
            self._start()

    def look(self, batches: int) -> None:
        """There were that many batches so far."""
        if batches > self._batches:
            self._batches, self._heard_s = batches, time.monotonic()
        if self._generator is None and time.monotonic() - self._heard_s >= self._patience_s:
            self._help_out()

    @property
    def _patience_s(self) -> float:
        most_s = LATER_SILENCE_S if self._batches else SILENCE_S
        return min(most_s, (self._options.seconds or 4 * most_s) / 4)

    def _help_out(self) -> None:
        if self._is_asked():
            self._heard_s = time.monotonic()
            return
        try:
            requests = recorded(self._endpoint)
        except ProfileError:
            if not self._batches:
                raise
            # What there is must not be lost; another client may come.
            self._heard_s = time.monotonic()
            return
        self._generator = LoadGenerator(requests)
        self._on_progress("nobody asks: sending the recorded requests")
        self._start()

    def _is_asked(self) -> bool:
        """Whether requests are on their way, which may take longer than our patience."""
        now = self._endpoint.stats()
        return now["queued"] > 0 or any(worker["state"].lower() == "busy" for worker in now["workers"])

    def stop(self) -> Outcome | None:
        return None if self._generator is None else self._generator.stop()

    def _start(self) -> None:
        assert self._generator is not None
        url, rate = self._endpoint.url, self._options.load
        self._generator.start(Job(url, LOAD_LIMIT_S, clients=self._clients(), rate=rate))

    def _clients(self) -> int:
        """One, or as many as it takes for requests to reach workers other than the first."""
        is_first = self._options.worker is None and not self._options.all_workers
        return 1 if is_first else max(1, len(self._endpoint.stats()["workers"]))


def _request(body: bytes, content_type: str | None) -> Request:
    return Request(content_type or "application/json", body)


def _recording(
    endpoint: Endpoint, options: ProfileOptions, asker: Asker, on_progress: OnProgress
) -> tuple[Recording, str]:
    """What the server recorded, and the recording's id."""
    number = ""
    wish = orjson.dumps(options.wish())
    with endpoint.server.send("POST", f"{endpoint.path}/profile", wish, {"Content-Type": "application/json"}) as answer:
        for line in answer.lines():
            event: dict[str, Any] = orjson.loads(line)
            if event["event"] == "recording":
                number = event["id"]
                on_progress(f"recording {_workers(event['workers'])}")
                asker.begin()
            elif event["event"] == "progress":
                on_progress(f"recording: {plural(event['batches'], 'batch', 'batches')}")
                asker.look(event["batches"])
            elif event["event"] == "recorded":
                return event["recording"], number
            else:
                raise from_object(event)
    raise ServerGone(f"the server ended while it recorded {endpoint.name}")


def _workers(indexes: list[int]) -> str:
    return f"worker{'s' * (len(indexes) > 1)} {', '.join(map(str, indexes))}"


def _own_folder(endpoint: Endpoint, recording: Recording, number: str) -> Path:
    """Move what the workers wrote to a folder of this process, which outlives the server; paths are changed to it."""
    left = runfile.server_dir(endpoint.server.server_id) / "profiles" / number
    written = [Path(file) for worker in recording["workers"] for kind in _FILES if (file := worker[kind])]
    folder = folders.new()
    try:
        for worker in recording["workers"]:
            _move(worker, folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise ProfileError(f"the recording cannot be kept: {error.strerror or error}") from None
        raise
    finally:
        shutil.rmtree(written[0].parent if written else left, ignore_errors=True)
    return folder


def _move(worker: WorkerRecording, folder: Path) -> None:
    for kind in _FILES:
        if (file := worker[kind]) is not None:
            worker[kind] = str(shutil.move(file, folder))
