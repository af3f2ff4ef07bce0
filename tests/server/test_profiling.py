"""Recordings as the server keeps them: who records, for how long, and what is left when workers do not play along."""

from __future__ import annotations

import asyncio
import dataclasses
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nbserve import wire
from nbserve.errors import BadRequest, ConfigError, Conflict, NotFound, Unavailable
from nbserve.server import profiling
from nbserve.server.profiling import Recordings, Wish, startup_batches, startup_of
from nbserve.server.recording import Order, Recording
from nbserve.server.version import Version
from tests.server.stage import HELD, Script, Stage, play, recorded, request, until

Scene = Callable[[Stage, Recordings], Awaitable[None]]


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., None]:
    """Play a scene with recordings below `tmp_path`."""

    def run(scene: Scene, startup_batches: int | None = None) -> None:
        play(lambda stage: scene(stage, Recordings(lambda: tmp_path, 4, startup_batches)))

    return run


async def begun(recording: Recording, *scripts: Script) -> None:
    for script in scripts:
        assert (await script.told("profile"))["id"] == recording.id
        script.say("profiling", id=recording.id)
    await recording.begun()


async def answered(version: Version, *scripts: Script) -> list[int]:
    """Each worker answers a batch of one; gives their numbers."""
    requests = [request() for _ in scripts]
    numbers = []
    for asked, script in zip(requests, scripts, strict=True):
        version.submit(asked)
        batch = await script.batch()
        script.answer(batch, stamps=wire.Stamps(*[time.monotonic_ns()] * 5))
        numbers.append(batch.batch_id)
        await asked.reply
    return numbers


def spans_of(recording: Recording) -> list[Any]:
    return [span for chunk in recording.spans() for span in chunk]


async def done(recording: Recording) -> None:
    while not await recording.is_done_within(5):
        pass


def test_a_recording_has_the_worker_s_files_and_the_requests_meanwhile(record, tmp_path):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, [script] = await stage.serve(workers=1, max_batch_size=4)
        await answered(version, script)
        recording = await recordings.start(version, Wish(batches=2, stacks=True, shapes=False))
        order = await script.told("profile")
        assert (order["batches"], order["stacks"], order["memory"], order["shapes"]) == (2, True, False, False)
        folder = Path(order["directory"])
        assert folder.parent == tmp_path / "profiles"
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        assert not recording.parts[0].begun.done()
        script.say("profiling", id=recording.id)
        await recording.begun()
        started_ns = time.monotonic_ns()
        batches = [*await answered(version, script), *await answered(version, script)]
        assert recording.batches == 2
        assert not await recording.is_done_within(0)
        script.say("profiled", id=recording.id, recording=recorded(script, batches, started_ns=started_ns))
        await done(recording)
        await answered(version, script)
        whole = recording.as_object()
        assert (whole["endpoint"], whole["version"], whole["cores"]) == ("h", "1234", 4)
        assert whole["settings"]["max_batch_size"] == 4
        assert whole["workers"][0]["trace"] == "w0.trace.json"
        assert [span["batch_id"] for span in spans_of(recording)] == batches, "not those before or after it"
        assert version.crew.workers[0].recording is None

    record(scene)


