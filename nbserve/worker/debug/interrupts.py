"""Brings a thread to a prompt, or out of what it evaluates, wherever it is. Runs in the worker."""

from __future__ import annotations

import ctypes
import signal
import threading
import types
from typing import TYPE_CHECKING

from nbserve.errors import DebugError
from nbserve.worker.debug.session import Session
from nbserve.worker.debug.stacks import innermost_file, is_ours
from nbserve.worker.debug.worker_pdb import WorkerPdb

if TYPE_CHECKING:
    from nbserve.worker.debug.debugger import Debugger

SIGNAL = signal.SIGUSR2
_PROMPT_FILE = WorkerPdb.interaction.__code__.co_filename


class Interrupts:
    """A signal to the main thread: Python runs its handler there at once, inside of sleeps and waits for locks too."""

    def __init__(self, debugger: Debugger) -> None:
        self._debugger = debugger
        self._main = threading.main_thread().ident or 0
        self._asking: Session | None = None
        self._gone: WorkerPdb | None = None

    def install(self) -> None:
        signal.signal(SIGNAL, self._on_signal)

    def check(self) -> None:
        """Raises DebugError where it cannot be done."""
        if signal.getsignal(SIGNAL) != self._on_signal:
            raise DebugError(
                f"the handler's code has taken {SIGNAL.name} for itself, which interrupts need: use a stop"
            )

    def ask(self, session: Session) -> None:
        """Have the main thread stop where it is."""
        self._asking = session
        signal.pthread_kill(self._main, SIGNAL)

    def cut_off(self, pdb: WorkerPdb) -> None:
        """End what is evaluated at the prompt of a debugger that is gone: it may go on forever."""
        thread = pdb.evaluating_in
        if not pdb.is_evaluating() or thread is None or thread == threading.get_ident():
            return
        if thread == self._main:
            self._gone = pdb
            signal.pthread_kill(self._main, SIGNAL)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))

    def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
        session, self._asking = self._asking, None
        pdb, self._gone = self._gone, None
        if pdb is not None and pdb.is_evaluating():
            raise KeyboardInterrupt
        if frame is not None and session is not None and not self._debugger.is_held_here():
            self._stop(session, frame)

    def _stop(self, session: Session, frame: types.FrameType) -> None:
        if session.pdb is None or session is not self._debugger.session:
            return
        if not self._debugger.is_call(self._debugger.call_of(frame)):
            # Another thread says so: this one may be in the middle of sending, or of anything else that takes a lock.
            session.met.put("idle")
        elif _is_leaving_a_prompt(frame):
            # It would clear on its way what this one sets now.
            session.met.put("prompt")
        elif is_ours(innermost_file(frame)):
            session.pdb.stop_soon(frame, "interrupt")
        else:
            self._debugger.enter(frame, "interrupt")
            session.pdb.stop_at(frame, "interrupt")


def _is_leaving_a_prompt(frame: types.FrameType) -> bool:
    """Whether an earlier debugger's code is still being returned from, of a thread that is not held any more."""
    found: types.FrameType | None = frame
    while found is not None and found.f_code.co_filename != _PROMPT_FILE:
        found = found.f_back
    return found is not None
