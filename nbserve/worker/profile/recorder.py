"""What a worker's main loop knows of recording: is it on, and what to do around a batch then. Runs in the worker."""

from __future__ import annotations

import os
import types
from collections.abc import Collection, Mapping
from typing import Any

from nbserve import wire
from nbserve.worker.channel import Channel
from nbserve.worker.debug.debugger import Debugger
from nbserve.worker.profile.recording import Order, Recording
from nbserve.worker.profile.tracer import record_nothing
from nbserve.worker.runner import Outcome, Runner
from nbserve.worker.spec import WorkerSpec


class Recorder:
    """Records when the server asks for it, one recording at a time. All of it happens in the main thread."""

    def __init__(
        self, channel: Channel, spec: WorkerSpec, debugger: Debugger, roots: Collection[types.CodeType]
    ) -> None:
        """`roots` are the functions around the handler's code."""
        self.is_on = False
        self._channel = channel
        self._spec = spec
        self._debugger = debugger
        self._roots = roots
        self._recording: Recording | None = None
        self._watches_forks = False

    def start_up(self) -> None:
        """Record from here on, before the handler is loaded, if the worker was started so."""
        if self._spec.profile is not None:
            self._start(self._spec.profile, None)

    def serve(self, runner: Runner) -> None:
        """The handler is loaded."""
        if self._recording is not None:
            self._recording.loaded(runner)

    def obey(self, message: Mapping[str, Any], runner: Runner) -> None:
        """What the server says about recordings."""
        if message["op"] == "profile":
            self._start(message, runner)
        elif message["op"] == "profile_stop" and self._recording is not None and self._recording.id == message["id"]:
            self._finish(self._recording)

    def run(self, runner: Runner, batch: wire.Batch) -> Outcome:
        assert self._recording is not None
        outcome = self._recording.run(runner, batch)
        self._recording.was_debugged |= self._debugger.is_on
        return outcome

    def batch_done(self) -> None:
        """After the answers of a recorded batch were sent."""
        if self._recording is not None and self._recording.is_due():
            self._finish(self._recording)

    def close(self) -> None:
        """The worker ends: nothing more is written."""
        if self._recording is not None:
            self._recording.stop()

    def _start(self, message: Mapping[str, Any], runner: Runner | None) -> None:
        if not self._watches_forks:
            self._watches_forks = True
            os.register_at_fork(after_in_child=record_nothing)
        order = Order.from_json(message)
        recording = Recording(order, self._spec, self._roots)
        if self._recording is not None:
            recording.errors.append(f"the worker is recording already, for {self._recording.id}")
        elif recording.start(runner):
            self._recording, self.is_on = recording, True
            self._channel.send_message({"event": "profiling", "id": order.id})
            return
        self._tell(recording)

    def _finish(self, recording: Recording) -> None:
        self._recording, self.is_on = None, False
        # Torch takes seconds to stop, too, when it has recorded much.
        self._channel.send_message({"event": "writing", "id": recording.id})
        recording.stop()
        recording.write()
        self._tell(recording)

    def _tell(self, recording: Recording) -> None:
        self._channel.send_message({"event": "profiled", "id": recording.id, "recording": recording.result()})
