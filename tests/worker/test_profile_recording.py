"""One recording in this process: when it is over, and what a GPU adds to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nbserve.handler import Context, Handler
from nbserve.worker.decode import decode_row
from nbserve.worker.profile import recording as module
from nbserve.worker.profile.recording import Order, Recording
from nbserve.worker.profile.tracer import Tracer
from nbserve.worker.runner import Runner
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.stages import pipeline_of
from tests.worker.conftest import batch_of


class Plain(Handler):
    def handle(self, requests: list[Any], context: Context) -> list[Any]:
        torch.ones(2).sum()
        return requests


@pytest.fixture
def runner(context: Context) -> Runner:
    handler = Plain()
    handler.context = context
    return Runner(pipeline_of(handler), context, decode_row, handler=handler)


def recorded(runner: Runner, folder: Path, **order: Any) -> Recording:
    """A recording with one batch in it."""
    recording = Recording(Order("one", folder, **order), WorkerSpec("b", "e", "1"), [Runner.run.__code__])
    assert recording.start(runner)
    recording.run(runner, batch_of(b"1"))
    return recording


def left(recording: Recording) -> dict[str, Any]:
    recording.stop()
    recording.write()
    return dict(recording.result())


@pytest.mark.parametrize(
    ("order", "is_due"), [({}, False), ({"batches": 2}, False), ({"batches": 1}, True), ({"seconds": 0.0}, True)]
)
def test_it_is_due_with_the_last_batch_or_when_time_is_over(
    runner: Runner, tmp_path: Path, order: dict[str, Any], is_due: bool
) -> None:
    recording = recorded(runner, tmp_path, **order)
    assert recording.is_due() is is_due
    assert left(recording)["batches"] == [1]


def test_it_ends_before_it_fills_the_memory(runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([1 << 30, 4 << 30])
    monkeypatch.setattr(module, "_rss_bytes", lambda: next(sizes))
    recording = recorded(runner, tmp_path)
    assert recording.is_due()
    result = left(recording)
    assert "grew by more than 2 GiB while it recorded: the recording ends after 1 batches" in result["error"]
    assert Path(result["trace"]).stat().st_size > 0


def test_to_stop_it_twice_is_no_mistake(runner: Runner, tmp_path: Path) -> None:
    recording = recorded(runner, tmp_path, memory=True)
    recording.stop()
    ended = recording.result()["ended_ns"]
    assert left(recording)["ended_ns"] == ended


def test_what_is_not_known_of_an_order_is_left_out() -> None:
    order = Order.from_json({"op": "profile", "id": "a", "directory": "/x", "batches": None, "seconds": 3, "new": 1})
    assert order == Order("a", Path("/x"), seconds=3)


@pytest.mark.parametrize(("device", "wanted"), [("cpu", None), ("cuda:1", "cuda")])
def test_a_gpu_is_recorded_where_the_worker_has_one(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: str | None
) -> None:
    asked: list[dict[str, Any]] = []

    class Profile:
        def __init__(self, **options: Any) -> None:
            asked.append(options)

        def __enter__(self) -> None:
            raise RuntimeError("not now")

    monkeypatch.setattr(torch.autograd.profiler, "profile", Profile)
    tracer = Tracer(shapes=True, memory=False, stacks=False, device=device)
    with pytest.raises(RuntimeError, match="not now"):
        tracer.start()
    assert asked[0].get("use_device") == wanted
    assert (asked[0]["use_kineto"], asked[0]["record_shapes"]) == (True, True)


def test_a_profiler_that_does_not_start_is_an_error_of_the_recording(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUPTI is busy")

    monkeypatch.setattr(torch.autograd.profiler, "_enable_profiler", fails)
    result = left(recorded(runner, tmp_path))
    assert result["error"] == "torch's profiler did not start: RuntimeError: CUPTI is busy"
    assert (result["trace"], result["batches"]) == (None, [1])
    assert Path(result["samples"]).exists()
    monkeypatch.undo()
    assert left(recorded(runner, tmp_path))["error"] is None
