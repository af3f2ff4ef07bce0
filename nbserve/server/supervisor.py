"""Keeps the workers of the server alive: starts, watches, restarts and stops them. Server process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from nbserve.errors import NbserveError, StartError
from nbserve.server.channel import Channel, InFlight, channel_pair
from nbserve.server.holds import Debugger, Hold
from nbserve.server.logbook import OutputPipe, logger
from nbserve.server.nursery_client import NurseryClient
from nbserve.server.ticket import Ticket
from nbserve.server.watch import Watch, sample_memory
from nbserve.server.worker import Worker
from nbserve.server.worker_state import TRANSITIONS, WorkerState, describe_exit

STOP_GRACE_S = 5.0
WRITE_GRACE_S = 25.0
LINGER_S = 2.0


class Supervisor:
    """Acts on what happens to workers; every change of a worker's state goes through `_move`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, nursery: NurseryClient) -> None:
        self._loop = loop
        self._nursery = nursery
        self._workers: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._batch_id = 0
        self._watch_all = Watch(loop, self._workers, self, self._spawn)

    def start(self, worker: Worker) -> None:
        """Start the worker's process; `worker.started` is done when it is ready, or has a StartError."""
        self._move(worker, WorkerState.STARTING)
        self._workers.add(worker)
        worker.begin()
        self._spawn(self._launch(worker))

    def send(self, worker: Worker, tickets: list[Ticket], now_ns: int, held_since_ns: int) -> None:
        """Give the worker a batch; `held_since_ns` is since when the policy kept it waiting."""
        if worker.state is WorkerState.READY:
            self._move(worker, WorkerState.BUSY)
        self._batch_id += 1
        worker.channel.send_batch(InFlight(self._batch_id, tickets, now_ns, now_ns, held_since_ns))

    def dump_stack(self, worker: Worker) -> None:
        """Have the worker write the stacks of its threads to its log, whatever it is doing."""
        self._signal(worker, signal.SIGUSR1)

    async def stop(self, worker: Worker) -> None:
        """Let the worker finish what it has, however long it is held at it, then end it; done when it is gone."""
        worker.is_leaving = True
        if worker.state is not WorkerState.DEAD:
            await self._drain(worker)
        await worker.ended.wait()
        self._workers.discard(worker)

    def end(self, worker: Worker) -> list[InFlight]:
        """Kill the worker now; gives the batches it had, which are the caller's to answer."""
        worker.is_leaving = True
        batches = list(worker.channel.in_flight)
        worker.channel.in_flight.clear()
        if worker.state not in (WorkerState.DEAD, WorkerState.DRAINING):
            self._move(worker, WorkerState.DRAINING)
        worker.channel.close()
        self.kill(worker)
        return batches

    def kill_all(self) -> None:
        """End all workers now, and what their handlers started."""
        for worker in self._workers:
            if worker.pid is not None and not worker.ended.is_set():
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(worker.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Stop watching; workers that are left end with the nursery."""
        self._watch_all.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _drain(self, worker: Worker) -> Coroutine[Any, Any, None]:
        """It takes no more from now on; what this gives waits until its process is gone."""
        if worker.state is not WorkerState.DRAINING:
            self._move(worker, WorkerState.DRAINING)
        if worker.ready_at_s is None:
            self.kill(worker)
        if worker.recording is not None:
            worker.recording.leaving()
        worker.channel.send({"op": "stop"})
        return self._await_end(worker, worker.channel, worker.ended)

    async def _await_end(self, worker: Worker, channel: Channel, ended: asyncio.Event) -> None:
        """Work in flight keeps its response time-out, guarded by the watch; then there is little left to wait for."""
        while channel.in_flight and not ended.is_set():
            await asyncio.sleep(0.02)
        # What it recorded is written before it ends.
        grace_s = STOP_GRACE_S if worker.recording is None else WRITE_GRACE_S
        try:
            await asyncio.wait_for(ended.wait(), grace_s)
        except asyncio.TimeoutError:
            logger.warning("%s did not stop within %g s; it is killed", worker, grace_s, extra=worker.who)
            self.kill(worker)

    async def _launch(self, worker: Worker) -> None:
        mine, theirs = channel_pair()
        log_read, log_write = os.pipe()
        try:
            await self._connect(worker, mine, log_read)
            spec = worker.owner.worker_spec(worker)
            worker.device, worker.threads = spec["device"], spec["threads"]
            worker.breakpoints, worker.debug_socket = spec["breakpoints"], spec["debug_socket"]
            fds = [theirs.fileno(), log_write]
            worker.pid = await self._nursery.start_worker(spec, fds, lambda status: self._exited(worker, status))
        except (NbserveError, asyncio.CancelledError) as error:
            # Whoever waits for this worker must not wait for ever.
            worker.start_error = error if isinstance(error, StartError) else StartError(str(error) or "cancelled")
            worker.channel.close()
            if not worker.ended.is_set():
                self._exited(worker, signal.SIGKILL)
        else:
            self._watch(worker)
        finally:
            theirs.close()
            os.close(log_write)

    def _watch(self, worker: Worker) -> None:
        worker.launched_ns = time.monotonic_ns()
        try:
            worker.process = psutil.Process(worker.pid)
        except psutil.NoSuchProcess:
            worker.process = None
        if worker.is_leaving:
            self.kill(worker)

    async def _connect(self, worker: Worker, mine: socket.socket, log_read: int) -> None:
        mine.setblocking(False)
        channel = worker.channel
        await self._loop.create_connection(lambda: channel, sock=mine)
        await self._loop.connect_read_pipe(lambda: OutputPipe(_line_logger(worker)), os.fdopen(log_read, "rb", 0))

    def worker_answered(self, worker: Worker) -> None:
        worker.batches += 1
        if not worker.in_flight and worker.state is WorkerState.BUSY:
            self._move(worker, WorkerState.READY)

    def worker_said(self, worker: Worker, event: dict[str, Any]) -> None:
        match event["event"]:
            case "ready" if worker.state is WorkerState.STARTING:
                self._got_ready(worker)
            case "failed":
                worker.start_error = StartError(event["error"], event["traceback"])
            case "held":
                self._hold(worker, event)
            case "resumed":
                self._resume(worker)
            case "debugger":
                self._attach(worker, Debugger.of_event(event))
            case "profiling" | "writing" | "profiled":
                self._hear_of_recording(worker, event)
            case "spent":
                worker.spent = event["text"]
                self._renew_if_spent(worker)
            case _:
                worker.owner.on_event(worker, event)

    def _hear_of_recording(self, worker: Worker, event: dict[str, Any]) -> None:
        """A large trace takes seconds to write: what was sent meanwhile begins after that, and others get the rest."""
        if worker.is_writing:
            worker.channel.begin_anew(time.monotonic_ns())
        worker.is_writing = event["event"] == "writing"
        if worker.recording is not None:
            worker.recording.hear(event)
        if not worker.is_writing:
            worker.owner.on_written()

    def _got_ready(self, worker: Worker) -> None:
        worker.ready_at_s = time.monotonic()
        sample_memory(worker)
        worker.has_served = True
        worker.is_renewing = False
        worker.backoff.failed_starts = 0
        self._move(worker, WorkerState.READY)
        if not worker.started.done():
            worker.started.set_result(None)
        worker.owner.on_ready(worker)

    def _hold(self, worker: Worker, event: dict[str, Any]) -> None:
        """It stopped at a breakpoint or a prompt: its time stands still, and others get what it has not begun."""
        self._resume_clocks(worker)
        worker.hold = Hold.of_event(event, worker.owner.id_prefix, time.time(), time.monotonic_ns())
        if worker.state in (WorkerState.STARTING, WorkerState.READY, WorkerState.BUSY):
            self._move(worker, WorkerState.HELD)
        ahead = worker.channel.take_back()
        worker.channel.send({"op": "hold_taken", "dropped": [batch.batch_id for batch in ahead]})
        if worker.recording is not None:
            worker.recording.held(f"worker {worker.index} was held at {worker.hold}")
        worker.owner.on_held(worker, ahead)

    def _resume(self, worker: Worker) -> None:
        self._resume_clocks(worker)
        worker.hold = None
        if worker.state is WorkerState.HELD and worker.ready_at_s is None:
            self._move(worker, WorkerState.STARTING)
        elif worker.state is WorkerState.HELD:
            self._move(worker, WorkerState.BUSY if worker.in_flight else WorkerState.READY)
        self._renew_if_spent(worker)
        worker.owner.on_resumed(worker)

    def _attach(self, worker: Worker, debugger: Debugger | None) -> None:
        """A debugger came, or left (None)."""
        if worker.hold is None and worker.is_time_still:
            worker.channel.begin_anew(time.monotonic_ns())
        worker.debugger = debugger
        self._renew_if_spent(worker)
        worker.owner.on_debugger(worker)

    def _resume_clocks(self, worker: Worker) -> None:
        """What the worker is at began later by the time it was held: time-outs and learned times do not see it."""
        if worker.hold is not None:
            held_ns = time.monotonic_ns() - worker.hold.since_ns
            worker.launched_ns += held_ns
            worker.channel.shift(held_ns)

    def _renew_if_spent(self, worker: Worker) -> None:
        """Replace a process that a debugger left unfit, after what it has: no crash, so no wait and no count."""
        if worker.spent is not None and worker.debugger is None and worker.is_serving:
            logger.info("%s is replaced: %s", worker, worker.spent, extra=worker.who)
            worker.is_renewing = True
            self._spawn(self._drain(worker))

    def channel_closed(self, worker: Worker) -> None:
        """The first sign of a death: what it had goes back at once, before the exit status is known."""
        if worker.state not in (WorkerState.DEAD, WorkerState.STARTING):
            self._move(worker, WorkerState.DEAD)
        self._hand_back(worker)
        if not worker.ended.is_set() and worker.pid is not None:
            self._loop.call_later(LINGER_S, self._kill_lingering, worker, worker.pid)

    def _hand_back(self, worker: Worker) -> None:
        batches = list(worker.channel.in_flight)
        worker.channel.in_flight.clear()
        worker.hold = worker.debugger = None
        if batches:
            worker.owner.on_lost(worker, batches, "response time-out" if worker.is_hung else "died")

    def _kill_lingering(self, worker: Worker, pid: int) -> None:
        """A process that closed its channel but lives on is of no use."""
        if worker.pid == pid:
            self.kill(worker)

    def _exited(self, worker: Worker, status: int) -> None:
        """The process was reaped; `status` is its wait status."""
        if worker.recording is not None:
            # That its files are complete may be the last that it said.
            worker.channel.read_rest()
        # A child of the handler may hold the socket open: then nobody else would close it, nor hand back what it had.
        worker.channel.close()
        if worker.state is not WorkerState.DEAD:
            self._move(worker, WorkerState.DEAD)
        self._hand_back(worker)
        was_ready = worker.ready_at_s is not None
        if not ((worker.is_leaving or worker.is_renewing) and status == 0):
            self._report(worker, describe_exit(status, worker.rss_bytes, worker.was_killed or worker.is_leaving))
        if not worker.started.done():
            error = worker.start_error or StartError(f"{worker} ended before it was ready: {worker.last_error}")
            worker.started.set_exception(error)
        worker.ended.set()
        worker.process = None
        if worker.recording is not None:
            worker.recording.ended()
        if worker.debug_socket is not None:
            Path(worker.debug_socket).unlink(missing_ok=True)
        worker.owner.on_ended(worker)
        if worker.is_leaving:
            return
        if worker.is_renewing and worker.spent is not None:
            self.start(worker)
        else:
            self._restart_later(worker, was_ready)

    def _report(self, worker: Worker, text: str) -> None:
        traceback = ""
        if worker.start_error is not None:
            text, traceback = f"could not start: {worker.start_error}", worker.start_error.traceback_text
        elif worker.is_hung:
            text = f"gave no answer for {worker.owner.config.response_timeout_s:g} s (response_timeout_s); replaced"
        worker.went_wrong(text, traceback)
        level = logger.info if worker.is_leaving or worker.is_renewing else logger.error
        level("%s %s", worker, text, extra=worker.who)

    def _restart_later(self, worker: Worker, was_ready: bool) -> None:
        if was_ready:
            assert worker.ready_at_s is not None
            delay_s: float | None = worker.backoff.died(time.monotonic() - worker.ready_at_s)
        else:
            delay_s = worker.backoff.failed_to_start()
        if delay_s is None:
            worker.is_given_up = True
            logger.error("worker %d failed to start too often; no more tries", worker.index, extra=worker.who)
            worker.owner.on_given_up()
        elif worker.has_served:
            self._loop.call_later(delay_s, self._restart, worker)

    def _restart(self, worker: Worker) -> None:
        if worker.is_leaving or worker.state is not WorkerState.DEAD:
            return
        worker.restarts += 1
        self.start(worker)

    def kill(self, worker: Worker) -> None:
        worker.was_killed = True
        self._signal(worker, signal.SIGKILL)

    def _signal(self, worker: Worker, number: signal.Signals) -> None:
        if worker.pid is not None and not worker.ended.is_set():
            try:
                os.kill(worker.pid, number)
            except ProcessLookupError:
                pass  # Reaped already; the nursery's message is on its way.

    def _move(self, worker: Worker, state: WorkerState) -> None:
        if state not in TRANSITIONS[worker.state]:
            raise RuntimeError(f"{worker} cannot go from {worker.state.name} to {state.name}")
        worker.state = state

    def _spawn(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _line_logger(worker: Worker) -> Callable[[str], None]:
    who = worker.who

    def log(line: str) -> None:
        logger.info("%s", line, extra=who)
        for on_line in worker.on_line:
            on_line(line)

    return log
