"""Workers that end at a bad moment, and requests that must be answered all the same."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nbserve.config import EndpointConfig
from nbserve.errors import StartError, Unavailable
from nbserve.server import supervisor
from nbserve.server.endpoint import Endpoint
from nbserve.server.failures import Failure
from nbserve.server.metrics import Metrics
from nbserve.server.own_request import OwnRequest, make_meta
from nbserve.server.spans import SpanStore
from nbserve.server.version import Version
from nbserve.server.worker_state import Backoff, WorkerState
from tests.server.stage import LIMIT_S, Script, Stage, play, request, until

SPENT = "debugpy traced it"
FAILED = Failure("ab-1", "no good", b"\0\0", b"", 0, None)


def test_a_new_process_is_not_taken_for_the_one_that_was_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_GRACE_S", 0.05)

    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve()
        [worker] = version.crew.workers
        version.submit(request())
        batch = await script.batch()
        script.say("spent", text=SPENT)
        await script.told("stop")
        script.answer(batch)
        await until(lambda: not worker.in_flight)
        script.exit()
        await stage.started(3)
        await until(lambda: worker.state is WorkerState.READY)
        since = time.monotonic()
        await until(lambda: time.monotonic() - since > 0.2)
        assert not worker.was_killed

    play(scene)


def test_a_worker_that_is_replaced_gives_back_its_batch_though_a_child_keeps_its_socket() -> None:
    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve()
        version.submit(asked := request())
        await script.batch()
        script.say("spent", text=SPENT)
        await script.told("stop")
        kept_by_child = os.dup(script.fileno())
        script.exit(signal.SIGSEGV)
        replaced = await stage.started(3)
        replaced.answer(await replaced.batch())
        assert (await asked.reply).status == 200
        os.close(kept_by_child)

    play(scene)


def test_a_replay_that_cannot_start_fails_for_both_who_wait_for_it() -> None:
    async def scene(stage: Stage) -> None:
        broken: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))
        version, [script] = await stage.serve()
        both = [asyncio.ensure_future(version.crew.start_replay(FAILED)) for _ in range(2)]
        await until(lambda: len(stage.scripts) == 2)
        _cannot_start(stage.scripts[1])
        assert [type(error) for error in await asyncio.gather(*both, return_exceptions=True)] == [StartError] * 2
        await until(lambda: len(version.crew.everyone) == 1)
        stopping = asyncio.ensure_future(version.stop())
        await script.told("stop")
        script.exit()
        await stopping
        assert broken == []

    play(scene)


def test_a_request_for_one_worker_gets_its_turn_though_the_queue_is_always_full() -> None:
    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve(max_batch_size=1)
        for _ in range(6):
            version.submit(request())
        first, second = await script.batch(), await script.batch()
        version.submit_to(version.crew.workers[0], OwnRequest(make_meta("text/plain"), b"for it alone", is_direct=True))
        script.answer(first)
        script.answer(second)
        assert bytes((await script.batch()).rows[0].body) == b"for it alone"

    play(scene)


def test_what_waits_is_refused_when_no_worker_will_ever_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "failed_to_start", lambda self: None)

    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve()
        script.exit(signal.SIGSEGV)
        version.submit(asked := request())
        await until(lambda: len(stage.scripts) == 2)
        assert not version.is_given_up
        _cannot_start(stage.scripts[1])
        reply = await asked.reply
        assert version.is_given_up
        assert reply.status == 503
        assert b"no worker of h can be started" in reply.body

    play(scene)


def test_a_deployment_that_waits_for_another_is_refused_once_the_endpoint_stops() -> None:
    async def scene(stage: Stage) -> None:
        made: list[Version] = []
        broken: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))

        def make(endpoint: Endpoint, bundle: Any, config: EndpointConfig) -> Version:
            made.append(stage.version())
            return made[-1]

        endpoint = Endpoint("h", SpanStore(), Metrics(lambda: 0).endpoint("h"), make)
        bundle = cast("Any", SimpleNamespace(version="1234"))
        first, second = (
            asyncio.ensure_future(endpoint.deploy(bundle, EndpointConfig(), lambda _: None)) for _ in range(2)
        )
        await until(lambda: stage.scripts)
        [worker] = made[0].crew.workers
        stopping = asyncio.ensure_future(endpoint.stop())
        await until(lambda: worker.was_killed)
        stage.scripts[0].exit(signal.SIGKILL)
        with pytest.raises(Unavailable, match="stopping"):
            await asyncio.wait_for(second, LIMIT_S)
        await stopping
        assert first.cancelled()
        assert len(made) == 1
        del first, second, stopping
        gc.collect()
        assert broken == []

    play(scene)


def _cannot_start(script: Script) -> None:
    script.say("failed", error="no memory is left", traceback="")
    script.exit(3 << 8)
