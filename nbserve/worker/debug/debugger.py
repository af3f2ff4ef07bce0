"""What a worker knows of its debugger: who is attached, where it is held, what goes on. Runs in the worker."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import types
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbserve.debugwire import Reason
from nbserve.errors import DebugError
from nbserve.worker.channel import Channel
from nbserve.worker.debug.agent import Agent
from nbserve.worker.debug.guard import COMPILED, Guard, is_compiled
from nbserve.worker.debug.holds import Acknowledgements, Hold
from nbserve.worker.debug.hooks import BreakpointHook, log
from nbserve.worker.debug.interrupts import Interrupts
from nbserve.worker.debug.last_error import LastError
from nbserve.worker.debug.session import Session
from nbserve.worker.debug.stacks import shown_file
from nbserve.worker.debug.worker_pdb import WorkerPdb
from nbserve.worker.runner import Runner
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.stages import Pipeline

if TYPE_CHECKING:
    from nbserve.worker.debug.editor import Editor

LEAVE_S = 0.3


class Debugger:
    """Between the worker's main loop, the agent's threads and the threads that stop. `is_on` asks for `batch_done`."""

    def __init__(self, channel: Channel, spec: WorkerSpec, calls: Collection[types.CodeType]) -> None:
        """`calls` are the functions around the handler's: a request is running where one of them is on the stack."""
        self.is_on = False
        self.breakpoints_on = spec.breakpoints
        self.hold_timeout_s = spec.hold_timeout_s
        self.errors = LastError(spec.id_prefix)
        self.session: Session | None = None
        self._spec = spec
        self._channel = channel
        self._calls = calls
        self._runner: Runner | None = None
        self._pipeline: Pipeline | None = None
        # Guards the session and the hold, and tells of their changes.
        self._changed = threading.Condition()
        self._hold: Hold | None = None
        self._acknowledgements = Acknowledgements(channel)
        self._main = threading.main_thread().ident or 0
        self._pid = os.getpid()
        self._interrupts = Interrupts(self)
        self._agent: Agent | None = None
        # What the handler's own code traces with, such as coverage, once it is initialized.
        self._tracer: Any = None

    # For the worker's main loop

    def start(self) -> None:
        """Be there for debuggers from here on, if the server runs with --debug. Called before user code is loaded."""
        if self._spec.debug_socket is None:
            BreakpointHook(None).install()
            return
        BreakpointHook(self).install()
        self._interrupts.install()
        os.register_at_fork(after_in_child=self._forget)
        self._agent = Agent(self, self._spec.debug_socket)
        self._agent.start()

    def stop(self) -> None:
        if self._agent is None or os.getpid() != self._pid:
            return
        self._agent.stop()
        if (session := self.session) is not None:
            failed_with = session.pdb.failed_with if session.pdb is not None else ""
            self.end(session, f"initialize has failed: {failed_with}" if failed_with else "the worker has ended")

    def serve(self, runner: Runner) -> None:
        """The handler is loaded: its batches run from here on."""
        if self._agent is None:
            return
        runner.on_failure = self.errors.keep
        self._tracer = sys.gettrace()
        with self._changed:
            self._runner, self._pipeline = runner, runner.pipeline
            session = self.session
        if session is not None:
            self._guard(session)
        if self.is_on:
            self._call_done("the handler has been initialized")

    def batch_done(self) -> None:
        """After a batch was answered: nothing of it is held, and nothing traced, but for an editor."""
        self._call_done("the request has been answered")

    def _call_done(self, text: str) -> None:
        session = self.session
        if session is None or session.editor is None:
            sys.settrace(self._tracer)
        self.leave()
        if session is not None and not self._is_held():
            self._session_done(session, text)
        self._acknowledgements.await_all()
        self._switch()

    def _session_done(self, session: Session, text: str) -> None:
        failed_with = ""
        if session.pdb is not None:
            session.pdb.let_go()
            failed_with, session.pdb.failed_with = session.pdb.failed_with, ""
        if session.batch_done():
            self.end(session, f"the request has failed: {failed_with}" if failed_with else text)
        elif session.verb == "interrupt" and session.pdb is not None:
            self.end(session, f"{text}: nothing is left to interrupt", "refused")

    def obey(self, message: dict[str, Any]) -> None:
        """What the server says about debugging."""
        if message["op"] == "hold_taken":
            self._acknowledgements.arrived()
        elif message["op"] == "breakpoints":
            self.breakpoints_on = message["on"]
        elif message["op"] == "configure":
            self.hold_timeout_s = message.get("hold_timeout_s", self.hold_timeout_s)

    # For the agent's threads

    def state(self) -> dict[str, Any]:
        with self._changed:
            hold, session = self._hold, self.session
        held = hold.told(self._spec.id_prefix) if hold is not None else None
        who = session.who if session is not None else None
        return {"worker": self._spec.worker_index, "held": held, "debugger": who}

    def editor(self, port: int) -> Editor:
        from nbserve.worker.debug.editor import Editor

        # The cells' texts go where the socket is: a folder of the user's alone, which ends with the server.
        return Editor(port, Path(self._spec.bundle), Path(self._spec.debug_socket or "").parent, self)

    def handler(self) -> Any:
        if self._runner is None:
            raise DebugError(f"worker {self._spec.worker_index} is still starting: its handler is being initialized")
        return self._runner.handler

    def begin(self, session: Session) -> None:
        """Make it the worker's debugger; raises DebugError where there is one."""
        with self._changed:
            # One that has just hung up may not be through with leaving.
            self._changed.wait_for(lambda: self.session is None, LEAVE_S)
            if self.session is not None:
                raise DebugError(self.session.described(self._spec.worker_index))
            self.session = session
            self.is_on = True
        self._tell({"event": "debugger", "who": session.who, "kind": session.kind, "since_s": session.since_s})

    def take(self, session: Session) -> None:
        """Give it the prompt: of the hold that there is, else of the next stop."""
        with self._changed:
            session.take_control(self)
            hold = self._hold
            session.has_stopped = hold is not None and session.verb != "stop"
            session.link.is_patient = hold is not None
            if hold is not None:
                session.link.send("held", **hold.told(self._spec.id_prefix))
            self._changed.notify_all()
        self._guard(session)

    def give_to(self, editor: Editor, session: Session) -> None:
        """Have the editor stop what it asks for from the next batch on."""
        session.editor = editor
        self._guard(session)

    def editor_connected(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def interrupt(self, session: Session) -> None:
        """Give it the prompt of the hold that there is, else have the main thread stop where it is."""
        if not self._is_held():
            self._interrupts.check()
        self.take(session)
        self.interrupt_again(session)

    def interrupt_again(self, session: Session) -> None:
        """Have the main thread stop, unless it has by now or this debugger has left."""
        if session is self.session and not self._is_held():
            self._interrupts.ask(session)

    def refuse_as_idle(self, session: Session) -> None:
        self.end(session, f"worker {self._spec.worker_index} is idle: no request is running", "refused")

    def end(self, session: Session, text: str, event: str = "ended") -> None:
        """The debugger left or has what it wanted: clear all and go on. Any thread, any number of times."""
        with self._changed:
            if self.session is not session:
                return
            self.session = None
            session.link.is_patient = False
            self._changed.notify_all()
            self._unguard()
            hold = self._hold if session.pdb is not None else None
        if hold is not None:
            self._release(hold)
        if (pdb := session.pdb or session.post_mortem) is not None:
            pdb.is_over = True
        if session.editor is not None:
            session.editor.close()
            self._tell({"event": "spent", "text": "debugpy has traced it"})
        session.link.send(event, text=text)
        session.link.hang_up()
        self._tell({"event": "debugger", "who": None, "kind": None})
        if pdb is not None:
            self._interrupts.cut_off(pdb)

    # For the threads that stop

    def why_no_breakpoint(self) -> str | None:
        """Why a breakpoint() is passed now; None: it is not."""
        session = self.session
        if os.getpid() != self._pid:
            return "this process was forked off the worker"
        if session is not None and session.pdb is not None:
            if session.pdb.prompting == threading.get_ident():
                return "it was reached from the debugger's own prompt"
            if session.has_stopped:
                return None
        return None if self.breakpoints_on else "breakpoints are off in this worker now"

    def breakpoint(self, frame: types.FrameType, header: str) -> None:
        """Hold at the line of a breakpoint() until a debugger let it go on, or nobody came."""
        session = self.session
        if session is not None and session.pdb is not None and session.pdb.is_stepping_in(frame):
            return
        if session is not None and session.editor is not None and session.can_stop:
            session.editor.stop_here(frame)
            return
        outer = sys.gettrace()
        sys.settrace(None)
        self.enter(frame, "breakpoint")
        session = self._await_debugger()
        if session is not None and session.editor is not None:
            session.editor.stop_here(frame)
            return
        if session is not None and session.pdb is not None:
            if is_compiled(frame):
                session.note(COMPILED)
            session.pdb.stop_at(frame, "breakpoint", header)
            return
        log(f"breakpoint() at {shown_file(frame.f_code.co_filename)}:{frame.f_lineno}: nobody attached, going on")
        sys.settrace(outer)

    def enter(self, frame: types.FrameType, reason: Reason) -> None:
        """This thread is held from here on; waits while another one is."""
        with self._changed:
            if self.is_held_here():
                return
            self._changed.wait_for(lambda: self._hold is None)
            hold = self._hold = Hold.at(frame, reason, self._request_ids())
            self.is_on = True
            self._acknowledgements.expect()
            session = self.session if self.session is not None and self.session.can_stop else None
            if session is not None:
                session.has_stopped = session.editor is None
                session.link.is_patient = True
        self._tell(hold.event(None if session is not None else self.hold_timeout_s))
        if session is not None:
            session.link.send("held", **hold.told(self._spec.id_prefix))

    def leave(self) -> None:
        """This thread goes on, if it was held."""
        hold = self._hold
        if hold is None or hold.thread != threading.get_ident():
            return
        self._release(hold)
        session = self.session
        if session is not None and not session.repeat and hold.thread != self._main and not self._is_running():
            self.end(session, "the thread goes on")

    def detach(self, pdb: WorkerPdb) -> None:
        session = self.session
        if session is not None and session.pdb is pdb:
            self.end(session, "detached")

    def call_of(self, frame: types.FrameType) -> types.FrameType:
        """The frame around the handler's, else the thread's first."""
        found = frame
        while not self.is_call(found) and found.f_back is not None:
            found = found.f_back
        return found

    def is_call(self, frame: types.FrameType) -> bool:
        return frame.f_code in self._calls

    def _await_debugger(self) -> Session | None:
        """Who takes the hold; None once it is over, so that nobody can take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._can_stop() or not self.is_held_here(), self.hold_timeout_s)
            if self._can_stop():
                return self.session
            is_over = self.is_held_here()
            if is_over:
                self._hold = None
                self._changed.notify_all()
        if is_over:
            self._tell({"event": "resumed"})
        return None

    def _can_stop(self) -> bool:
        return self.session is not None and self.session.can_stop

    def _release(self, hold: Hold) -> None:
        with self._changed:
            if self._hold is not hold:
                return
            self._hold = None
            session = self.session
            if session is not None:
                session.link.is_patient = False
            self._changed.notify_all()
        self._tell({"event": "resumed"})
        if session is not None and session.can_stop:
            session.link.send("resumed")

    def _is_held(self) -> bool:
        return self._hold is not None

    def is_held_here(self) -> bool:
        return self._hold is not None and self._hold.thread == threading.get_ident()

    def _request_ids(self) -> tuple[int, ...]:
        return self._runner.request_ids() if self._runner is not None and self._is_running() else ()

    def _is_running(self) -> bool:
        """Whether the main thread is in the handler now."""
        return self.is_call(self.call_of(sys._current_frames()[self._main]))

    def _guard(self, session: Session) -> None:
        """Have its stops met from the next call of the handler on."""
        with self._changed:
            runner = self._runner
            if runner is None or session is not self.session or runner.pipeline is not self._pipeline:
                return
            if session.pdb is not None:
                runner.pipeline = Guard(runner.pipeline, session, session.pdb)
            elif session.editor is not None:
                runner.pipeline = session.editor.traced(runner.pipeline)

    def _unguard(self) -> None:
        runner = self._runner
        if runner is not None and self._pipeline is not None:
            runner.pipeline = self._pipeline

    def _tell(self, event: dict[str, Any]) -> None:
        # A server that is gone is noticed by the main loop, and is no error of the user's.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.send_message(event)

    def _switch(self) -> None:
        with self._changed:
            self.is_on = self.session is not None or self._hold is not None

    def _forget(self) -> None:
        """In a process that the worker forked: nobody debugs it."""
        sys.settrace(None)
        session, self.session = self.session, None
        if session is not None and session.pdb is not None:
            session.pdb.is_over = True
        if self._agent is not None:
            self._agent.forget()
