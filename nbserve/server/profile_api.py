"""The route of the management API that records a profile. Server process."""

from __future__ import annotations

import asyncio

import orjson

from nbserve.server.api_handler import ApiHandler
from nbserve.server.profiling import Wish, startup_of
from nbserve.server.recording import Recording
from nbserve.server.stream import StreamHandler
from nbserve.server.version import Version

TICK_S = 0.25


class ProfileHandler(StreamHandler):
    """Lines of JSON: `recording` when the workers record, `progress`, at the end `recorded` or `failed`.

    A client that hangs up ends the recording.
    """

    async def post(self, name: str) -> None:
        endpoint = self.server.endpoints.get(name)
        wish = Wish.of_json(self.body_object())
        await self.follow(self._record(endpoint.serving(), wish))

    async def _record(self, version: Version, wish: Wish) -> None:
        if wish.is_startup:
            await self._tell(startup_of(version))
            return
        recording = await self.server.recordings.start(version, wish)
        try:
            await self._tell(recording, wish.seconds)
        except BaseException:
            recording.give_up()
            raise

    async def _tell(self, recording: Recording, seconds: float | None = None) -> None:
        await recording.begun()
        if seconds is not None:
            recording.stop_in(seconds)
        workers = [part.worker.index for part in recording.parts]
        self.say({"event": "recording", "id": recording.id, "workers": workers})
        while not await recording.is_done_within(TICK_S):
            await self.say({"event": "progress", "batches": recording.batches})
        recording.hand_over()
        await self._tell_whole(recording)

    async def _tell_whole(self, recording: Recording) -> None:
        """One line, in pieces: spelling out all requests at once would keep clients waiting for their answers."""
        line = orjson.dumps({"event": "recorded", "recording": recording.as_object()})
        await self.send_part(line.removesuffix(b"}}") + b',"spans":[')
        comma = b""
        for spans in recording.spans():
            if spans:
                await self.send_part(comma + orjson.dumps(spans)[1:-1])
                comma = b","
            await asyncio.sleep(0)
        # Not awaited: who has read it has the files, and may hang up before this coroutine would go on.
        self.send_part(b"]}}\n")


def routes(name: str) -> list[tuple[str, type[ApiHandler]]]:
    """The routes below an endpoint; `name` is the pattern of its path."""
    return [(name + "/profile", ProfileHandler)]
