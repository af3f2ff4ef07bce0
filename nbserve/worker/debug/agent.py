"""The agent: listens for debuggers on a worker's socket and carries out what they say. Threads in the worker."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbserve import debugwire
from nbserve.errors import DebugError
from nbserve.worker.debug import stacks, targets
from nbserve.worker.debug.link import Link, Message
from nbserve.worker.debug.post_mortem import PostMortem
from nbserve.worker.debug.session import Session

if TYPE_CHECKING:
    from nbserve.worker.debug.debugger import Debugger
    from nbserve.worker.debug.editor import Editor

BACKLOG = 16
RETRY_S = 0.5
LATE_PROMPT_S = 2.0
# A prompt that is being left has so long until the next try.
AGAIN_S = 0.01
LATE_PROMPT = (
    "no prompt yet: the handler is in C code, which has to return before Python can stop. `stack` shows where it is"
)


class Agent:
    """Accepts debuggers, each in a thread of its own. A blocked accept costs nothing."""

    def __init__(self, debugger: Debugger, path: str) -> None:
        self._debugger = debugger
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._links: set[Link] = set()

    def start(self) -> None:
        """Listen before this returns. Called before any user code runs, as the umask is the whole process's."""
        Path(self._path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(self._path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            with debugwire.address(self._path) as address:
                self._listener.bind(address)
        finally:
            os.umask(before)
        self._listener.listen(BACKLOG)
        _start(self._accept)

    def stop(self) -> None:
        Path(self._path).unlink(missing_ok=True)

    def forget(self) -> None:
        """In a fork of the worker: keep nothing that belongs to the worker."""
        self._listener.close()
        for link in self._links:
            link.forget()

    def _accept(self) -> None:
        while self._listener.fileno() >= 0:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # No file descriptors are left, for now.
                time.sleep(RETRY_S)
            else:
                _start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            if debugwire.peer_uid(connection) not in (None, os.getuid()):
                return
            link = Link(connection)
            self._links.add(link)
            try:
                _Client(self._debugger, link).run()
            finally:
                self._links.discard(link)


class _Client:
    """One connection: what it says, done."""

    def __init__(self, debugger: Debugger, link: Link) -> None:
        self._debugger = debugger
        self._link = link
        self._who = ""
        self._session: Session | None = None
        self._verbs: dict[str, Callable[[Message], None]] = {
            "hello": self._hello,
            "stack": self._stack,
            "attach": self._begin,
            "stop": self._begin,
            "interrupt": self._begin,
            "post_mortem": self._begin,
            "debugpy": self._begin,
            "reply": self._link.replies.put,
            "complete": self._link.replies.put,
        }

    def run(self) -> None:
        try:
            for message in self._link.messages():
                if message.get("cmd") == "detach":
                    break
                self._carry_out(message)
        finally:
            self._link.replies.put(None)
            if self._session is not None:
                self._debugger.end(self._session, "detached")
            else:
                self._link.hang_up()

    def _carry_out(self, message: Message) -> None:
        verb = self._verbs.get(str(message.get("cmd")))
        try:
            if verb is None:
                raise DebugError(f"no command {str(message.get('cmd'))[:80]!r} is known here")
            if not self._who and message["cmd"] != "hello":
                raise DebugError("say hello first")
            verb(message)
        except DebugError as error:
            self._refuse(str(error))

    def _refuse(self, text: str) -> None:
        if self._session is not None:
            self._debugger.end(self._session, text, "refused")
        else:
            self._link.send("refused", text=text)
            self._link.hang_up()

    def _hello(self, message: Message) -> None:
        if message.get("protocol") != debugwire.PROTOCOL:
            raise DebugError(
                f"this worker speaks version {debugwire.PROTOCOL} of the debugger's protocol and you "
                f"{message.get('protocol')}: use the nbserve that the server was started with"
            )
        self._who = str(message.get("who") or "somebody")
        self._link.send("hello", protocol=debugwire.PROTOCOL, pid=os.getpid(), **self._debugger.state())

    def _stack(self, message: Message) -> None:
        self._link.send("stack", text=stacks.all_threads())

    def _begin(self, message: Message) -> None:
        """Make this connection the worker's debugger."""
        if self._session is not None:
            raise DebugError("this connection has a command already: open another for the next")
        verb = message["cmd"]
        session = Session(self._link, self._who, verb, bool(message.get("repeat")))
        self._debugger.begin(session)
        self._session = session
        getattr(self, f"_begin_{verb}")(session, message)

    def _begin_attach(self, session: Session, message: Message) -> None:
        self._debugger.take(session)

    def _begin_stop(self, session: Session, message: Message) -> None:
        session.target = targets.resolve(message.get("at"), self._debugger.handler())
        if message.get("if"):
            session.condition = targets.Condition(str(message["if"]))
        session.token = message.get("token")
        self._debugger.take(session)
        self._link.send("armed", text=session.target.text)

    def _begin_interrupt(self, session: Session, message: Message) -> None:
        self._debugger.interrupt(session)
        _start(self._follow_interrupt, session)

    def _follow_interrupt(self, session: Session) -> None:
        """Tell when it found nothing, or has not come to a prompt for a while; try again after another prompt."""
        try:
            while session.met.get(timeout=LATE_PROMPT_S) == "prompt":
                time.sleep(AGAIN_S)
                self._debugger.interrupt_again(session)
        except queue.Empty:
            if not session.has_stopped and self._debugger.session is session:
                session.note(LATE_PROMPT)
        else:
            self._debugger.refuse_as_idle(session)

    def _begin_post_mortem(self, session: Session, message: Message) -> None:
        found = self._debugger.errors.get()
        if found is None:
            raise DebugError(self._debugger.errors.why_none)
        _start(PostMortem(self._debugger, session, found).run)

    def _begin_debugpy(self, session: Session, message: Message) -> None:
        editor = self._debugger.editor(int(message.get("port") or 0))
        port = editor.listen()
        self._debugger.give_to(editor, session)
        self._link.send("listening", port=port)
        for label, file in editor.files.items():
            session.note(f"{label} is there: {file}")
        _start(self._watch_editor, editor, session)

    def _watch_editor(self, editor: Editor, session: Session) -> None:
        if editor.wait_until_connected():
            self._debugger.editor_connected()
            editor.wait_until_left()
            self._debugger.end(session, "the editor has left; this worker is replaced, as it runs slower now")


def _start(work: Callable[..., Any], *arguments: Any) -> None:
    thread = threading.Thread(target=work, args=arguments, name="nbserve-debug", daemon=True)
    # Else debugpy stops this thread too whenever it stops the handler, and nobody could be served or let go.
    vars(thread).update(pydev_do_not_trace=True, is_pydev_daemon_thread=True)
    thread.start()
