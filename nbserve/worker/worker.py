"""The life of a worker: load the handler, say ready, run batches until told to stop. Runs in the worker."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from nbserve import wire
from nbserve.bundle.load import load_handler
from nbserve.errors import FailedInDebugger
from nbserve.handler import Handler
from nbserve.worker.channel import Channel
from nbserve.worker.context import context_of
from nbserve.worker.debug.debugger import Debugger
from nbserve.worker.decode import decode_row
from nbserve.worker.metrics import UserMetrics
from nbserve.worker.process import set_threads
from nbserve.worker.profile.recorder import Recorder
from nbserve.worker.runner import HANDLER_ERRORS, Runner
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.stages import pipeline_of
from nbserve.worker.torchserve import runner_of_torchserve
from nbserve.worker.tracebacks import summary_of, traceback_of
from nbserve.worker.tuning.tuning import prepare, tune

STOPPED = 0
CANNOT_START = 3
METRICS_INTERVAL_S = 0.25


class Worker:
    """One handler behind one channel. Everything happens in the main thread, batch after batch."""

    def __init__(self, sock: socket.socket, spec: WorkerSpec) -> None:
        self._channel = Channel(sock)
        self._spec = spec
        self._metrics = UserMetrics()
        self._metrics_sent_s = 0.0
        self._debugger = Debugger(self._channel, spec, CALLS)
        self._recorder = Recorder(self._channel, spec, self._debugger, SAMPLED)

    def run(self) -> int:
        """Live; gives the exit code: STOPPED or CANNOT_START."""
        self._debugger.start()
        try:
            self._recorder.start_up()
            runner = self._load()
            if runner is None:
                return CANNOT_START
            self._serve(runner)
        except (BrokenPipeError, ConnectionResetError):
            # The server is gone, and with it everybody who waits for an answer.
            pass
        finally:
            self._recorder.close()
            self._debugger.stop()
        return STOPPED

    def _load(self) -> Runner | None:
        began = time.monotonic()
        try:
            runner = start_handler(self._spec, self._metrics)
        except (*HANDLER_ERRORS, FailedInDebugger) as error:
            self._channel.send_message(
                {"event": "failed", "error": summary_of(error), "traceback": traceback_of(error)}
            )
            return None
        self._recorder.serve(runner)
        self._channel.send_message({"event": "ready", "pid": os.getpid(), "init_s": time.monotonic() - began})
        self._debugger.serve(runner)
        return runner

    def _serve(self, runner: Runner) -> None:
        while (frame := self._next_frame()) is not None:
            kind, count, payload = frame
            if kind == wire.BATCH:
                self._run(runner, wire.decode_batch(count, payload))
            elif kind == wire.CONTROL and not self._obey(runner, wire.decode_message(payload)):
                break
        self._send_metrics()

    def _run(self, runner: Runner, batch: wire.Batch) -> None:
        recorder = self._recorder if self._recorder.is_on else None
        outcome = runner.run(batch) if recorder is None else recorder.run(runner, batch)
        for event in outcome.events:
            self._channel.send_message(event)
        self._channel.send(wire.encode_results(batch.batch_id, outcome.stamps, outcome.results))
        if self._debugger.is_on:
            self._debugger.batch_done()
        if recorder is not None:
            recorder.batch_done()

    def _obey(self, runner: Runner, message: dict[str, Any]) -> bool:
        """Do what the server says; False when it says stop."""
        if message["op"] == "configure":
            runner.isolate_errors = message["isolate_errors"]
            set_threads(message["threads"])
        self._debugger.obey(message)
        self._recorder.obey(message, runner)
        return bool(message["op"] != "stop")

    def _next_frame(self) -> tuple[int, int, memoryview] | None:
        """The next frame; news about metrics go out first, as soon as they are due."""
        if self._metrics.has_news:
            due_in_s = self._metrics_sent_s + METRICS_INTERVAL_S - time.monotonic()
            if due_in_s <= 0 or self._channel.is_quiet_for(due_in_s):
                self._send_metrics()
        return self._channel.receive()

    def _send_metrics(self) -> None:
        self._metrics_sent_s = time.monotonic()
        if changes := self._metrics.take_changes():
            self._channel.send_message(changes)


def start_handler(spec: WorkerSpec, metrics: UserMetrics) -> Runner:
    """Load the bundle's handler, initialize it and tune it as the settings say; raises whatever that raises."""
    if spec.device.startswith("cuda"):
        import torch

        torch.cuda.set_device(spec.device)
    prepare(spec)
    runner = _initialized(load_handler(Path(spec.bundle))(), spec, metrics)
    tune(runner, spec, metrics)
    return runner


def _initialized(handler: Any, spec: WorkerSpec, metrics: UserMetrics) -> Runner:
    if not isinstance(handler, Handler):
        return runner_of_torchserve(handler, spec, metrics)
    context = handler.context = context_of(spec, metrics)
    handler.initialize(context)
    return Runner(
        pipeline_of(handler),
        context,
        decode_row,
        id_prefix=spec.id_prefix,
        isolate_errors=spec.isolate_errors,
        handler=handler,
    )


# The functions around the handler's own code.
CALLS = (Runner._call.__code__, start_handler.__code__)
SAMPLED = (Runner.run.__code__, start_handler.__code__)
