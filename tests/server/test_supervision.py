"""What the server says to its workers and does about them, with workers that say what the test wants said."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from nbserve.errors import StartError
from nbserve.server import crew
from nbserve.server.failures import Failure
from nbserve.server.own_request import OwnRequest
from nbserve.server.worker_state import WorkerState
from tests.server.stage import HELD, Stage, play, request, until


def test_a_held_worker_gives_back_what_was_sent_ahead_and_its_time_stands_still() -> None:
    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve(max_batch_size=1)
        [worker] = version.crew.workers
        first, second = request(), request()
        version.submit(first)
        version.submit(second)
        running, ahead = await script.batch(), await script.batch()
        began_ns = worker.channel.in_flight[0].started_ns
        script.say("held", request_ids=[first.request_id], **HELD)
        assert (await script.told("hold_taken"))["dropped"] == [ahead.batch_id]
        assert worker.state is WorkerState.HELD
        assert worker.hold is not None
        assert str(worker.hold) == f"cell 1, line 7 in preprocess (request ab-{first.request_id:x})"
        assert version.is_held
        standin = await stage.started(2)
        again = await standin.batch()
        standin.answer(again)
        assert (await second.reply).status == 200
        since_ns = worker.hold.since_ns
        script.say("resumed")
        await until(lambda: worker.state is WorkerState.BUSY)
        held_ns = time.monotonic_ns() - since_ns
        assert 0 < worker.channel.in_flight[0].started_ns - began_ns <= held_ns
        script.answer(running)
        assert (await first.reply).status == 200
        assert worker.state is WorkerState.READY

    play(scene)


def test_one_that_was_held_twice_in_a_batch_is_told_twice_and_each_time_counts() -> None:
    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve()
        [worker] = version.crew.workers
        version.submit(asked := request())
        batch = await script.batch()
        began_ns = worker.channel.in_flight[0].started_ns
        for _ in range(2):
            script.say("held", request_ids=[asked.request_id], **HELD)
            assert (await script.told("hold_taken"))["dropped"] == []
        first_ns = worker.channel.in_flight[0].started_ns
        assert first_ns > began_ns
        script.say("resumed")
        script.answer(batch)
        assert (await asked.reply).status == 200

    play(scene)


def test_breakpoints_hold_only_while_a_version_serves_and_nobody_else_is_held() -> None:
    async def scene(stage: Stage) -> None:
        version = stage.version(workers=2)
        starting = asyncio.ensure_future(version.start(lambda text: None))
        await stage.started(2)
        await starting
        one, two = stage.scripts
        assert one.spec["breakpoints"] is two.spec["breakpoints"] is True
        assert [(await script.told("breakpoints"))["on"] for script in (one, two)] == [False, False]
        version.serve()
        assert [(await script.told("breakpoints"))["on"] for script in (one, two)] == [True, True]
        version.submit(asked := request())
        batch = await one.batch()
        one.say("held", request_ids=[asked.request_id], **HELD)
        assert (await two.told("breakpoints"))["on"] is False
        one.say("resumed")
        one.answer(batch)
        assert (await two.told("breakpoints"))["on"] is True
        draining = asyncio.ensure_future(version.drain())
        assert [(await script.told("breakpoints"))["on"] for script in (one, two)] == [False, False]
        for script in (one, two):
            await script.told("stop")
            script.exit()
        await draining

    play(scene)


def test_a_held_worker_does_not_keep_others_from_its_gpu() -> None:
    async def scene(stage: Stage) -> None:
        one, [first] = await stage.serve()
        two, [second] = await stage.serve()
        one.submit(held := request())
        two.submit(other := request())
        batch = await first.batch()
        assert two.batcher.waiting == 1
        first.say("held", request_ids=[held.request_id], **HELD)
        second.answer(await second.batch())
        assert (await other.reply).status == 200
        first.say("resumed")
        await until(lambda: stage.slots.in_flight("cuda:0") == 1)
        two.submit(waits := request())
        assert two.batcher.waiting == 1
        first.answer(batch)
        second.answer(await second.batch())
        assert (await waits.reply).status == 200
        await until(lambda: stage.slots.in_flight("cuda:0") == 0)

    play(scene, gpus=1)


def test_a_spent_worker_is_replaced_when_its_debugger_left_and_that_is_no_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "LINGER_S", 0.0)

    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve()
        [worker] = version.crew.workers
        version.crew.wish(worker, "debugpy")
        standin = await stage.started(2)
        assert await version.crew.has_standin()
        version.crew.answered(worker)
        script.say("debugger", who="Ada", kind="debugpy", since_s=100.0)
        script.say("spent", text="debugpy traced it")
        await until(lambda: worker.spent)
        assert worker.state is WorkerState.READY
        assert worker.is_time_still
        script.say("debugger", who=None, kind=None)
        await script.told("stop")
        script.exit()
        await until(lambda: len(stage.scripts) == 3)
        version.crew.review()
        assert version.crew.standin is not None, "it stays until the new process is ready"
        stage.scripts[2].say("ready")
        await standin.told("stop")
        assert worker.state is WorkerState.READY
        assert worker.pid == stage.scripts[2].pid
        assert (worker.restarts, worker.spent, worker.is_time_still) == (0, None, False)

    play(scene)


def test_a_stand_in_comes_once_holds_at_no_breakpoint_and_leaves_after_the_last_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "LINGER_S", 0.0)

    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve()
        version.submit(asked := request())
        batch = await script.batch()
        script.say("held", request_ids=[asked.request_id], **HELD)
        standin = await stage.started(2)
        assert (standin.spec["breakpoints"], standin.spec["worker_index"]) == (False, 1)
        await until(lambda: version.is_ready)
        assert [worker.role for worker in version.crew.everyone] == ["worker", "stand-in"]
        script.say("resumed")
        script.answer(batch)
        await standin.told("stop")
        standin.exit()
        await until(lambda: [worker.role for worker in version.crew.everyone] == ["worker"])
        assert len(stage.scripts) == 2

    play(scene)


def test_a_stand_in_that_cannot_start_is_not_tried_again_for_the_same_hold() -> None:
    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve()
        version.submit(asked := request())
        batch = await script.batch()
        script.say("held", request_ids=[asked.request_id], **HELD)
        await until(lambda: len(stage.scripts) == 2)
        stage.scripts[1].say("failed", error="no memory is left", traceback="")
        stage.scripts[1].exit(3 << 8)
        await until(lambda: version.crew.standin is None)
        version.crew.review()
        assert len(stage.scripts) == 2
        assert version.is_held
        script.say("resumed")
        script.answer(batch)
        assert (await asked.reply).status == 200

    play(scene)


def test_a_debugger_that_never_attaches_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "LINGER_S", 0.0)
    monkeypatch.setattr(crew, "ATTACH_WITHIN_S", 0.0)

    async def scene(stage: Stage) -> None:
        version, [_] = await stage.serve()
        [worker] = version.crew.workers
        version.crew.wish(worker, "stop")
        standin = await stage.started(2)
        assert await version.crew.has_standin()
        assert version.crew.preferred is None
        version.crew.answered(worker)
        await standin.told("stop")
        starting = asyncio.ensure_future(version.crew.start_replay(Failure("ab-1", "no good", b"\0\0", b"", 0, None)))
        replay = await stage.started(3)
        version.crew.answered(await starting)
        await replay.told("stop")

    play(scene)


def test_a_debugger_that_waits_for_a_request_is_preferred_until_it_leaves() -> None:
    async def scene(stage: Stage) -> None:
        version, scripts = await stage.serve(workers=3)
        worker = version.crew.workers[2]
        version.crew.wish(worker, "stop")
        version.crew.answered(worker)
        scripts[2].say("debugger", who="Ada", kind="pdb", since_s=100.0)
        await until(lambda: version.crew.preferred is worker)
        version.submit(asked := request())
        scripts[2].answer(await scripts[2].batch())
        assert (await asked.reply).status == 200
        scripts[2].say("debugger", who=None, kind=None)
        await until(lambda: version.crew.preferred is None)
        version.submit(asked := request())
        scripts[0].answer(await scripts[0].batch())
        assert (await asked.reply).status == 200

    play(scene)


def test_a_start_that_is_held_has_no_time_out_and_then_has_the_rest_of_its_time() -> None:
    async def scene(stage: Stage) -> None:
        version = stage.version(start_timeout_s=0.2)
        starting = asyncio.ensure_future(version.start(lambda text: None))
        await until(lambda: stage.scripts)
        [script] = stage.scripts
        script.say("held", request_ids=[], **HELD)
        [worker] = version.crew.workers
        await until(lambda: worker.state is WorkerState.HELD)
        since = time.monotonic()
        await until(lambda: time.monotonic() - since > 0.4)
        assert not worker.is_hung
        script.say("resumed")
        await until(lambda: worker.state is WorkerState.STARTING)
        await until(lambda: worker.was_killed)
        script.exit(signal.SIGKILL)
        with pytest.raises(StartError, match="start_timeout_s"):
            await starting

    play(scene)


def test_failing_requests_are_kept_with_what_the_handler_said() -> None:
    async def scene(stage: Stage) -> None:
        version, [script] = await stage.serve()
        version.submit(asked := request())
        batch = await script.batch()
        script.say("handler_error", request_ids=[asked.request_id], error="ValueError: no good", traceback="")
        script.answer(batch, 500)
        assert (await asked.reply).status == 500
        failure = stage.failures.newest
        assert failure is not None
        assert (failure.error, failure.body, failure.worker) == ("ValueError: no good", b"1", 0)
        replayed = OwnRequest(failure.meta, failure.body, is_direct=True, is_replay=True)
        version.submit_to(version.crew.workers[0], replayed)
        script.answer(await script.batch(), 500)
        assert (await replayed.reply).status == 500
        assert len(stage.failures) == 1, "a replay that fails again is no new failure"

    play(scene)
