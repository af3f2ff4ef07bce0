"""The stream of a recording: its lines, its ends, clients that hang up. HTTP is real, workers are scripts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nbserve import wire
from nbserve.server import management_api, profile_api, spans
from nbserve.server.endpoint import Endpoint, Endpoints
from nbserve.server.metrics import Metrics
from nbserve.server.profiling import Recordings
from nbserve.server.spans import SpanStore
from nbserve.server.version import Version
from tests.server.stage import HELD, LIMIT_S, Script, Stage, play, recorded, request, until


class Stream:
    """An answer that goes on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._text = b""

    async def head(self) -> int:
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), LIMIT_S)
        return int(head.split()[1])

    async def line(self) -> dict[str, Any] | None:
        """The next line, progress left out; None at the end."""
        while (line := await self._next()) is not None:
            if (said := json.loads(line))["event"] != "progress":
                return cast("dict[str, Any]", said)
        return None

    async def progress(self) -> int:
        line = await self._next()
        assert line is not None
        return int(json.loads(line)["batches"])

    async def _next(self) -> bytes | None:
        while b"\n" not in self._text:
            size = int(await asyncio.wait_for(self._reader.readuntil(b"\r\n"), LIMIT_S), 16)
            self._text += (await self._reader.readexactly(size + 2))[:-2]
            if not size:
                return None
        line, _, self._text = self._text.partition(b"\n")
        return line

    async def body(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(await self._reader.read()))

    async def hang_up(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Api:
    """The management API over scripts."""

    def __init__(self, stage: Stage, directory: Path, startup_batches: int | None = None) -> None:
        self.stage = stage
        self.recordings = Recordings(lambda: directory, 4, startup_batches)
        self.metrics = Metrics(lambda: 0)
        self.endpoint = Endpoint("h", SpanStore(), self.metrics.endpoint("h"), cast("Any", None))
        endpoints = Endpoints(lambda name: self.endpoint)
        endpoints._endpoints["h"] = self.endpoint
        server = SimpleNamespace(token="t", endpoints=endpoints, recordings=self.recordings)
        self._http, url = management_api.listen(cast("Any", server), "127.0.0.1", 0)
        self._port = int(url.rpartition(":")[2])
        self._streams: list[Stream] = []

    async def serve(self, **settings: Any) -> tuple[Version, list[Script]]:
        version, scripts = await self.stage.serve(**settings)
        self.endpoint.current = version
        return version, scripts

    async def post(self, path: str, **message: Any) -> Stream:
        stream = Stream(*await asyncio.open_connection("127.0.0.1", self._port))
        self._streams.append(stream)
        body = json.dumps(message).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer t\r\n"
        stream._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return stream

    async def close(self) -> None:
        for stream in self._streams:
            await stream.hang_up()
        self._http.stop()
        await self._http.close_all_connections()


@pytest.fixture
def api(tmp_path: Path) -> Callable[..., None]:
    """Play a scene with the management API."""

    def run(scene: Callable[[Api], Awaitable[None]], startup_batches: int | None = None) -> None:
        async def with_api(stage: Stage) -> None:
            api = Api(stage, tmp_path, startup_batches)
            try:
                await scene(api)
            finally:
                await api.close()

        play(with_api)

    return run


async def answer(version: Version, script: Script, rows: int = 1) -> int:
    requests = [request() for _ in range(rows)]
    for asked in requests:
        version.submit(asked)
    batch = await script.batch()
    script.answer(batch, stamps=wire.Stamps(*[time.monotonic_ns()] * 5))
    await asyncio.gather(*(asked.reply for asked in requests))
    return batch.batch_id


async def begin(stream: Stream, *scripts: Script) -> str:
    """The workers record; gives the recording's id."""
    for script in scripts:
        order = await script.told("profile")
        script.say("profiling", id=order["id"])
    assert await stream.head() == 200
    line = await stream.line()
    assert line == {"event": "recording", "id": order["id"], "workers": [s.spec["worker_index"] for s in scripts]}
    return str(order["id"])


def test_a_recording_is_told_line_by_line(api, monkeypatch):
    monkeypatch.setattr(spans, "_CHUNK_ROWS", 4)
    monkeypatch.setattr(profile_api, "TICK_S", 0.01)

    async def scene(api: Api) -> None:
        version, scripts = await api.serve(workers=2, max_batch_size=3, max_batch_delay_ms=1000)
        stream = await api.post("/endpoints/h/profile", all=True, batches=3)
        number = await begin(stream, *scripts)
        assert [worker.recording is not None for worker in version.crew.workers] == [True, True]
        batches = [await answer(version, scripts[0], 3) for _ in range(3)]
        while await stream.progress() < 3:
            pass
        scripts[0].say("profiled", id=number, recording=recorded(scripts[0], batches))
        await scripts[1].told("profile_stop")
        scripts[1].say("profiled", id=number, recording=recorded(scripts[1], [], error="no space left"))
        line = await stream.line()
        assert line is not None
        recording = line["recording"]
        assert [span["batch_id"] for span in recording["spans"]] == [n for n in batches for _ in range(3)]
        assert [worker["error"] for worker in recording["workers"]] == [None, "no space left"]
        assert set(recording) == {
            "endpoint",
            "version",
            "settings",
            "cores",
            "started_ns",
            "ended_ns",
            "spans",
            "workers",
        }
        assert await stream.line() is None

    api(scene)


def test_a_recording_without_requests_is_whole_too(api):
    async def scene(api: Api) -> None:
        _, [script] = await api.serve()
        stream = await api.post("/endpoints/h/profile", seconds=0.01)
        number = await begin(stream, script)
        await script.told("profile_stop")
        script.say("profiled", id=number, recording=recorded(script, []))
        line = await stream.line()
        assert line is not None
        assert (line["event"], line["recording"]["spans"]) == ("recorded", [])

    api(scene)


def test_a_client_that_hangs_up_ends_it(api, tmp_path):
    async def scene(api: Api) -> None:
        version, [script] = await api.serve()
        stream = await api.post("/endpoints/h/profile")
        number = await begin(stream, script)
        await stream.hang_up()
        assert (await script.told("profile_stop"))["id"] == number
        script.say("profiled", id=number, recording=recorded(script, []))
        await until(lambda: not list((tmp_path / "profiles").iterdir()))
        assert version.crew.workers[0].recording is None

    api(scene)


def test_a_client_that_hangs_up_with_the_last_line_has_the_files(api, monkeypatch, tmp_path):
    send_part = profile_api.ProfileHandler.send_part

    def send_then_lose(self: profile_api.ProfileHandler, data: bytes) -> asyncio.Future[None]:
        sent = send_part(self, data)
        if not data.endswith(b"]}}\n"):
            return sent
        # The connection was full: all of it was read before the server hears that it was sent.
        self.on_connection_close()
        return asyncio.get_running_loop().create_future()

    monkeypatch.setattr(profile_api.ProfileHandler, "send_part", send_then_lose)

    async def scene(api: Api) -> None:
        _, [script] = await api.serve()
        stream = await api.post("/endpoints/h/profile", batches=1)
        number = await begin(stream, script)
        script.say("profiled", id=number, recording=recorded(script, []))
        assert await stream.line() is not None
        await stream.hang_up()
        [recording] = api.recordings._all
        await until(lambda: recording.is_done)
        assert recording.error is None
        assert [folder.name for folder in (tmp_path / "profiles").iterdir()] == [number]

    api(scene)


def test_a_client_that_hangs_up_before_it_began_ends_it(api, tmp_path):
    async def scene(api: Api) -> None:
        _, [script] = await api.serve()
        stream = await api.post("/endpoints/h/profile")
        await script.told("profile")
        await stream.hang_up()
        await script.told("profile_stop")
        script.exit()
        await until(lambda: not list((tmp_path / "profiles").iterdir()))

    api(scene)


def test_who_cannot_be_recorded_is_a_conflict(api):
    async def scene(api: Api) -> None:
        version, [script] = await api.serve()
        script.say("held", request_ids=[], **HELD)
        await until(lambda: version.crew.workers[0].hold is not None)
        stream = await api.post("/endpoints/h/profile")
        assert await stream.head() == 409
        assert (await stream.body())["type"] == "Conflict"

    api(scene)


@pytest.mark.parametrize(
    ("path", "message", "status"),
    [
        ("/endpoints/h/profile", {"batches": 0}, 400),
        ("/endpoints/nobody/profile", {}, 404),
        ("/endpoints/h/profile", {"worker": 3}, 404),
        ("/endpoints/h/profile", {"startup": True}, 404),
    ],
)
def test_what_cannot_be_recorded_is_an_error_at_once(api, path, message, status):
    async def scene(api: Api) -> None:
        await api.serve()
        stream = await api.post(path, **message)
        assert await stream.head() == status

    api(scene)


def test_the_server_s_end_is_the_last_line(api):
    async def scene(api: Api) -> None:
        _, [script] = await api.serve()
        stream = await api.post("/endpoints/h/profile")
        await begin(stream, script)
        api.recordings.close()
        line = await stream.line()
        assert line is not None
        assert (line["event"], line["message"]) == ("failed", "the server stopped while it recorded")
        assert await stream.line() is None

    api(scene)


def test_the_recording_of_the_start_is_told_when_it_is_complete(api):
    async def scene(api: Api) -> None:
        version = api.stage.version()
        object.__setattr__(version.around, "profile", api.recordings.startup_order)
        starting = asyncio.ensure_future(version.start(lambda text: None))
        script = await api.stage.started(1)
        await starting
        version.serve()
        api.endpoint.current = version
        script.say("profiling", id="startup")
        stream = await api.post("/endpoints/h/profile", startup=True)
        assert await stream.head() == 200
        assert await stream.line() == {"event": "recording", "id": "startup", "workers": [0]}
        await stream.hang_up()
        stream = await api.post("/endpoints/h/profile", startup=True)
        assert await stream.head() == 200
        script.say("profiled", id="startup", recording=recorded(script, [1]))
        line = await stream.line()
        while line is not None and line["event"] != "recorded":
            line = await stream.line()
        assert line is not None
        assert line["recording"]["workers"][0]["batches"] == [1]

    api(scene, startup_batches=5)