def test_a_worker_that_writes_a_large_trace_is_not_taken_for_hung_nor_given_batches(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, scripts = await stage.serve(workers=2)
        first, second = version.crew.workers
        recording = await recordings.start(version, Wish(batches=1))
        await begun(recording, scripts[0])
        version.submit(ahead := request())
        batch = await scripts[0].batch()
        scripts[0].say("writing", id=recording.id)
        await until(lambda: first.is_writing)
        assert first.is_time_still
        assert not second.is_time_still
        for _ in range(2):
            version.submit(other := request())
            scripts[1].answer(await scripts[1].batch())
            await other.reply
        assert first.in_flight == 1
        now_ns = time.monotonic_ns()
        scripts[0].say("profiled", id=recording.id, recording=recorded(scripts[0], []))
        await done(recording)
        assert first.busy_since_ns >= now_ns, "its time-out begins when it can begin"
        assert not first.is_time_still
        scripts[0].answer(batch)
        await ahead.reply

    record(scene)


def test_what_waits_while_the_only_worker_writes_goes_on_then(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, [script] = await stage.serve()
        recording = await recordings.start(version, Wish(batches=1))
        await begun(recording, script)
        script.say("writing", id=recording.id)
        await until(lambda: version.crew.workers[0].is_writing)
        version.submit(waits := request())
        await asyncio.sleep(0)
        assert version.crew.workers[0].in_flight == 0
        script.say("profiled", id=recording.id, recording=recorded(script, []))
        script.answer(await script.batch())
        await waits.reply

    record(scene)


def test_all_stop_when_the_first_has_its_batches(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, scripts = await stage.serve(workers=2)
        recording = await recordings.start(version, Wish(batches=1, all_workers=True))
        await begun(recording, *scripts)
        batches = await answered(version, scripts[0])
        scripts[0].say("profiled", id=recording.id, recording=recorded(scripts[0], batches))
        assert (await scripts[1].told("profile_stop"))["id"] == recording.id
        scripts[1].say("profiled", id=recording.id, recording=recorded(scripts[1], []))
        await done(recording)
        assert [worker["index"] for worker in recording.as_object()["workers"]] == [0, 1]

    record(scene)


def test_all_stop_when_the_first_has_its_batches_though_something_is_missing(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, scripts = await stage.serve(workers=2)
        recording = await recordings.start(version, Wish(batches=1, all_workers=True))
        await begun(recording, *scripts)
        scripts[0].say("profiled", id=recording.id, recording=recorded(scripts[0], [1], error="no Python stacks"))
        assert (await scripts[1].told("profile_stop"))["id"] == recording.id

    record(scene)


def test_the_clock_stops_it(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, [script] = await stage.serve()
        recording = await recordings.start(version, Wish(seconds=0.01))
        await begun(recording, script)
        recording.stop_in(0.01)
        assert (await script.told("profile_stop"))["id"] == recording.id

    record(scene)


def test_what_two_versions_answer_is_told_apart(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        old, [before] = await stage.serve()
        new, [after] = await stage.serve()
        new.around = dataclasses.replace(new.around, spans=old.spans)
        recording = await recordings.start(new, Wish())
        await begun(recording, after)
        await answered(old, before)
        batches = await answered(new, after)
        after.say("profiled", id=recording.id, recording=recorded(after, batches))
        await done(recording)
        assert (recording.batches, len(spans_of(recording))) == (1, 1), "both have a worker 0"
        assert len(old.spans) == 2

    record(scene)


def test_a_worker_that_dies_ends_its_part_and_says_why(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, scripts = await stage.serve(workers=2)
        recording = await recordings.start(version, Wish(all_workers=True))
        await begun(recording, *scripts)
        scripts[0].exit(status=11)
        await until(recording.parts[0].done.done)
        assert not recording.is_done, "the other goes on"
        scripts[1].say("profiled", id=recording.id, recording=recorded(scripts[1], []))
        await done(recording)
        died, lived = recording.as_object()["workers"]
        assert died["error"] == (
            "worker 0 ended while it recorded: crashed with SIGSEGV; the lines before this one show where"
        )
        assert (died["trace"], died["pid"], lived["error"]) == (None, scripts[0].pid, None)

    record(scene)


def test_a_worker_that_dies_before_it_records_is_not_waited_for(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, [script] = await stage.serve()
        recording = await recordings.start(version, Wish())
        script.exit(status=9)
        await recording.begun()
        assert recording.is_done

    record(scene)


def test_a_debugger_that_holds_the_worker_ends_its_part(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, [script] = await stage.serve()
        recording = await recordings.start(version, Wish())
        await begun(recording, script)
        version.submit(asked := request())
        batch = await script.batch()
        script.say("held", request_ids=[asked.request_id], **HELD)
        await done(recording)
        [part] = recording.as_object()["workers"]
        assert part["error"].startswith("worker 0 was held at cell 1, line 7 in preprocess")
        with pytest.raises(Conflict, match=r"worker 0 of h is held at cell 1, line 7 .*: let it go on"):
            await recordings.start(version, Wish(worker=0))
        await script.told("profile_stop")
        script.say("resumed")
        script.say("profiled", id=recording.id, recording=recorded(script, []))
        script.answer(batch)
        await asked.reply
        assert recording.as_object()["workers"] == [part], "what comes late is not wanted any more"

    record(scene)


def test_a_version_that_is_replaced_hands_over_what_it_has(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, [script] = await stage.serve()
        recording = await recordings.start(version, Wish())
        await begun(recording, script)
        draining = asyncio.ensure_future(version.drain())
        await script.told("profile_stop")
        script.say("profiled", id=recording.id, recording=recorded(script, []))
        await script.told("stop")
        script.exit()
        await draining
        await done(recording)
        [part] = recording.as_object()["workers"]
        assert (part["trace"], part["error"]) == (
            "w0.trace.json",
            "worker 0 was dismissed while it recorded: its version was replaced, stops, or needs fewer workers",
        )

    record(scene)


def test_a_worker_that_leaves_without_a_word_is_not_waited_for(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, scripts = await stage.serve(workers=2)
        recording = await recordings.start(version, Wish(worker=1))
        await begun(recording, scripts[1])
        fewer = asyncio.ensure_future(version.configure(version.config.changed({"workers": 1})))
        await scripts[1].told("stop")
        scripts[1].exit()
        await fewer
        await done(recording)
        assert recording.as_object()["workers"][0]["error"].startswith("worker 1 was dismissed while it recorded")

    record(scene)


def test_what_nobody_wants_is_stopped_and_removed(record, tmp_path):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, [script] = await stage.serve()
        recording = await recordings.start(version, Wish())
        await begun(recording, script)
        recording.give_up()
        assert (await script.told("profile_stop"))["id"] == recording.id
        (recording.directory / "w0.trace.json").touch()
        again = asyncio.ensure_future(recordings.start(version, Wish()))
        await asyncio.sleep(0)
        assert not again.done(), "the worker still writes"
        script.say("profiled", id=recording.id, recording=recorded(script, []))
        await begun(await again, script)
        assert list((tmp_path / "profiles").iterdir()) == [(await again).directory]

    record(scene)


def test_the_server_s_end_is_told_to_who_waits(record, tmp_path):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, [script] = await stage.serve()
        recording = await recordings.start(version, Wish())
        waiting = asyncio.ensure_future(recording.begun())
        await script.told("profile")
        recordings.close()
        with pytest.raises(Unavailable, match="the server stopped while it recorded"):
            await waiting
        with pytest.raises(Unavailable):
            await recording.is_done_within(0)

    record(scene)


def test_who_records_already_or_does_not_serve_is_refused(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, scripts = await stage.serve(workers=2)
        await begun(await recordings.start(version, Wish(worker=1)), scripts[1])
        for wish in (Wish(worker=1), Wish(all_workers=True)):
            with pytest.raises(Conflict, match="worker 1 of h records already: wait until it is done"):
                await recordings.start(version, wish)
        with pytest.raises(NotFound, match="h has no worker 7; there are: 0, 1"):
            await recordings.start(version, Wish(worker=7))
        scripts[0].exit(status=9)
        await until(lambda: not version.crew.workers[0].is_serving)
        with pytest.raises(Unavailable, match="worker 0 of h does not serve now"):
            await recordings.start(version, Wish(worker=0))
        with pytest.raises(Conflict):
            await recordings.start(version, Wish())
        await stage.started(3)
        await until(lambda: version.crew.workers[0].is_serving)
        assert (await recordings.start(version, Wish())).parts[0].worker.index == 0

    record(scene)


def test_a_held_worker_is_passed_over_when_any_will_do(record):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, scripts = await stage.serve(workers=2)
        scripts[0].say("held", request_ids=[], **HELD)
        await until(lambda: version.crew.workers[0].hold is not None)
        assert (await recordings.start(version, Wish())).parts[0].worker.index == 1
        with pytest.raises(Conflict, match="worker 0 of h is held"):
            await recordings.start(version, Wish(all_workers=True))

    record(scene)


def test_the_start_is_recorded_once_for_each_worker(record, tmp_path, monkeypatch):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version = stage.version(workers=2)
        with pytest.raises(NotFound, match="set NBSERVE_PROFILE=1"):
            startup_of(version)
        version.around = dataclasses.replace(version.around, profile=recordings.startup_order)
        starting = asyncio.ensure_future(version.start(lambda text: None))
        await stage.started(2)
        await starting
        version.serve()
        orders = [script.spec["profile"] for script in stage.scripts]
        assert orders[0] == orders[1]
        assert (orders[0]["id"], orders[0]["batches"]) == ("startup", 7)
        recording = startup_of(version)
        assert orders[0]["directory"] == str(recording.directory)
        with pytest.raises(Conflict, match="worker 0 of h records already since it started"):
            await recordings.start(version, Wish())
        stage.scripts[0].exit(status=9)
        await stage.started(3)
        assert stage.scripts[2].spec["profile"] is None, "a worker that is started again is none that starts"
        stage.scripts[1].say("profiled", id="startup", recording=recorded(stage.scripts[1], []))
        await done(recording)
        recording.hand_over()
        with pytest.raises(NotFound, match="handed out already"):
            startup_of(version)
        with pytest.raises(NotFound, match="handed out already"):
            recording.hand_over()

    record(scene, startup_batches=7)


def test_recording_the_start_ends_with_the_time_too(record, monkeypatch):
    monkeypatch.setattr("nbserve.server.version.STARTUP_S", 0.01)

    async def scene(stage: Stage, recordings: Recordings) -> None:
        version = stage.version()
        version.around = dataclasses.replace(version.around, profile=recordings.startup_order)
        starting = asyncio.ensure_future(version.start(lambda text: None))
        script = await stage.started(1)
        await starting
        version.serve()
        assert (await script.told("profile_stop"))["id"] == "startup"

    record(scene, startup_batches=50)


def test_leftovers_go_at_the_next_recording(record, tmp_path, monkeypatch):
    async def scene(stage: Stage, recordings: Recordings) -> None:
        version, [script] = await stage.serve()
        folders = []
        for _ in range(3):
            recording = await recordings.start(version, Wish())
            await begun(recording, script)
            script.say("profiled", id=recording.id, recording=recorded(script, []))
            await done(recording)
            recording.hand_over()
            folders.append(recording.directory)
            assert recording.directory.is_dir(), "it is the client's"
        assert all(folder.is_dir() for folder in folders), "their clients may be reading still"
        monkeypatch.setattr(profiling, "KEPT_S", -1.0)
        last = await recordings.start(version, Wish())
        assert list((tmp_path / "profiles").iterdir()) == [last.directory]

    record(scene)


@pytest.mark.parametrize(
    ("message", "wish"),
    [
        ({}, Wish(batches=50, seconds=10.0)),
        ({"batches": None, "seconds": None}, Wish(batches=50, seconds=10.0)),
        ({"batches": 3}, Wish(batches=3)),
        ({"seconds": 2, "worker": 1, "memory": True}, Wish(seconds=2, worker=1, memory=True)),
        ({"all": True, "stacks": True, "shapes": False}, Wish(50, 10.0, all_workers=True, stacks=True, shapes=False)),
    ],
)
def test_a_wish_has_an_end(message: dict[str, Any], wish: Wish) -> None:
    assert Wish.of_json(message) == wish


def test_an_order_says_what_the_wish_says() -> None:
    assert Wish(batches=3, stacks=True, memory=True, shapes=False).order == Order(3, True, True, False)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"batches": 0}, "batches is 0; it takes a whole number from 1, or null"),
        ({"batches": True}, "batches is True"),
        ({"batches": "all"}, "batches is 'all'"),
        ({"seconds": -1}, "seconds is -1; it takes a number from 0.001"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"worker": 1.5}, "worker is 1.5"),
        ({"all": 1}, "all is 1; it takes true or false"),
    ],
)
def test_a_wrong_wish_is_refused_by_name(message: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        Wish.of_json(message)


@pytest.mark.parametrize(
    ("text", "batches"), [("", None), ("0", None), ("false", None), ("1", 50), ("TRUE", 50), ("200", 200)]
)
def test_the_environment_says_whether_starts_are_recorded(text, batches, monkeypatch):
    monkeypatch.setenv("NBSERVE_PROFILE", text)
    assert startup_batches() == batches


def test_an_environment_that_says_neither_is_refused(monkeypatch):
    monkeypatch.setenv("NBSERVE_PROFILE", "often")
    with pytest.raises(ConfigError, match="NBSERVE_PROFILE is 'often'; it takes 1, or for how many batches"):
        startup_batches()
